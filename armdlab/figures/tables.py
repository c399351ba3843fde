"""What do a table of the paper, a training curve, a curriculum, and quality against seconds look like?"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from armdlab.checkpoints import write_json
from armdlab.curriculum import FAMILIES, IN_STREAMS, Curriculum
from armdlab.figures import INK, PALETTE, Picture, log_scale, write_beside
from armdlab.scores import perplexity_of
from armdlab.tables import Table

STYLES = {"ar": "#999999", "armd": "#0072B2", "mdlm": "#D55E00", "block": "#009E73", "judge": "#CC79A7"}
STYLES |= {"verified": "#CC79A7", "gated": "#009E73", "corrected": "#E69F00"}


def bars(table: Table) -> Picture:
    """A table as bars with standard errors, on a logarithmic axis: equal ratios are equal lengths."""
    cells = [(line.name, column, cell) for line in table.lines for column, cell in line.cells.items()]
    names = list(dict.fromkeys(column for _, column, _ in cells))
    figure = Figure(figsize=(9.5, 1.2 + 0.34 * len(cells)), layout="constrained")
    axes = figure.subplots()
    for y, (_, column, cell) in enumerate(cells):
        colour, error = PALETTE[names.index(column) % len(PALETTE)], 0 if math.isnan(cell.error) else cell.error
        axes.barh(y, cell.value, xerr=error, color=colour, ecolor=INK, capsize=2)
        axes.annotate(f" {cell.value:.2f}", (cell.value + error, y), va="center", fontsize=8, color=INK)
    axes.set_yticks(range(len(cells)), [f"{line}: {column}" for line, column, _ in cells], fontsize=8)
    axes.invert_yaxis()
    log_scale(axes, "x")
    over = " or ".join(dict.fromkeys(cell.over for *_, cell in cells if cell.over))
    axes.set_xlabel(f"perplexity (log scale; whiskers are one standard error{f', over {over}' if over else ''})")
    axes.set_title(table.title, fontsize=10, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    listed = "; ".join(f"{line}, {column}: {cell.value:.2f}" for line, column, cell in cells)
    return Picture.of(figure, f"Bars. {table.title}. {listed}.")


def curves(histories: Mapping[str, Sequence[Mapping[str, Any]]], *, title: str = "Held-out perplexity") -> Picture:
    """Held-out perplexity against steps and against seconds of training, one line a run.

    Args:
        histories: run -> what its card says of its way; the part of its name before "_" decides the colour.
        title: of the figure.
    """
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    by_step, by_second = figure.subplots(1, 2, sharey=True)
    ends = []
    for run, history in histories.items():
        if not history:
            continue
        model = run.partition("_")[0]
        perplexities = [perplexity_of(entry["nats_per_token"]) for entry in history]
        is_first = model not in {end[0] for end in ends}
        for axes, key in ((by_step, "step"), (by_second, "seconds")):
            along = [entry[key] for entry in history]
            axes.plot(along, perplexities, color=STYLES.get(model, INK), marker=".", label=model if is_first else None)
        ends.append((model, run, perplexities[-1], history[-1]))
    for axes, label in ((by_step, "optimiser steps"), (by_second, "seconds of training")):
        log_scale(axes, "x")
        log_scale(axes, "y")
        axes.set_xlabel(label)
        axes.grid(visible=True, which="both", alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    by_step.set_ylabel("perplexity; of mdlm and block a bound")
    by_step.legend(frameon=False)
    figure.suptitle(title, fontsize=11)
    listed = "; ".join(
        f"{run} ends at {last:.2f} after {entry['step']:,} steps, {entry['seconds']:.0f} s"
        for _, run, last, entry in ends
    )
    return Picture.of(figure, f"Two panels, perplexity against steps and against seconds. {listed}.")


def unbeaten(ways: Mapping[str, tuple[float, float]]) -> list[str]:
    """Ways to write that none beats in both quality and seconds, the fastest first (the Pareto front).

    Args:
        ways: name -> (quality, more is better; seconds).
    """
    best, found = -math.inf, []
    for name, (quality, _) in sorted(ways.items(), key=lambda way: (way[1][1], -way[1][0])):
        if quality > best:
            best, found = quality, [*found, name]
    return found


def front(
    ways: Mapping[str, tuple[float, float]], *, title: str, y: str, errors: Mapping[str, float] | None = None
) -> Picture:
    """Quality against seconds, each way to write a numbered dot; those that nobody beats are joined.

    Args:
        ways: name -> (quality, more is better; seconds); the name up to its first blank decides the colour.
        title: of the figure.
        y: name and unit of the quality.
        errors: name -> standard error of the quality, where it is known.
    """
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    axes = figure.subplots()
    kinds = list(dict.fromkeys(map(kind_of, ways)))
    best = unbeaten(ways)
    axes.step([ways[n][1] for n in best], [ways[n][0] for n in best], color=INK, linewidth=0.9, where="post", zorder=1)
    by_seconds = sorted(ways, key=lambda name: ways[name][1])
    for number, name in enumerate(by_seconds, start=1):
        (quality, seconds), error = ways[name], (errors or {}).get(name)
        colour, marker = STYLES.get(kind_of(name), INK), "osD^v"[kinds.index(kind_of(name)) % 5]
        style = {"color": colour, "marker": marker, "markersize": 6, "capsize": 2, "elinewidth": 1}
        axes.errorbar(seconds, quality, yerr=error, label=f"{number}  {name}", linestyle="none", **style)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8, frameon=False, title="by seconds")
    log_scale(axes, "x")
    axes.margins(x=0.08, y=0.12)
    axes.set_xlabel("seconds for one text (log scale)")
    axes.set_ylabel(y)
    axes.set_title(f"{title}; the line joins the unbeaten", fontsize=10, loc="left")
    axes.grid(visible=True, alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    write_beside(axes, [str(number) for number in range(1, len(ways) + 1)], [ways[name][::-1] for name in by_seconds])
    listed = "; ".join(f"{name}: {quality:.2f} in {seconds:.2f} s" for name, (quality, seconds) in ways.items())
    return Picture.of(figure, f"Dots of {y} against seconds. {listed}. Beaten by nobody: {', '.join(best)}.")


def kind_of(way: str) -> str:
    """What decides the colour of a way to write: its name up to the first blank."""
    return way.partition(" ")[0].rstrip(",").lower()


def save(table: Table, folder: Path, name: str) -> str:
    """Write a table into a folder, as JSON and as pictures; what was written, in words."""
    write_json(folder / f"{name}.json", table.as_json())
    bars(table).save(folder / f"{name}.png")
    if not table.curves:
        return f"{folder / name}.json and {name}.png"
    curves(table.curves).save(folder / f"{name}_curves.png")
    return f"{folder / name}.json and {name}.png and {name}_curves.png"


def curriculum(plan: Curriculum, steps: int) -> Picture:
    """What a curriculum teaches at each step: shuffled tokens as a curve, then a dot for the family that is drawn.

    A dot stands at the number of streams; of a family that has none, at 0.

    Args:
        plan: the curriculum.
        steps: of the whole training.
    """
    figure = Figure(figsize=(8, 3), layout="constrained")
    axes = figure.subplots()
    last = min(plan.i_strided, steps)
    every = max(1, steps // 400)
    shown = range(0, last, every)
    axes.plot(list(shown), [plan.n_shuffled(step) for step in shown], color=PALETTE[5], label="shuffled tokens")
    drawn = {step: plan.family(step) for step in range(last, steps, every)}
    shares = _shares(plan)
    for family in shares if drawn else ():
        at = [step for step in drawn if drawn[step] == family]
        heights = [plan.n_streams(step) if family in IN_STREAMS else 0 for step in at]
        colour = PALETTE[(FAMILIES.index(family) + 4) % len(PALETTE)]  # of shuffled orders that of the curve
        said = "streams S" if family in IN_STREAMS else "no streams"
        axes.scatter(at, heights, s=8, color=colour, label=said if len(shares) == 1 else f"{shares[family]}, {said}")
    axes.set_ylim(-0.5, 1.25 * max(plan.rho, *plan.streams))
    names, said = zip(*_lessons(plan, steps), strict=True)
    begins = "streams begin" if names[-1] == "in streams" else "mixture begins"
    for step, name in ((plan.i_ar, "i_AR"), (plan.i_perm, "i_perm"), (plan.i_strided, begins)):
        if step < steps:
            axes.axvline(step, color=INK, linewidth=0.8, linestyle=":")
            axes.annotate(f" {name}", (step, axes.get_ylim()[1]), fontsize=8, ha="left", va="top", color=INK)
    axes.set_xlabel("optimiser step")
    axes.set_ylabel("number of tokens or streams")
    axes.set_title(f"The curriculum: {', then '.join(names)}", fontsize=10, loc="left")
    where = ("center", (0.6, 0.4)) if len(shares) == 1 else ("center left", (1, 0.5))  # many names stand beside
    axes.legend(frameon=False, loc=where[0], bbox_to_anchor=where[1])
    axes.spines[["top", "right"]].set_visible(False)
    return Picture.of(figure, f"{'; '.join(said).capitalize()}.")


def _shares(plan: Curriculum) -> dict[str, str]:
    """Each family of the last lesson, and how often it is drawn, in words."""
    weights = dict.fromkeys((family for family, _ in plan.mixture), 0.0)
    for family, weight in plan.mixture:
        weights[family] += weight
    return {family: f"{100 * weight / sum(weights.values()):.0f} % {family}" for family, weight in weights.items()}


def _lessons(plan: Curriculum, steps: int) -> Iterator[tuple[str, str]]:
    """Each lesson that a training reaches: its name, and what is to be said of it."""
    last = min(plan.i_strided, steps)
    if until := min(plan.i_ar, steps) if plan.rho else last:
        yield "left to right", f"left to right for {until:,} steps"
    if plan.rho and plan.i_ar < last:
        yield "shuffled", f"shuffled tokens grow from 1 to {plan.rho} until step {min(plan.i_perm, steps):,}"
    if last < steps:
        shares, streams = _shares(plan), f"orders of {', '.join(map(str, dict.fromkeys(plan.streams)))} streams"
        families = "" if [*shares] == ["strided"] else ", ".join(shares.values())
        said = [families] * bool(families) + [streams] * any(family in IN_STREAMS for family in shares)
        name = "in streams" if {*shares} <= {*IN_STREAMS} else "a mixture of orders"
        yield name, f"from step {last:,} of {steps:,} on, {', in '.join(said)}"
