"""What does a tale cost, what must it keep, and how far from the truth is a model of tales? (pictures)"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from armdlab.figures import FAINT, INK, PALETTE, Picture, dress
from armdlab.grammar import Derivation, Reading
from armdlab.samples import DISTANCES
from armdlab.tale_evaluation import TaleReport

# Letters of colour need more ink than areas: the darker ones of the palette, for kinds of agreement
KINDS = (PALETTE[5], PALETTE[6], PALETTE[2], PALETTE[3], PALETTE[1], PALETTE[0], PALETTE[7])


def costs(derivation: Derivation) -> Picture:
    """What each choice of a tale costs, in nats, in the order of its derivation."""
    nats = [-math.log(choice.probability) for choice in derivation]
    names = [f"{choice.name}: {_short(choice.text)}" for choice in derivation]
    figure = Figure(figsize=(8.5, 0.9 + 0.2 * len(nats)))
    axes = figure.subplots()
    axes.barh(range(len(nats)), nats, color=PALETTE[0])
    axes.set_yticks(range(len(nats)), names)
    axes.invert_yaxis()
    dress(axes, f"{len(nats)} choices, {sum(nats):.2f} nats in all")
    axes.set_xlabel("nats, -log of the probability", fontsize=9, color=INK)
    dearest = max(range(len(nats)), key=nats.__getitem__)
    return Picture.of(
        figure,
        f"Bars for {len(nats)} choices that cost {sum(nats):.2f} nats; "
        f"dearest is {names[dearest]}, {nats[dearest]:.2f}.",
    )


def surprise(nats: Sequence[float], entropy: float) -> Picture:
    """How surprising tales are: the spread of -log p, its mean, and the entropy of the source.

    Args:
        nats: -log p of sampled tales.
        entropy: of the source, in closed form.
    """
    figure = Figure(figsize=(7, 3))
    axes = figure.subplots()
    axes.hist(nats, bins=40, color=PALETTE[0])
    mean = math.fsum(nats) / len(nats)
    axes.axvline(entropy, color=PALETTE[6], label=f"entropy, closed form: {entropy:.2f}")
    axes.axvline(mean, color=INK, linestyle="--", label=f"mean of {len(nats):,} tales: {mean:.2f}")
    axes.set_xlabel("nats a tale, -log p", fontsize=9, color=INK)
    dress(axes, "How surprising is a tale?", "tales")
    axes.legend(fontsize=8, frameon=False)
    low, high = min(nats), max(nats)
    return Picture.of(
        figure,
        f"Histogram of -log p of {len(nats):,} tales, from {low:.1f} to {high:.1f} nats; their mean {mean:.2f} "
        f"stands beside the entropy {entropy:.2f}.",
    )


def agreements(reading: Reading) -> Picture:
    """What a tale must keep: an arc from each mention to the one that settled it, one colour for each kind.

    Args:
        reading: of a text.
    """
    words, mentions = len(reading.text.split()), [m for m in reading.mentions if m.distance is not None]
    starts = {reading.text.count(" ", 0, m.start) for m in reading.mentions}
    kinds = sorted({m.kind for m in mentions})
    figure = Figure(figsize=(9.5, 3.2))
    axes = figure.subplots()
    axes.plot([0, words - 1], [0, 0], color=FAINT, linewidth=4, solid_capstyle="round")
    for mention in mentions:
        here, colour = reading.text.count(" ", 0, mention.start), KINDS[kinds.index(mention.kind) % len(KINDS)]
        there = here - mention.distance if here - mention.distance in starts else here + mention.distance
        xs = [there + (here - there) * i / 40 for i in range(41)]
        ys = [abs(here - there) ** 0.75 * math.sin(math.pi * i / 40) for i in range(41)]
        axes.plot(xs, ys, color=colour, linewidth=1.6)
        axes.plot([here], [0], "o", color=colour, markersize=4)
    for kind in kinds:
        axes.plot([], [], color=KINDS[kinds.index(kind) % len(KINDS)], label=kind)
    axes.legend(fontsize=8, frameon=False, ncols=len(kinds), loc="upper left", bbox_to_anchor=(0, -0.18))
    dress(axes, f"{len(mentions)} words that follow from earlier ones")
    axes.set_yticks([])
    axes.set_xlabel("word of the tale", fontsize=9, color=INK)
    far = max(mentions, key=lambda m: m.distance)
    return Picture.of(
        figure,
        f"Arcs over {words} words join {len(mentions)} mentions to what settled them, of kinds {', '.join(kinds)}; "
        f'the longest spans {far.distance} words, to "{far.words}".',
    )


def _short(text: str) -> str:
    return text if len(text) <= 34 else text[:31] + "..."


def tale_table(report: TaleReport) -> Picture:
    """Draw a report: nats above the truth, share of tales that hold together, violations by distance.

    Args:
        report: what `tale_evaluation.tale_report` found.
    """
    figure = Figure(figsize=(10.5, 3.3), layout="constrained")
    above, valid, broken = figure.subplots(1, 3)
    _excess(above, report)
    _validity(valid, report)
    _violations(broken, report)
    figure.suptitle(report.conditions.split("\n")[-1], fontsize=8, color=INK, y=-0.03)
    said = "; ".join(
        f"{e.order}: {e.nats_per_tale:.2f} nats above the truth, {w.validity.parses.value:.0%} of texts parse, "
        f"{w.validity.is_consistent.value:.0%} are consistent"
        for e, w in zip(report.excess, report.written, strict=False)
    )
    return Picture.of(figure, f"Three bar charts of a model of tales. {said}.")


def _excess(axes: Axes, report: TaleReport) -> None:
    names = [excess.order.replace(" strided", "") for excess in report.excess]
    heights = [excess.nats_per_tale for excess in report.excess]
    padding = [excess.padding_nats for excess in report.excess]
    errors = [excess.standard_error for excess in report.excess]
    axes.bar(names, heights, color=PALETTE[0], yerr=errors, capsize=4, ecolor=INK, label="all")
    axes.bar(names, padding, color=PALETTE[5], width=0.3, label="NLL of padding")
    axes.axhline(0, color=INK, linewidth=0.8)
    dress(axes, "Above the truth (0 is perfect)", "nats a tale")
    axes.legend(fontsize=8, frameon=False)


def _validity(axes: Axes, report: TaleReport) -> None:
    width = 0.38
    for shift, colour, hatch, name, pick in (
        (-0.5, PALETTE[1], "", "parse", lambda w: w.validity.parses),
        (0.5, PALETTE[2], "//", "consistent", lambda w: w.validity.is_consistent),
    ):
        shares = [pick(written) for written in report.written]
        places = [i + shift * width for i in range(len(shares))]
        errors = [share.standard_error for share in shares]
        style = {"color": colour, "hatch": hatch, "edgecolor": INK, "ecolor": INK, "capsize": 3}
        axes.bar(places, [share.value for share in shares], width, yerr=errors, label=name, **style)
    axes.set_xticks(range(len(report.written)), [written.heading for written in report.written])
    axes.set_ylim(0, 1.15)
    dress(axes, "Texts that hold together", "share of all texts")
    axes.legend(fontsize=8, frameon=False, loc="upper left", ncols=2)


def _violations(axes: Axes, report: TaleReport) -> None:
    """Only violations between two mentions have a distance; texts that leave the grammar are in the middle panel."""
    bins = [f"{a}-{b - 1}" for a, b in pairwise(DISTANCES)] + [f"{DISTANCES[-1]}+"]
    writers = report.written[:-1]
    for i, written in enumerate(writers):
        rows = written.validity.violations.values()
        counts = [sum(row[column] for row in rows) for column in range(1, len(DISTANCES) + 1)]
        per_hundred = [100 * count / written.validity.parses.whole for count in counts]
        style = {"marker": "os^Dv"[i % 5], "color": PALETTE[(5, 6, 2, 3, 1)[i % 5]]}
        style["markersize"] = max(3, 12 - 4 * i)  # none hides another
        axes.plot(bins, per_hundred, **style, label=written.heading)
    dress(axes, "Broken agreements", "in 100 texts")
    axes.set_xlabel("words between the two mentions", fontsize=9, color=INK)
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=8, frameon=False)
