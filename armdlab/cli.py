"""What can be done with the lab from a terminal? Progress goes to stderr, results to stdout."""

from __future__ import annotations

import os
import runpy
import sys
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import datasets
import torch
import typer
from rich.live import Live

from armdlab import corpora, terminal
from armdlab.baselines import AR, BlockDiffusion
from armdlab.checkpoints import write_json
from armdlab.correcting import Corrector
from armdlab.decoding import decode_steps, default_order, streams_of
from armdlab.evaluation import any_order, bound, likelihood
from armdlab.gated import Gate
from armdlab.model import ARMD
from armdlab.recipes import VALIDATION_TOKENS, Session
from armdlab.rows import encode
from armdlab.tale_evaluation import tale_report
from armdlab.terminal import Json, progress
from armdlab.trained import CARD, fastest_device, load
from armdlab.training_command import train

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Learn, see and use Auto-Regressive Masked Diffusion language models.",
)

BENCHMARKS = Path(__file__).resolve().parents[1] / "tests" / "benchmarks"
Folder = Annotated[str, typer.Argument(metavar="DIR", help="What `train --out` wrote, or a model that the lab ships.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, mps; the fastest that is there if left out.")]


def main() -> None:
    """Run the command line: a mistake of the user ends in one sentence, not in a traceback."""
    datasets.disable_progress_bars()
    try:
        app()
    except (ValueError, OSError, FloatingPointError) as error:
        if os.environ.get("ARMDLAB_DEBUG"):
            raise
        terminal.complain(error)
        sys.exit(2)


app.command()(train)


@app.command("generate")
def write(
    folder: Folder,
    prompt: Annotated[str, typer.Option(help="What the text starts with.")] = "",
    streams: Annotated[int, typer.Option(help="How many tokens are made at once, S.")] = 1,
    steps: Annotated[
        int | None, typer.Option(help="Of masked diffusion, in place of streams: denoising steps T (of each block).")
    ] = None,
    tokens: Annotated[int | None, typer.Option(help="How many to make; all that fit if left out.")] = None,
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest token.")] = 1.0,
    top_k: Annotated[int | None, typer.Option(help="Keep the k likeliest tokens.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Keep the likeliest tokens up to this probability.")] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Draft in parallel, keep what passes: exact.")] = False,
    verify_heads: Annotated[
        bool,
        typer.Option("--verify-heads", help="Do so for the heads of streams alone: plain streams, in fewer calls."),
    ] = False,
    min_probability: Annotated[float | None, typer.Option(help="A stream waits with less likely tokens.")] = None,
    correct: Annotated[
        float | None,
        typer.Option(help="Read the text again; draw anew what is then dearer by so many nats."),
    ] = None,
    live: Annotated[bool, typer.Option("--live", help="Watch each stream fill its lane.")] = False,
    seed: Annotated[int | None, typer.Option(help="Makes chance repeatable; a fresh one if left out.")] = None,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Write text, several streams at once.

    Examples:
        armdlab generate runs/manual --prompt "The for statement" --streams 4 --live

        armdlab generate runs/manual --streams 2 --tokens 64 --temperature 0.8 --seed 1 --json

        armdlab generate tales --streams 8 --verify

        armdlab generate manual --streams 16 --verify-heads

        armdlab generate tales --streams 8 --correct 5

        armdlab generate tales_mdlm --steps 32
    """
    lab = load(folder, device=fastest_device(device))
    ids = lab.tokenizer.encode(prompt)
    longest = lab.model.config.max_length
    if len(ids) >= longest:
        raise ValueError(f"the prompt has {len(ids)} tokens and the model can hold {longest}; shorten it")
    room = longest - len(ids)
    lanes = max(1, streams)  # decode_steps refuses less
    if tokens is None and lanes > room:
        raise ValueError(f"streams={streams} must be from 1 to {room}, what the model can hold behind this prompt")
    n_new = (room if ids else room // lanes * lanes) if tokens is None else tokens
    if not 1 <= n_new <= room:
        raise ValueError(f"tokens={n_new} must be from 1 to {room}, what the model can hold behind this prompt")
    if n_new % lanes and not ids:
        raise ValueError(f"streams={streams} does not divide tokens={n_new}; try --tokens {n_new - n_new % lanes}")
    is_open = torch.arange(len(ids) + n_new)[None] >= len(ids)
    order, n_calls = None, default_order(~is_open, streams).n_blocks - len(ids)
    if verify and verify_heads:
        raise ValueError("--verify and --verify-heads are two ways of decoding; give one of them")
    if steps is not None:
        if streams != 1:
            raise ValueError(
                f"steps={steps} and streams={streams} both say how many tokens are made at once; give one of them"
            )
        order = lab.denoising_order(steps, length=len(ids) + n_new, n_known=len(ids), seed=seed)
        n_calls = len(order.blocks_in_text_order[len(ids) :].unique())
    decoded = decode_steps(
        lab.engine,
        length=len(ids) + n_new,
        prompt=ids or None,
        streams=streams,
        order=order,
        verify=verify or ("heads" if verify_heads else False),
        gate=None if min_probability is None else Gate(min_probability),
        correct=None if correct is None else Corrector(above=correct),
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        seed=seed,
    )
    is_planned = not verify and not verify_heads and min_probability is None  # else chance decides how many calls
    made, nats = dict(enumerate(ids)), torch.zeros(1, len(ids) + n_new)
    written, n_steps, n_again, seconds = {}, 0, 0, 0.0
    with Live(console=progress, auto_refresh=False, vertical_overflow="visible") if live else nullcontext() as screen:
        for step in decoded:
            if step.is_reading:
                written, n_again = written or dict(made), n_again + step.calls
            else:
                n_steps, seconds = n_steps + 1, step.elapsed
            made.update(zip(step.positions.tolist(), step.tokens[0].tolist(), strict=True))
            step.write_into(nats, -step.log_probs.float())
            if screen is not None:
                at = f"{n_steps} of {n_calls}" if is_planned else str(n_steps)
                drawn = terminal.lanes(lab, prompt, made, streams_of(~is_open[0], streams), at, step.elapsed)
                screen.update(drawn, refresh=True)
    row = [made[p] for p in range(len(made))]
    facts = {"text": lab.read(row), "steps": n_steps, "tokens": n_new, "streams": streams, "seconds": seconds}
    facts |= {"nats_per_token": float(nats.double().sum()) / n_new, "seed": seed}
    progress.print(f"{n_new} tokens in {n_steps} steps, {seconds:.2f} s, {n_new / seconds:,.0f} tokens/s")
    if correct is not None:
        facts["new_tokens"] = sum(made[p] != token for p, token in written.items())
        progress.print(f"read again in {n_again} calls: {facts['new_tokens']} tokens are new")
    terminal.answer(as_json, facts, facts["text"])


@app.command()
def evaluate(
    folder: Folder,
    corpus: Annotated[str | None, typer.Option(help="Another corpus than the model's own held-out part.")] = None,
    streams: Annotated[list[int] | None, typer.Option(help="Score under S strided streams alone; repeatable.")] = None,
    samples: Annotated[
        int | None, typer.Option(help="Of a model of tales: how many to write for each S; 200 if left out, 0 for none.")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Write what was found into the model's card.")] = False,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Score held-out text, exactly, under left-to-right, strided and random orders.

    Masked diffusion is scored by its bound; on a few rows exactly, too, beside the bound on these.

    A model of tales also writes some, and is compared with the truth: nats above it, share of tales that hold together.

    Examples:
        armdlab evaluate runs/manual

        armdlab evaluate runs/manual --streams 1 --streams 8 --json
    """
    lab = load(folder, device=fastest_device(device))
    name, length = corpus or lab.card.get("corpus", "manual"), lab.model.config.max_length
    is_diffusion = isinstance(lab.model, BlockDiffusion)
    if streams and (is_diffusion or (isinstance(lab.model, AR) and set(streams) != {1})):
        how = "is scored by the bound of masked diffusion" if is_diffusion else "knows left to right alone"
        raise ValueError(f"streams={streams} for {type(lab.model).__name__}, which {how}; leave --streams out")
    progress.print(f"reading {name}")
    splits = corpora.load(name, seed=lab.card.get("split_seed", 0))
    layout = lab.card.get("layout", "running") if corpus is None else corpora.usual_layout(name)
    writes_tales = corpora.is_tales(name) and layout != "running"
    if samples and not writes_tales:
        raise ValueError(
            f"samples={samples} are tales to judge, but {name} is read in {layout} rows; leave --samples out"
        )
    samples = 200 if samples is None else samples
    text = encode(splits["validation"]["text"], lab.tokenizer, length, layout, VALIDATION_TOKENS)
    split = corpora.held_out_split(splits)
    counts, steps, said_of = [s for s in (1, 2, 4, 8) if length % s == 0], (), corpora.held_out_in_words(name, split)
    if isinstance(lab.model, AR):
        counts = [1]
    if is_diffusion:
        progress.print(f"scoring {len(text.ids):,} tokens of {name} by the bound")
        size = min(lab.model.block_size, length)
        steps = tuple(dict.fromkeys((size, max(1, size // 4))))  # of each block
        found = [bound(lab.model, text, length, name=said_of)]
        if size == length:  # block diffusion cannot follow any order
            on_few = any_order(lab.model, text, length, n_rows=16, n_orders=4, name=f"{said_of}, up to 16 rows of it")
            found += [on_few.bound, on_few]
    else:
        counts, found = streams or counts, []
        for count in counts:
            progress.print(f"scoring {len(text.ids):,} tokens of {name}, S = {count}")
            found.append(likelihood(lab.model, text, length, streams=count, name=said_of))
        if isinstance(lab.model, ARMD) and not streams:
            progress.print(f"scoring {name} in random orders")
            found.append(likelihood(lab.model, text, length, shuffled=length, name=said_of))
    results = [asdict(f) | {"perplexity": f.perplexity} for f in found]
    facts, said = {"corpus": name, "split": split, "results": results}, list(map(str, found))
    if writes_tales and samples:
        progress.print(f"writing and judging {samples} tales for each S")
        report = tale_report(
            lab.model,
            lab.tokenizer,
            splits,
            streams=counts,
            steps=steps,
            n_samples=samples,
            length=length,
            layout=layout,
        )
        facts["tales"], said = asdict(report), [*said, "", str(report)]
    if keep:
        write_json(lab.folder / CARD, lab.card | {"figures": facts})
    terminal.answer(as_json, facts, "\n".join(said))


@app.command()
def export(
    folder: Folder,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write to.")],
) -> None:
    """Keep what is needed to use a model: weights in half precision, tokenizer and card, no state of training.

    Example:
        armdlab export runs/tales data/checkpoints/tales
    """
    load(folder).export(out)
    progress.print(f"{sum(path.stat().st_size for path in out.iterdir()) / 2**20:.1f} MiB in {out}")


@app.command()
def reproduce(
    table: Annotated[str, typer.Argument(metavar="TABLE", help="table1, table2 or table3 of the paper.")],
    budget: Annotated[
        str, typer.Option(help="laptop (about an hour on one core), or gpu: the paper's own.")
    ] = "laptop",
    out: Annotated[Path | None, typer.Option(help="Folder of runs and tables; runs/BUDGET if left out.")] = None,
    as_json: Json = False,
) -> None:
    """Train what is missing for a table of the paper, measure it, and show the paper's figures beside ours.

    Runs are shared by the tables, and what was stopped goes on, training and measuring alike: repeat the command. The
    table, its figure and all numbers are written into the folder.

    Examples:
        armdlab reproduce table3 --budget laptop

        armdlab reproduce table2 --budget gpu --out /scratch/armd
    """
    from armdlab.budgets import BUDGETS
    from armdlab.figures import tables as table_figures
    from armdlab.reproduce import TABLES, Runs, Stopped

    for name, value, allowed in (("table", table, TABLES), ("budget", budget, BUDGETS)):
        if value not in allowed:
            raise ValueError(f"{name}={value!r} is unknown; choose {', '.join(allowed)}")
    if int(os.environ.get("WORLD_SIZE") or 1) > 1:
        raise ValueError(
            f"WORLD_SIZE={os.environ['WORLD_SIZE']} processes were launched, each of which would measure the whole "
            "table, and train by larger batches than its budget says; start `armdlab reproduce` without torchrun"
        )
    out = out or Path("runs") / budget
    command = f"armdlab reproduce {table} --budget {budget}"

    def train_watched(session: Session) -> bool:
        progress.print(f"training {session.out}")
        return terminal.watch(session)

    runs = Runs(BUDGETS[budget], out, train_watched, command, device=fastest_device(None), say=progress.print)
    try:
        found = TABLES[table](runs)
    except KeyboardInterrupt as stop:
        said = str(stop) if isinstance(stop, Stopped) else f"stopped; what was saved before is in {out}"
        progress.print(f"{said}; the same command goes on")
        raise typer.Exit(130) from None
    terminal.answer(as_json, found.as_json(), f"{found}\n\nwritten to {table_figures.save(found, out, table)}")


@app.command(context_settings={"ignore_unknown_options": True})
def bench(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="What to measure; a list if left out.")] = None,
    arguments: Annotated[list[str] | None, typer.Argument(metavar="...", help="Passed on to the benchmark.")] = None,
) -> None:
    """Measure this lab on your machine, against its peers, by the scripts in tests/benchmarks.

    Examples:
        armdlab bench training

        armdlab bench decoding speed --length 256 --only armd ar gpt2
    """
    found = {path: path.read_text(encoding="utf-8") for path in sorted(BENCHMARKS.glob("*.py"))}
    scripts = {path.stem: path for path, text in found.items() if "__main__" in text}  # the others serve them
    if not scripts:
        raise ValueError(
            f"{BENCHMARKS} holds no benchmarks: they come with the repository; run this from a clone of it"
        )
    if name is None:
        for stem, path in scripts.items():
            print(f"{stem:14} {found[path].splitlines()[0].strip(chr(34))}")
        return
    if name not in scripts:
        raise ValueError(f"name={name!r} is no benchmark; choose {', '.join(scripts)}")
    sys.argv = [str(scripts[name]), *(arguments or [])]
    sys.path.insert(0, str(BENCHMARKS))  # as Python does for a script
    runpy.run_path(str(scripts[name]), run_name="__main__")


@app.command()
def doctor(as_json: Json = False) -> None:
    """Look at everything that the lab needs, and say how to mend what is missing.

    Example:
        armdlab doctor
    """
    from armdlab.doctor import examine  # it reads every installed package: not at each start

    findings = []
    for finding in examine():
        findings.append(finding)
        if not as_json:
            print(finding)
    if as_json:
        terminal.answer(True, [asdict(finding) for finding in findings], "")
    if not all(finding.is_ok for finding in findings):
        raise typer.Exit(1)


if __name__ == "__main__":
    main()
