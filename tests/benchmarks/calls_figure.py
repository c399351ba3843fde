"""What does a call more buy? Quality against network calls, which are the same on every machine."""

import re
from itertools import cycle

from matplotlib.figure import Figure

from armdlab.figures import INK, Picture, log_scale, write_beside
from armdlab.figures.tables import STYLES, kind_of

LAST_NUMBER = re.compile(r"\d[\d.]*(?=\D*$)")


def against_calls(ways, *, title, y, errors):
    """Quality against network calls, a line for each kind of way to write: what a call more buys.

    Args:
        ways: name -> (quality, more is better; network calls for one text). Names that differ in their last number
            alone are joined, and a dot bears its number; the name up to its first blank decides the colour.
        title: of the figure.
        y: name and unit of the quality.
        errors: name -> standard error of the quality.
    """
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    axes = figure.subplots()
    lines, dots = {}, {}
    for name in sorted(ways, key=lambda name: ways[name][1]):
        lines.setdefault(LAST_NUMBER.sub("n", name), []).append(name)
    for (line, names), marker in zip(lines.items(), cycle("osD^vP*X")):
        quality, calls = zip(*(ways[name] for name in names), strict=True)
        error = [errors.get(name, 0.0) for name in names]
        style = {"color": STYLES.get(kind_of(line), INK), "marker": marker, "markersize": 6, "capsize": 2}
        axes.errorbar(calls, quality, yerr=error, label=line, linewidth=1.2, elinewidth=1, **style)
        dots |= {name: at for name, at in zip(names, zip(calls, quality, strict=True), strict=True) if numbered(name)}
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8, frameon=False, title="n at its dots")
    log_scale(axes, "x")
    axes.margins(x=0.08, y=0.12)
    axes.set_xlabel("network calls for one text (log scale)")
    axes.set_ylabel(y)
    axes.set_title(title, fontsize=10, loc="left")
    axes.grid(visible=True, alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    write_beside(axes, [numbered(name) for name in dots], list(dots.values()))
    listed = "; ".join(
        f"{name}: {ways[name][0]:.2f} in {ways[name][1]:g} calls" for names in lines.values() for name in names
    )
    return Picture.of(figure, f"Lines of {y} against network calls. {listed}.")


def numbered(way):
    """The last number in the name of a way to write; nothing if it has none."""
    found = LAST_NUMBER.search(way)
    return found[0] if found else ""
