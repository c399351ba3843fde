"""What can be done with the lab from a terminal? Progress goes to stderr, results to stdout."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
import time
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import datasets
import torch
import typer
from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text as Styled

import armdlab
from armdlab import corpora
from armdlab.checkpoints import read_json, write_json
from armdlab.corpora import Rows, Text
from armdlab.curriculum import Curriculum
from armdlab.decoding import decode_steps
from armdlab.evaluation import Likelihood, likelihood, tale_report
from armdlab.model import ARMD, ARMDConfig
from armdlab.tokenization import Tokenizer
from armdlab.trained import CARD, Lab, load
from armdlab.training import Plan, Training, load_plan, seconds_per_step

VALIDATION_TOKENS = 50_000  # enough for a standard error of about 0.01 nats, and seconds on a laptop
SMALL_TEXT = 3_000_000  # characters: less is read many times over in minutes, and learnt by heart without dropout
LANE_COLOURS = ("#56B4E9", "#E69F00", "#009E73", "#CC79A7", "#F0E442", "#0072B2", "#D55E00", "#999999")  # Okabe-Ito

progress = Console(stderr=True)
app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Learn, see and use Auto-Regressive Masked Diffusion language models.",
)

Folder = Annotated[str, typer.Argument(metavar="DIR", help="What `train --out` wrote, or a model that the lab ships.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object to stdout.")]
Seed = Annotated[int, typer.Option(help="Makes chance repeatable.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, mps; the fastest that is there if left out.")]


def main() -> None:
    """Run the command line: a mistake of the user ends in one sentence, not in a traceback."""
    datasets.disable_progress_bars()
    try:
        app()
    except (ValueError, OSError, FloatingPointError) as error:
        if os.environ.get("ARMDLAB_DEBUG"):
            raise
        progress.print(Styled.assemble(("error: ", "bold red"), str(error)), soft_wrap=True)
        sys.exit(2)


@app.command()
def train(
    context: typer.Context,
    out: Annotated[Path, typer.Option(help="Folder for the model, its tokenizer and its card.")],
    corpus: Annotated[str, typer.Option(help="tales, manual, kjv, file:PATH, or owner/name on the Hub.")] = "manual",
    minutes: Annotated[float | None, typer.Option(help="Time to train; a rehearsal turns it into steps.")] = None,
    steps: Annotated[int | None, typer.Option(help="Optimiser steps to train, in place of minutes.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with what stopped in DIR.")] = False,
    length: Annotated[int, typer.Option(help="Tokens in a row, N.")] = 256,
    layout: Annotated[
        str | None, typer.Option(help="Rows cut from running text, or of whole texts: running, padded, packed.")
    ] = None,
    vocab_size: Annotated[int, typer.Option(help="Token ids of the tokenizer that is trained.")] = 1024,
    n_layer: Annotated[int, typer.Option(help="Layers L.")] = 4,
    n_head: Annotated[int, typer.Option(help="Attention heads H.")] = 4,
    d_model: Annotated[int, typer.Option(help="Width D.")] = 128,
    dropout: Annotated[
        float | None,
        typer.Option(help="Share of features dropped; 0.4 for a small text, 0 for a large one if left out."),
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Rows at each step, B.")] = 16,
    learning_rate: Annotated[float, typer.Option(help="At the top of the schedule.")] = 2e-3,
    precision: Annotated[str, typer.Option(help="float32, bf16, or auto: the faster in a rehearsal.")] = "auto",
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Train a model on text: left to right, then shuffled, then in strided streams.

    Examples:
        armdlab train --corpus manual --minutes 2 --out runs/manual

        armdlab train --corpus tales --minutes 3 --out runs/tales

        armdlab train --corpus file:novel.txt --steps 2000 --out runs/novel --seed 7

        armdlab train --corpus file:novel.txt --out runs/novel --resume
    """
    if resume:
        _refuse_new_settings(context)
        lab, plan = load(out), load_plan(out)
        model, tokenizer, corpus = lab.model, lab.tokenizer, lab.card.get("corpus", corpus)
        layout, splits = lab.card.get("layout", "running"), corpora.load(corpus, seed=plan.seed)
    else:
        if (minutes is None) == (steps is None):
            raise ValueError(f"minutes={minutes} and steps={steps}; give one of them, such as --minutes 2")
        if minutes is not None and not minutes > 0:
            raise ValueError(f"minutes={minutes} must be above 0; 2 is a good start")
        if (out / CARD).exists():
            raise ValueError(f"{out} holds a model already; go on with --resume, or choose another --out")
        plan = Plan(
            steps or 1, Curriculum.for_steps(steps or 1, length, seed=seed), batch_size, learning_rate, seed=seed
        )
        layout, splits = layout or _usual_layout(corpus), corpora.load(corpus, seed=seed)
        progress.print(f"learning a tokenizer of {vocab_size} ids from {corpus}")
        tokenizer = Tokenizer.train(splits["train"]["text"], vocab_size)
        torch.manual_seed(seed)
        if dropout is None:
            dropout = 0.4 if sum(map(len, splits["train"]["text"])) < SMALL_TEXT else 0.0
        sizes = {"n_layer": n_layer, "n_head": n_head, "d_model": d_model, "dropout": dropout}
        model = ARMD(ARMDConfig(tokenizer.vocab_size, length, **sizes))
    model.to(_fastest(None))
    length = plan.curriculum.length
    text = _encode(splits["train"]["text"], tokenizer, length, layout)
    held_out = _encode(splits["validation"]["text"], tokenizer, length, layout, at_most=VALIDATION_TOKENS)
    if resume:
        run, card = Training(model, text, plan), lab.card
        run.resume(out)
        progress.print(f"resuming at step {run.step} of {plan.steps}")
    else:
        run = Training(model, text, _rehearse(model, text, plan, precision, minutes))
        before = likelihood(run.bare_model, held_out, length)
        progress.print(f"before: {before}")
        command = shlex.join(["armdlab", *sys.argv[1:]])
        card = {
            "command": command,
            "corpus": corpus,
            "layout": layout,
            "seed": seed,
            "seconds": 0.0,
            "before": before.nats_per_token,
        }
        out.mkdir(parents=True, exist_ok=True)
        tokenizer.save(out)
    try:
        seconds, stopped = _watch(run, held_out)
    except FloatingPointError:
        _save(run, out, card, held_out)
        progress.print(f"the last good weights are in {out}")
        raise
    after = _save(run, out, card | {"seconds": card["seconds"] + seconds}, held_out)
    if stopped:
        progress.print(f"stopped at step {run.step} of {run.plan.steps}; saved in {out}, go on with --resume")
    _answer(as_json, {"out": str(out), **read_json(out / CARD)}, f"after:  {after}\nsaved in {out}")
    if stopped:
        raise typer.Exit(130)


def _usual_layout(corpus: str) -> str:
    return "padded" if corpora.is_tales(corpus) else "running"


def _encode(
    texts: Iterable[str], tokenizer: Tokenizer, length: int, layout: str, at_most: int | None = None
) -> Text | Rows:
    if layout == "running":
        return Text.encode(texts, tokenizer, at_most=at_most)
    if layout not in ("padded", "packed"):
        raise ValueError(f"layout={layout!r} is unknown; choose running, padded (a text a row) or packed")
    return Rows.encode(texts, tokenizer, length, layout, at_most=at_most)


def _refuse_new_settings(context: typer.Context) -> None:
    """A resumed run follows the plan that it was saved with: say so rather than ignore what was asked."""
    asked = [name for name in context.params if context.get_parameter_source(name).name == "COMMANDLINE"]
    extra = sorted(f"--{name.replace('_', '-')}" for name in set(asked) - {"out", "resume", "as_json"})
    if extra:
        raise ValueError(f"--resume goes on with the plan saved in DIR; leave out {', '.join(extra)}")


def _rehearse(model: ARMD, text: Text | Rows, plan: Plan, precision: str, minutes: float | None) -> Plan:
    """Measure what a step costs; choose the precision, and turn minutes into steps."""
    choices = {"float32": [False], "bf16": [True], "auto": [False, True]}
    if precision not in choices:
        raise ValueError(f"precision={precision!r} is unknown; choose float32, bf16 or auto")
    if minutes is None and len(choices[precision]) == 1:
        return replace(plan, bf16=choices[precision][0])
    seconds = {bf16: seconds_per_step(model, text, replace(plan, bf16=bf16)) for bf16 in choices[precision]}
    bf16 = min(seconds, key=seconds.get)
    found = ", ".join(f"{'bf16' if key else 'float32'} {value:.2f} s" for key, value in seconds.items())
    if minutes is None:
        progress.print(f"a step takes {found}")
        return replace(plan, bf16=bf16)
    steps = max(1, int(60 * minutes / (1.08 * seconds[bf16])))  # optimiser and batches cost about 8 % more
    progress.print(f"a step takes {found}: {minutes:g} minutes are about {steps} steps (--steps {steps} repeats it)")
    curriculum = Curriculum.for_steps(steps, plan.curriculum.length, seed=plan.seed)
    return replace(plan, steps=steps, curriculum=curriculum, bf16=bf16)


def _watch(run: Training, held_out: Text | Rows) -> tuple[float, bool]:
    """Train with a progress bar, scoring held-out text after each lesson of the curriculum.

    Ctrl-C lets the step at hand end, so that what is saved is whole; a second one does not wait.

    Returns:
        Seconds, and whether it was stopped.
    """
    columns = (
        TextColumn("{task.fields[phase]:>13}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.3f}  {task.fields[rate]:,.0f} tokens/s"),
        TimeRemainingColumn(),
    )
    asked_to_stop = False

    def stop(*_: object) -> None:
        nonlocal asked_to_stop
        asked_to_stop = True
        signal.signal(signal.SIGINT, usual)

    usual = signal.signal(signal.SIGINT, stop)
    started, loss = time.perf_counter(), None
    with Progress(*columns, console=progress) as bar:
        task = bar.add_task("", total=run.plan.steps, completed=run.step, phase="", loss=float("nan"), rate=0.0)
        for step in run.run():
            loss = step.loss if loss is None else 0.9 * loss + 0.1 * step.loss
            bar.update(task, completed=step.step, phase=step.phase, loss=loss, rate=step.tokens_per_second)
            following = run.plan.curriculum.phase(step.step)
            if following != step.phase and step.step < run.plan.steps:
                progress.print(f"{step.phase}: {likelihood(run.bare_model, held_out, run.plan.curriculum.length)}")
            if asked_to_stop:
                break
    signal.signal(signal.SIGINT, usual)
    return time.perf_counter() - started, asked_to_stop


def _save(run: Training, out: Path, card: dict[str, Any], held_out: Text | Rows) -> Likelihood:
    """Write model, optimiser state and card; return how well the model does by now."""
    run.save(out)
    after = likelihood(run.bare_model, held_out, run.plan.curriculum.length)
    write_json(
        out / CARD,
        {
            **card,
            "steps": run.step,
            "planned_steps": run.plan.steps,
            "parameters": run.bare_model.n_parameters,
            "versions": {"armdlab": armdlab.__version__, "torch": torch.__version__, "python": sys.version.split()[0]},
            "validation": {**asdict(after), "perplexity": after.perplexity},
        },
    )
    return after


@app.command("generate")
def write(
    folder: Folder,
    prompt: Annotated[str, typer.Option(help="What the text starts with.")] = "",
    streams: Annotated[int, typer.Option(help="How many tokens are made at once, S.")] = 1,
    tokens: Annotated[int | None, typer.Option(help="How many to make; all that fit if left out.")] = None,
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest token.")] = 1.0,
    top_k: Annotated[int | None, typer.Option(help="Keep the k likeliest tokens.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Keep the likeliest tokens up to this probability.")] = None,
    live: Annotated[bool, typer.Option("--live", help="Watch each stream fill its lane.")] = False,
    seed: Annotated[int | None, typer.Option(help="Makes chance repeatable; a fresh one if left out.")] = None,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Write text, several streams at once.

    Examples:
        armdlab generate runs/manual --prompt "The for statement" --streams 4 --live

        armdlab generate runs/manual --streams 2 --tokens 64 --temperature 0.8 --seed 1 --json
    """
    lab = load(folder, device=_fastest(device))
    ids = lab.tokenizer.encode(prompt)
    longest = lab.model.config.max_length
    if len(ids) >= longest:
        raise ValueError(f"the prompt has {len(ids)} tokens and the model can hold {longest}; shorten it")
    room = longest - len(ids)
    lanes = max(1, streams)  # decode_steps refuses less
    n_new = room // lanes * lanes if tokens is None else tokens
    if not 1 <= n_new <= room:
        raise ValueError(f"tokens={n_new} must be from 1 to {room}, what the model can hold behind this prompt")
    if n_new % lanes:
        raise ValueError(f"streams={streams} does not divide tokens={n_new}; try --tokens {n_new - n_new % lanes}")
    steps = decode_steps(
        lab.model,
        length=len(ids) + n_new,
        prompt=ids or None,
        streams=streams,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        seed=seed,
    )
    made = dict(enumerate(ids))
    log_prob, n_steps, seconds = 0.0, 0, 0.0
    with Live(console=progress, auto_refresh=False, vertical_overflow="visible") if live else nullcontext() as screen:
        for step in steps:
            made.update(zip(step.positions.tolist(), step.tokens[0].tolist(), strict=True))
            log_prob, n_steps, seconds = log_prob + float(step.log_probs.sum()), n_steps + 1, step.elapsed
            if screen is not None:
                screen.update(_lanes(lab, prompt, made, len(ids), n_new, streams, n_steps, seconds), refresh=True)
    text = lab.tokenizer.decode([made[p] for p in range(len(made))])
    facts = {"text": text, "steps": n_steps, "tokens": n_new, "streams": streams, "seconds": seconds}
    facts |= {"nats_per_token": -log_prob / n_new, "seed": seed}
    progress.print(f"{n_new} tokens in {n_steps} steps, {seconds:.2f} s, {n_new / seconds:,.0f} tokens/s")
    _answer(as_json, facts, text)


def _lanes(
    lab: Lab, prompt: str, made: dict[int, int], start: int, n_new: int, streams: int, n_steps: int, seconds: float
) -> Group:
    """Draw each stream as a lane of its own colour, and how far it has come."""
    table = Table.grid(padding=(0, 1))
    table.add_column(justify="right", style="dim")
    table.add_column()
    depth = n_new // streams
    if prompt:
        table.add_row("prompt", Styled(prompt, style="dim"))
    for lane in range(streams):
        first = start + lane * depth
        ids = [made[p] for p in range(first, first + depth) if p in made]
        text = Styled(lab.tokenizer.decode(ids), style=LANE_COLOURS[lane % len(LANE_COLOURS)])
        text.append("█" if 0 < len(ids) < depth else "", style="blink")
        table.add_row(f"stream {lane + 1}", text)
    done = sum(p >= start for p in made)
    status = f"step {n_steps} of {streams + depth - 1}   {done} of {n_new} tokens   {seconds:.2f} s"
    return Group(Panel(table, title=f"{streams} streams", title_align="left"), Styled(status, style="dim"))


@app.command()
def evaluate(
    folder: Folder,
    corpus: Annotated[str | None, typer.Option(help="Another corpus than the model's own held-out part.")] = None,
    streams: Annotated[list[int] | None, typer.Option(help="Score under S strided streams; repeatable.")] = None,
    samples: Annotated[int, typer.Option(help="Of a model of tales: how many to write for each S; 0 for none.")] = 200,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Score held-out text, exactly, under left-to-right and strided orders.

    A model of tales also writes some, and is compared with the truth: nats above it, share of tales that hold together.

    Examples:
        armdlab evaluate runs/manual

        armdlab evaluate runs/manual --streams 1 --streams 8 --json
    """
    lab = load(folder, device=_fastest(device))
    name, length = corpus or lab.card.get("corpus", "manual"), lab.model.config.max_length
    splits = corpora.load(name, seed=lab.card.get("seed", 0))
    layout = lab.card.get("layout", "running") if corpus is None else _usual_layout(name)
    text = _encode(splits["validation"]["text"], lab.tokenizer, length, layout, VALIDATION_TOKENS)
    found, counts = [], streams or [s for s in (1, 2, 4) if length % s == 0]
    for count in counts:
        progress.print(f"scoring {len(text.ids):,} tokens of {name}, S = {count}")
        found.append(likelihood(lab.model, text, length, streams=count))
    results = [asdict(f) | {"perplexity": f.perplexity} for f in found]
    facts, said = {"corpus": name, "split": "validation", "results": results}, list(map(str, found))
    if corpora.is_tales(name) and layout != "running" and samples:
        progress.print(f"writing and judging {samples} tales for each S")
        report = tale_report(
            lab.model, lab.tokenizer, splits, streams=counts, n_samples=samples, length=length, layout=layout
        )
        facts["tales"], said = asdict(report), [*said, "", str(report)]
    _answer(as_json, facts, "\n".join(said))


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
            mark = "[OK]  " if finding.is_ok else "[FAIL]"
            mend = "" if finding.is_ok else f"\n       mend: {finding.mend}"
            print(f"{mark} {finding.name}: {finding.found}{mend}")
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
    if not all(finding.is_ok for finding in findings):
        raise typer.Exit(1)


def _fastest(device: str | None) -> torch.device:
    if device is not None:
        try:
            torch.empty(1, device=device)
        except (RuntimeError, AssertionError):
            raise ValueError(f"device={device} cannot be used here; `armdlab doctor` lists those that can") from None
        return torch.device(device)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def _answer(as_json: bool, facts: dict[str, Any], text: str) -> None:
    print(json.dumps(facts, indent=2) if as_json else text)


if __name__ == "__main__":
    main()
