"""How does a run look in a terminal? (progress goes to stderr, results to stdout)"""

from __future__ import annotations

import signal
from itertools import groupby, pairwise
from typing import Annotated, Any

import typer
from rich.console import Console, Group
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text as Styled
from torch import Tensor

from armdlab.checkpoints import to_json
from armdlab.processes import accelerator_of_all, any_process
from armdlab.recipes import Session
from armdlab.scores import perplexity_of
from armdlab.trained import Lab

LANE_COLOURS = ("#56B4E9", "#E69F00", "#009E73", "#CC79A7", "#F0E442", "#0072B2", "#D55E00", "#999999")  # Okabe-Ito
CURVE = 24  # characters

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object to stdout.")]
progress = Console(stderr=True, markup=False, emoji=False)  # a path such as runs/[x] is no markup


def let_the_first_speak() -> None:
    """Of several processes that train together; the others keep silent, but for their errors."""
    progress.quiet = not accelerator_of_all().is_main_process


def watch(session: Session) -> bool:
    """Train with a bar, the curriculum's meter, loss and held-out perplexity as curves; show a sample at times.

    Ctrl-C lets the step at hand end, so that what is saved is whole; a second one does not wait.

    Returns:
        Whether it was stopped before its end.
    """
    columns = (
        TextColumn("{task.fields[order]:>18}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.3f} {task.fields[curve]}  {task.fields[rate]:,.0f} tokens/s"),
        TimeRemainingColumn(),
    )
    asked_to_stop = False

    def stop(*_: object) -> None:
        nonlocal asked_to_stop
        asked_to_stop = True
        signal.signal(signal.SIGINT, usual)

    usual = signal.signal(signal.SIGINT, stop)
    plan, losses = session.training.plan, []
    try:
        with Progress(*columns, console=progress) as bar:
            task = bar.add_task(
                "", total=plan.steps, completed=session.training.step, order="", loss=float("nan"), curve="", rate=0.0
            )
            for moment in session.watch():
                step = moment.step
                losses.append(moment.loss)
                bar.update(
                    task,
                    completed=step.step,
                    order=plan.curriculum.in_words(step.step - 1),
                    loss=moment.loss,
                    curve=sparkline(losses, CURVE),
                    rate=step.tokens_per_second,
                )
                if moment.figure is not None:
                    way = way_of_perplexity([score["nats_per_token"] for score in session.card["history"]])
                    progress.print(f"step {step.step:,}, {step.phase}: {moment.figure}, {way}")
                    progress.print(Styled(f"  it writes: {moment.sample!r}", style="dim"), soft_wrap=True)
                if any_process(session.training.accelerator, asked_to_stop):
                    break
    finally:
        signal.signal(signal.SIGINT, usual)
    return session.training.step < plan.steps


def finish(session: Session, as_json: bool) -> None:
    """Train to the end, save, and answer."""
    stopped = watch(session)
    if stopped:
        session.save()  # at once: scoring takes a while, in which a second Ctrl-C may come
    figure = session.last_figure()
    session.save(figure)
    if stopped:
        at = f"step {session.training.step} of {session.training.plan.steps}"
        progress.print(f"stopped at {at}; saved in {session.out}, go on with --resume")
    facts = {"out": str(session.out), **session.card}
    answer(as_json, facts, f"after:  {figure}\nsaved in {session.out}")
    session.training.accelerator.end_training()
    if stopped:
        raise typer.Exit(130)


def answer(as_json: bool, facts: dict[str, Any] | list[Any], text: str) -> None:
    """The result of a command, to stdout: for machines as JSON, for people as text."""
    if not progress.quiet:
        print(to_json(facts) if as_json else text)


def complain(error: Exception) -> None:
    """Say what is wrong; that is worth a line of any process."""
    progress.quiet = False
    progress.print(Styled.assemble(("error: ", "bold red"), str(error)), soft_wrap=True)


def sparkline(values: list[float], width: int) -> str:
    """Draw numbers as a line of blocks, each column the mean of its share of them.

    >>> sparkline([3, 2, 1, 0], 4)
    '█▅▃▁'
    """
    width = min(width, len(values))
    bounds = [round(i * len(values) / width) for i in range(width + 1)] if width else []
    means = [sum(values[a:b]) / (b - a) for a, b in pairwise(bounds)]
    low, high = min(means, default=0.0), max(means, default=0.0)
    return "".join("▁▂▃▄▅▆▇█"[int(7 * (mean - low) / (high - low or 1))] for mean in means)


def way_of_perplexity(nats: list[float]) -> str:
    """Draw how the perplexity of some text went, by its logarithm, from the first score to the last.

    >>> way_of_perplexity([3.0, 2.0, 1.0, 0.0])
    'perplexity from 20.09 █▅▃▁ to 1.00'
    """
    return f"perplexity from {perplexity_of(nats[0]):.2f} {sparkline(nats, CURVE)} to {perplexity_of(nats[-1]):.2f}"


def lanes(lab: Lab, prompt: str, made: dict[int, int], streams: Tensor, step: str, seconds: float) -> Group:
    """Draw each stream as a lane of its own colour, and how far it has come; a dot for each token that was leapt over.

    Args:
        lab: whose tokenizer reads.
        prompt: what the text starts with.
        made: position -> id, of all that there is by now.
        streams: int64 (N,), the stream of each position, -1 where it was given.
        step: which step it is, of how many, in words.
        seconds: since the start.
    """
    table = Table.grid(padding=(0, 1))
    table.add_column(justify="right", style="dim")
    table.add_column()
    if prompt:
        table.add_row("prompt", Styled(prompt, style="dim"))
    n_streams, new = int(streams.max()) + 1, (streams >= 0).nonzero().squeeze(-1).tolist()
    for lane in range(n_streams):
        places = (streams == lane).nonzero().squeeze(-1).tolist()
        there = [n for n, p in enumerate(places, 1) if p in made]
        text = Styled(style=LANE_COLOURS[lane % len(LANE_COLOURS)])
        for is_made, group in groupby(places[: max(there, default=0)], made.__contains__):
            run = list(group)
            text.append(lab.tokenizer.decode([made[p] for p in run]) if is_made else "·" * len(run))
        text.append("█" if 0 < len(there) < len(places) else "", style="blink")
        if not places:
            text.append("given", style="dim")
        table.add_row(f"stream {lane + 1}", text)
    status = f"step {step}   {sum(p in made for p in new)} of {len(new)} tokens   {seconds:.2f} s"
    return Group(
        Panel(table, title=f"{n_streams} stream{'s' * (n_streams > 1)}", title_align="left"),
        Styled(status, style="dim"),
    )
