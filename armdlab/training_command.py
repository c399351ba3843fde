"""What can be said of a training run in a terminal? (the command `armdlab train`)"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from armdlab import terminal
from armdlab.curriculum import weighed
from armdlab.networks import SIZES
from armdlab.recipes import Recipe, Session
from armdlab.terminal import Json, progress

PRECISIONS = {"float32": (False,), "bf16": (True,), "auto": (False, True)}
# option of `train`: model
OF_ORDERS = ("rho", "streams", "prompts", "marks", "orders", "fine_tuning")
ONLY_FOR = dict.fromkeys(OF_ORDERS, "armd") | {"block_size": "block"}


def train(
    context: typer.Context,
    out: Annotated[Path, typer.Option(help="Folder for the model, its tokenizer and its card.")],
    model: Annotated[str, typer.Option(help="armd, or a baseline: ar, mdlm, block (block diffusion).")] = "armd",
    corpus: Annotated[str, typer.Option(help="tales, manual, kjv, file:PATH, or owner/name on the Hub.")] = "manual",
    start: Annotated[
        str | None, typer.Option(help="A folder or a shipped model to start from, with its sizes and tokenizer.")
    ] = None,
    deepen: Annotated[
        int | None, typer.Option(help="Layers that this model is deepened to; new ones add nothing at first.")
    ] = None,
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
        float | None, typer.Option(help="Share of features dropped; left out, 0.4 for a small text and 0 for a large.")
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Rows at each step, B.")] = 16,
    learning_rate: Annotated[float, typer.Option(help="At the top of the schedule.")] = 2e-3,
    muon: Annotated[
        float | None,
        typer.Option(help="Of Muon, on the matrices of the layers, such as 0.02; AdamW alone if left out."),
    ] = None,
    fine_tuning: Annotated[float, typer.Option(help="Share of it at which the strided lesson starts.")] = 1.0,
    cool_down: Annotated[float, typer.Option(help="Share of its top that the learning rate ends at.")] = 0.1,
    weight_decay: Annotated[float, typer.Option(help="On matrices.")] = 0.1,
    beta2: Annotated[float, typer.Option(help="Memory of AdamW's second moment; 0.999 for long runs.")] = 0.95,
    soft_targets: Annotated[
        bool, typer.Option("--soft-targets", help="Learn all that the grammar of tales could have put there.")
    ] = False,
    unlikelihood: Annotated[
        float,
        typer.Option(help="Weight in the loss, falling with the rate to a tenth, of tokens said before."),
    ] = 0.0,
    precision: Annotated[str, typer.Option(help="float32, bf16, or auto: the faster in a rehearsal.")] = "auto",
    rho: Annotated[int | None, typer.Option(help="Shuffled tokens at the end of the ramp; N/32 if left out.")] = None,
    streams: Annotated[
        list[int] | None, typer.Option(help="Streams S of the strided lesson; repeatable. 1, 2, 4, 8 if left out.")
    ] = None,
    prompts: Annotated[float, typer.Option(help="Share of rows in streams that stand behind a prompt.")] = 0.0,
    marks: Annotated[
        tuple[int, int, int] | None,
        typer.Option(help="Steps at which shuffling begins, stops growing, and the strided lesson begins."),
    ] = None,
    orders: Annotated[
        list[str] | None,
        typer.Option(help="Family of orders of the strided lesson and its weight, as 'one by one=1'; repeatable."),
    ] = None,
    block_size: Annotated[int, typer.Option(help="Tokens in a block of block diffusion.")] = 16,
    seed: Annotated[int, typer.Option(help="Makes chance repeatable.")] = 0,
    as_json: Json = False,
) -> None:
    """Train a model on text: left to right, then shuffled, then in strided streams.

    Examples:
        armdlab train --corpus manual --minutes 2 --out runs/manual

        armdlab train --corpus tales --minutes 3 --out runs/tales

        armdlab train --corpus file:novel.txt --steps 2000 --out runs/novel --seed 7

        armdlab train --out runs/novel --resume

        armdlab train --model mdlm --corpus tales:50000 --minutes 10 --out runs/tales_mdlm
    """
    terminal.let_the_first_speak()
    if resume:
        _refuse_new_settings(context)
        session = Session.resume(out)
        progress.print(f"resuming at step {session.training.step} of {session.training.plan.steps}")
        return terminal.finish(session, as_json)
    if (minutes is None) == (steps is None):
        raise ValueError(f"minutes={minutes} and steps={steps}; give one of them, such as --minutes 2")
    if minutes is not None and not minutes > 0:
        raise ValueError(f"minutes={minutes} must be above 0; 2 is a good start")
    if precision not in PRECISIONS:
        raise ValueError(f"precision={precision!r} is unknown; choose {', '.join(PRECISIONS)}")
    recipe = Recipe(
        model=model,
        corpus=corpus,
        start=start,
        deepen=deepen,
        steps=1 if steps is None else steps,
        length=length,
        layout=layout,
        vocab_size=vocab_size,
        n_layer=n_layer,
        n_head=n_head,
        d_model=d_model,
        dropout=dropout,
        batch_size=batch_size,
        learning_rate=learning_rate,
        muon=muon,
        fine_tuning=fine_tuning,
        cool_down=cool_down,
        weight_decay=weight_decay,
        beta2=beta2,
        soft_targets=soft_targets,
        unlikelihood=unlikelihood,
        rho=rho,
        streams=tuple(streams) if streams else None,
        prompts=prompts,
        marks=marks,
        mixture=tuple(map(weighed, orders)) if orders else None,
        block_size=block_size,
        seed=seed,
    )
    for name in sorted(_asked(context) & ONLY_FOR.keys()):
        if model != ONLY_FOR[name]:
            option = f"--{name.replace('_', '-')}={context.params[name]}"
            raise ValueError(f"{option} is for --model {ONLY_FOR[name]} alone; leave it out for --model {model}")
    told = sorted(f"--{name.replace('_', '-')}" for name in _asked(context) & {*SIZES, "vocab_size", "block_size"})
    if start is not None and told:
        raise ValueError(f"--start={start} brings sizes and tokenizer with it; leave out {', '.join(told)}")
    learning = f"learning a tokenizer of {vocab_size} ids" if start is None else f"starting from {start}"
    progress.print(f"reading {corpus}, {learning}")
    session = Session.begin(recipe, out, command=shlex.join(["armdlab", *sys.argv[1:]]))
    session.rehearse(PRECISIONS[precision], minutes, say=progress.print)
    before = session.figure()
    progress.print(f"before: {before}")
    session.card["before"] = before.nats_per_token
    return terminal.finish(session, as_json)


def _asked(context: typer.Context) -> set[str]:
    """The options that were typed."""
    return {name for name in context.params if context.get_parameter_source(name).name == "COMMANDLINE"}


def _refuse_new_settings(context: typer.Context) -> None:
    """A resumed run follows the recipe that it was saved with: say so rather than ignore what was asked."""
    extra = sorted(f"--{name.replace('_', '-')}" for name in _asked(context) - {"out", "resume", "as_json"})
    if extra:
        raise ValueError(f"--resume goes on with the plan saved in DIR; leave out {', '.join(extra)}")
