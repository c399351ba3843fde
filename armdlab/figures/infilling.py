"""What is a gap worth to who knows both its sides, and which alternative fits? (pictures of lesson 07)"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from armdlab.figures import FAINT, INK, PALETTE, PAPER, Picture, dress

LEFT, BOTH, TRUTH = PALETTE[6], PALETTE[5], INK


def two_sides(words: Sequence[str], left: Sequence[float], both: Sequence[float], *, title: str) -> Picture:
    """What each word costs to a model that knows its left side, and to one that knows both.

    Args:
        words: the words.
        left: nats of each, given what stands before it.
        both: nats of each, given all the rest.
        title: of the figure.
    """
    figure = Figure(figsize=(8.5, 1.3 + 0.27 * len(words)), layout="constrained")
    axes = figure.subplots()
    for y, (before, after) in enumerate(zip(left, both, strict=True)):
        colour = BOTH if after < before else LEFT
        axes.plot([before, after], [y, y], color=colour, linewidth=2.2, alpha=0.45, zorder=1)
    axes.scatter(left, range(len(words)), color=LEFT, marker="s", s=34, label="left side known", zorder=2)
    axes.scatter(both, range(len(words)), color=BOTH, marker="o", s=38, label="both sides known", zorder=3)
    axes.set_yticks(range(len(words)), words, fontsize=9)
    axes.invert_yaxis()
    axes.set_xlim(left=-0.15)
    axes.set_xlabel("nats of the word; a line to the left: the right side helps", fontsize=9, color=INK)
    axes.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    dress(axes, title, size=9)
    axes.grid(axis="y", color=FAINT, linewidth=0.7)
    axes.set_axisbelow(True)
    n = sum(after < before for before, after in zip(left, both, strict=True))
    said = "; ".join(f"{w}: {a:.2f}, then {b:.2f}" for w, a, b in list(zip(words, left, both, strict=True))[:4])
    return Picture.of(
        figure, f"Nats of {len(words)} words, left side known, then both sides: {n} become cheaper. {said}."
    )


def alternatives(found: Mapping[str, Mapping[str, Sequence[float]]], words: Mapping[str, Sequence[str]]) -> Picture:
    """The chances of alternatives, gap by gap, by several ways to weigh them.

    Args:
        found: gap -> way -> chance of each alternative; the ways are the same for each gap, the truth last.
        words: gap -> its alternatives.
    """
    figure = Figure(figsize=(9.2, 1.1 + 0.62 * max(map(len, words.values()))), layout="constrained")
    panels = figure.subplots(1, len(found), squeeze=False)[0]
    colours = (LEFT, BOTH, TRUTH)
    said = []
    for axes, (gap, ways) in zip(panels, found.items(), strict=True):
        height = 0.8 / len(ways)
        for k, (way, values) in enumerate(ways.items()):
            places = [y + (k - (len(ways) - 1) / 2) * height for y in range(len(values))]
            style = {"hatch": "///", "facecolor": PAPER} if k == len(ways) - 1 else {"facecolor": colours[k]}
            axes.barh(places, values, height=height * 0.92, edgecolor=INK, linewidth=0.6, label=way, **style)
        axes.set_yticks(range(len(words[gap])), words[gap], fontsize=9)
        axes.invert_yaxis()
        axes.set_xlim(0, 1.02)
        axes.set_xlabel("chance among these", fontsize=9, color=INK)
        dress(axes, gap, size=9)
        best = {way: words[gap][max(range(len(v)), key=list(v).__getitem__)] for way, v in ways.items()}
        said.append(f"{gap}: " + ", ".join(f"{way} prefers {word}" for way, word in best.items()))
    panels[-1].legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return Picture.of(figure, f"Bars of chances for alternatives in {len(found)} gaps. {'; '.join(said)}.")
