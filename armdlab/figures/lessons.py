"""What do two streams, a kernel, a curve look like? (pictures of the lessons)"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from armdlab.figures import FAINT, INK, PALETTE, PAPER, Picture, dress, log_scale
from armdlab.masks import may_see, strictly_causal_mask
from armdlab.orders import GenerationOrder
from armdlab.scores import perplexity_of

# Lines need more ink than areas: the darker colours of the palette, and a mark for each that tells them apart alone
LINES, MARKS = (PALETTE[5], PALETTE[6], PALETTE[2], PALETTE[3], INK, PALETTE[1]), "os^Dv*"


def two_streams(order: GenerationOrder, words: Sequence[str]) -> Picture:
    """Who reads whom in a two-stream layer: rows of X below, what X and G read above (ARMD, eq. 7).

    Args:
        order: without a batch axis.
        words: N words, in text order.
    """
    named = [words[p] for p in order.positions.tolist()]
    evidence = F.pad(order.blocks[:-1], (1, 0), value=-1)  # as `Masks.one_pass` has it
    masks = may_see(evidence, evidence), may_see(order.blocks, evidence, strictly=True)
    read = ["BOS", *named[:-1]]  # nobody reads the last one made
    block_of_x, block_of_g = evidence.tolist(), order.blocks.tolist()
    figure = Figure(figsize=(10, 3), layout="constrained")
    for axes, allowed, tops, blocks, title in zip(
        figure.subplots(1, 2),
        masks,
        (read, [f"{word}?" for word in named]),
        (block_of_x, block_of_g),
        ("X reads X under $M^{c}$: its own block too", "G reads X under $M^{sc}$: earlier blocks only"),
        strict=True,
    ):
        for n, i in allowed.nonzero().tolist():
            axes.plot([i, n], [0.14, 0.86], color=_colour(blocks[n], PALETTE[7]), linewidth=1.5, zorder=1)
        for y, labels, colours in ((0, read, block_of_x), (1, tops, blocks)):
            for at, (label, block) in enumerate(zip(labels, colours, strict=True)):
                box = {"boxstyle": "round,pad=0.3", "facecolor": _colour(block), "edgecolor": INK, "linewidth": 0.6}
                style = "italic" if label.endswith("?") else "normal"
                axes.text(at, y, label, ha="center", va="center", fontsize=10, color=INK, style=style, bbox=box)
        axes.set_title(title, fontsize=11, color=INK, loc="left")
        axes.set_yticks([0, 1], ["rows of X:\nkeys, values", "queries"], fontsize=9)
        axes.set_xticks([])
        axes.set_xlim(-0.6, len(words) - 0.4)
        axes.set_ylim(-0.2, 1.2)
        axes.tick_params(length=0, colors=INK)
        axes.spines[:].set_visible(False)
    seen = "; ".join(
        f"{word}? reads {' '.join(read[i] for i in row.nonzero()[:, 0].tolist())}"
        for word, row in zip(named, masks[1], strict=True)
    )
    n_lines = f"{int(masks[0].sum())} in X, {int(masks[1].sum())} in G"
    return Picture.of(figure, f"Lines from queries to the rows of X that they read: {n_lines}. {seen}.")


def kernels(tables: Mapping[str, Tensor], *, at: int, reach: int, order: GenerationOrder) -> Picture:
    """The weights of prefix aggregation: as a matrix under an order, and against distance (ARMD, eq. 6).

    Args:
        tables: name -> position embeddings float (positions, d_pe), of which row 0 is BOS.
        at: the position whose kernel is drawn.
        reach: how far to both sides.
        order: of the matrix, drawn for the first table; without a batch axis.
    """
    figure = Figure(figsize=(9.8, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.5))
    tables = {name: table / table[at].norm() for name, table in tables.items()}  # weights in one unit, in both panels
    first, table = next(iter(tables.items()))
    pe = table[order.positions + 1]
    kernel = (pe @ pe.T).masked_fill(~strictly_causal_mask(order), 0)
    size = float(kernel.abs().max())
    image = left.imshow(kernel.numpy(), cmap="PuOr", vmin=-size, vmax=size)
    bar = figure.colorbar(image, ax=left, shrink=0.85)
    bar.ax.tick_params(labelsize=8, colors=INK)
    bar.set_label("weight, 1 at distance 0", fontsize=9, color=INK)
    left.set_xlabel("token i, by rank", fontsize=9, color=INK)
    dress(left, f"$(PE\\,PE^T) * M^{{sc}}$, {first}", "target n, by rank")
    listed = []
    for i, (name, table) in enumerate(tables.items()):
        weights = table @ table[at]
        shown = range(max(0, at - reach), min(len(table), at + reach + 1))
        right.plot(
            [p - at for p in shown],
            weights[list(shown)].tolist(),
            color=LINES[i],
            marker=MARKS[i],
            markersize=3,
            label=name,
        )
        listed.append(f"{name}: {float(weights[at - 1]):.2f} one token away, {float(weights[at - 10]):.2f} ten away")
    right.axhline(0, color=INK, linewidth=0.8)
    right.set_xlabel("distance i - n in the text, in tokens", fontsize=9, color=INK)
    right.legend(fontsize=8, frameon=False)
    dress(right, f"The weight of token i for target n = {at}", r"$\langle PE_n, PE_i\rangle$, 1 at distance 0")
    return Picture.of(
        figure,
        f"A matrix of weights, nothing on and above its staircase; and weights by distance. {'; '.join(listed)}.",
    )


def reading(weights: Tensor, rows: Sequence[str], columns: Sequence[str], title: str) -> Picture:
    """Attention weights as a map: how much each row reads of each column.

    Args:
        weights: float (rows, columns), each row summing to 1; exactly 0 where a mask hides the column.
        rows: who reads.
        columns: what is read.
        title: of the figure.
    """
    figure = Figure(figsize=(1.8 + 0.34 * len(columns), 1.4 + 0.24 * len(rows)), layout="constrained")
    axes = figure.subplots()
    shown = weights.masked_fill(weights == 0, torch.nan)  # what a mask hides is white, not dark
    image = axes.imshow(shown.numpy(), cmap="viridis", vmin=0, aspect="auto")
    figure.colorbar(image, ax=axes).ax.tick_params(labelsize=8, colors=INK)
    axes.set_yticks(range(len(rows)), rows, fontsize=8)
    axes.set_xticks(range(len(columns)), columns, fontsize=8, rotation=60, ha="right", rotation_mode="anchor")
    dress(axes, title)
    tops = [
        f"{row} reads {columns[int(line.argmax())]} most, {float(line.max()):.2f}"
        for row, line in zip(rows, weights, strict=True)
    ]
    return Picture.of(
        figure, f"A map of attention weights, white where hidden. {'; '.join(tops[:: max(1, len(tops) // 4)])}."
    )


def lines(
    series: Mapping[str, Sequence[tuple[float, float]]],
    *,
    title: str,
    x: str,
    y: str,
    levels: Mapping[str, float] | None = None,
    log: bool = False,
    perplexity: bool = False,
) -> Picture:
    """Curves with a name and a mark each, over levels that are known.

    Args:
        series: name -> points (x, y).
        title: of the figure.
        x: name and unit of the horizontal axis.
        y: name and unit of the vertical axis.
        levels: name -> height of a dashed line.
        log: whether both axes are logarithmic.
        perplexity: whether heights are nats a token, of which an axis on the right tells the perplexity.
    """
    figure = Figure(figsize=(8.5, 3.6), layout="constrained")
    axes = figure.subplots()
    for i, (name, points) in enumerate(series.items()):
        xs, ys = zip(*points, strict=True)
        every = max(1, len(xs) // 12)
        axes.plot(xs, ys, color=LINES[i], marker=MARKS[i], markevery=every, markersize=4, linewidth=1.4, label=name)
    for i, (name, height) in enumerate((levels or {}).items()):
        axes.axhline(height, color=INK, linestyle=("--", ":", "-.")[i % 3], linewidth=1, label=f"{name}: {height:.2f}")
    if log:
        log_scale(axes, "x")
        log_scale(axes, "y")
    axes.set_xlabel(x, fontsize=9, color=INK)
    axes.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.12 if perplexity else 1, 0.5))
    dress(axes, title, y)
    if perplexity:
        _perplexity_axis(axes)
    said = "; ".join(f"{name} from {points[0][1]:.2f} to {points[-1][1]:.2f}" for name, points in series.items())
    known = "".join(f"; {name} at {height:.2f}" for name, height in (levels or {}).items())
    right = f" Perplexity, exp of {y}, stands on the right." if perplexity else ""
    return Picture.of(figure, f"Curves of {y} against {x}. {said}{known}.{right}")


def _perplexity_axis(axes: Axes) -> None:
    """Write perplexities on the right of an axis of nats: 1, 2, 5, 10 ..., or even steps where these are too few."""
    low, high = map(perplexity_of, axes.get_ylim())
    if math.isinf(high):
        return
    right = axes.twinx()
    log_scale(right, "y")
    right.set_ylim(low, high)
    if sum(low <= tick <= high for tick in right.get_yticks()) < 3:
        right.yaxis.set_major_locator(MaxNLocator(5))
    dress(right, "", "perplexity")


def bars(
    values: Mapping[str, float], *, title: str, x: str, levels: Mapping[str, float] | None = None, digits: int = 1
) -> Picture:
    """Bars with their numbers, over levels that are known.

    Args:
        values: name -> length of a bar.
        title: of the figure.
        x: name and unit of the lengths.
        levels: name -> place of a dashed line.
        digits: how many are written behind the point.
    """
    figure = Figure(figsize=(8.5, 1.3 + 0.32 * len(values)), layout="constrained")
    axes = figure.subplots()
    axes.barh(list(values), list(values.values()), color=PALETTE[0])
    for name, value in values.items():
        axes.annotate(f" {value:.{digits}f}", (value, name), va="center", fontsize=9, color=INK)
    for i, (name, place) in enumerate((levels or {}).items()):
        axes.axvline(place, color=PALETTE[6], linestyle=("--", ":", "-.")[i % 3], label=f"{name}: {place:.{digits}f}")
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlabel(x, fontsize=9, color=INK)
    if levels:
        axes.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    dress(axes, title)
    said = "; ".join(f"{name}: {value:.{digits}f}" for name, value in ({**values, **(levels or {})}).items())
    return Picture.of(figure, f"Bars of {x}. {said}.")


def calls(words: Sequence[str], scored: Mapping[str, Sequence[bool]]) -> Picture:
    """What one network call scores, and what it is given.

    Args:
        words: N words, in text order.
        scored: name of a call -> of each word, whether its nats are counted.
    """
    figure = Figure(figsize=(2.6 + 0.95 * len(words), 0.9 + 0.42 * len(scored)))
    axes = figure.subplots()
    for y, row in enumerate(scored.values()):
        for x, (word, counts) in enumerate(zip(words, row, strict=True)):
            face = PALETTE[1] if counts else FAINT
            axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=face, edgecolor=PAPER, linewidth=1.5))
            axes.text(x, y, f"{word}?" if counts else word, ha="center", va="center", fontsize=10, color=INK)
    axes.set_xlim(-0.5, len(words) - 0.5)
    axes.set_ylim(len(scored) - 0.5, -0.5)
    dress(axes, "One row, one network call: scored (orange, with ?) or given")
    axes.set_yticks(range(len(scored)), scored, fontsize=9)
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    said = "; ".join(f"{name}: {sum(row)} of {len(words)} words" for name, row in scored.items())
    return Picture.of(figure, f"What each network call scores. {said}.")


def orders(positions: Tensor, rows: Sequence[str], title: str) -> Picture:
    """Orders as stripes, one a row: the colour of a rank is the text position that is made there.

    Args:
        positions: int64 (rows, N).
        rows: name of each.
        title: of the figure.
    """
    N = positions.shape[1]
    figure = Figure(figsize=(9, 1.3 + 0.26 * len(rows)), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(positions.numpy(), cmap="viridis", aspect="auto", interpolation="nearest")
    bar = figure.colorbar(image, ax=axes)
    bar.set_label("text position", fontsize=8, color=INK)
    bar.ax.tick_params(labelsize=8, colors=INK)
    axes.set_yticks(range(len(rows)), rows, fontsize=8)
    axes.set_xlabel("rank: when it is made", fontsize=9, color=INK)
    dress(axes, title)
    moved = (positions != torch.arange(N)).sum(-1).tolist()
    said = "; ".join(f"{row}: {count} of {N}" for row, count in zip(rows, moved, strict=True))
    return Picture.of(
        figure, f"Stripes of colour, one order a row. Tokens that are not in their left-to-right place: {said}."
    )


def lanes(values: Tensor, streams: int, *, title: str, unit: str) -> Picture:
    """One number for each position of a row, a line a stream: more in one colour, less in the other.

    Args:
        values: float (N,), in text order; S must divide N.
        streams: S.
        title: of the figure.
        unit: of the values.
    """
    grid = values.view(streams, -1)
    figure = Figure(figsize=(10, 1.2 + 0.38 * streams), layout="constrained")
    axes = figure.subplots()
    size = float(grid.abs().max()) or 1.0
    image = axes.imshow(grid.numpy(), cmap="PuOr_r", vmin=-size, vmax=size, aspect="auto", interpolation="nearest")
    bar = figure.colorbar(image, ax=axes)
    bar.set_label(unit, fontsize=8, color=INK)
    bar.ax.tick_params(labelsize=8, colors=INK)
    sums = grid.sum(-1).tolist()
    axes.set_yticks(range(streams), [f"stream {s + 1}: {total:+.1f}" for s, total in enumerate(sums)], fontsize=8)
    axes.set_xlabel("place in the stream; 0 is its head", fontsize=9, color=INK)
    dress(axes, title)
    dearest = int(values.argmax())
    listed = "; ".join(f"stream {s + 1} {total:+.2f}" for s, total in enumerate(sums))
    return Picture.of(
        figure,
        f"A line of cells for each stream, coloured by {unit}. In sum: {listed}. "
        f"The most is {float(values.max()):.2f}, at position {dearest}.",
    )


def table(values: Mapping[str, Mapping[str, float]], *, title: str, unit: str) -> Picture:
    """A table of figures, coloured by column from the best (light) to the worst.

    Args:
        values: row -> column -> figure; less is better.
        title: of the figure.
        unit: of the figures.
    """
    rows, columns = list(values), list(next(iter(values.values())))
    grid = torch.tensor([[values[row][column] for column in columns] for row in rows])
    best, worst = grid.amin(0), grid.amax(0)
    shade = (worst - grid) / (worst - best).clamp(min=1e-9)  # 1 is the best of its column
    figure = Figure(figsize=(2.4 + 1.35 * len(columns), 1.1 + 0.42 * len(rows)), layout="constrained")
    axes = figure.subplots()
    axes.imshow(shade.numpy(), cmap="viridis", vmin=0, vmax=1, aspect="auto")
    for y, row in enumerate(grid.tolist()):
        for x, value in enumerate(row):
            ink, weight = (INK, "bold") if shade[y, x] > 0.6 else (PAPER, "normal")
            axes.text(x, y, f"{value:.2f}", ha="center", va="center", fontsize=10, color=ink, weight=weight)
    axes.set_yticks(range(len(rows)), rows, fontsize=9)
    axes.set_xticks(range(len(columns)), columns, fontsize=9)
    dress(axes, f"{title} ({unit}; light is best of its column)")
    axes.tick_params(length=0, colors=INK)
    axes.spines[:].set_visible(False)
    said = "; ".join(
        f"{column}: best {rows[int(grid[:, x].argmin())]}, {best[x]:.2f}" for x, column in enumerate(columns)
    )
    return Picture.of(figure, f"A table of {unit}, {len(rows)} by {len(columns)}. {said}.")


def _colour(block: int, of_bos: str = FAINT) -> str:
    return of_bos if block < 0 else PALETTE[block % len(PALETTE)]
