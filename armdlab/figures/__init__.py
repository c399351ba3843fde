"""What does an order, a mask or a leak look like? (matplotlib by its object interface: no state, no thread trouble)

Every function returns a `Picture`, which shows itself in a notebook together with its alternative text. Run
`python -m armdlab.figures` to draw the README's picture anew.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator
from torch import Tensor

from armdlab.inference import evaluating
from armdlab.masks import causal_mask, strictly_causal_mask
from armdlab.model import Transformer
from armdlab.orders import GenerationOrder

# Okabe and Ito's palette: told apart by colour-blind eyes, too
PALETTE = ("#56B4E9", "#E69F00", "#009E73", "#CC79A7", "#F0E442", "#0072B2", "#D55E00", "#999999")
INK, PAPER, FAINT, DARK = "#222222", "#FFFFFF", "#E8E8E8", "#3A3A3A"


@dataclass(frozen=True)
class Picture:
    """A drawn figure and the words that stand for it.

    Args:
        png: the image.
        alt: what it shows, for those who do not see it.
    """

    png: bytes = field(repr=False)
    alt: str

    @classmethod
    def of(cls, figure: Figure, alt: str, *, dpi: int = 110) -> Picture:
        """Draw a figure on opaque paper, so that its labels are legible on a dark page too."""
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=dpi, facecolor=PAPER, bbox_inches="tight", metadata={"Software": None})
        return cls(buffer.getvalue(), alt)

    def save(self, path: str | Path) -> None:
        """Write the image as a PNG file."""
        Path(path).write_bytes(self.png)

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        source = f"data:image/png;base64,{base64.b64encode(self.png).decode()}"
        image = f'<img src="{source}" alt="{html.escape(self.alt)}" style="max-width: 100%">'
        return {"text/html": image, "text/plain": self.alt}


def masking(times: Sequence[int], words: Sequence[str]) -> Picture:
    """A masking process: which words are still clean at each step.

    Args:
        times: the step tau(j), 1 to T, at which each of N words is masked.
        words: N words.
    """
    T, N = max(times), len(words)
    figure = Figure(figsize=(1.0 + 0.95 * N, 0.9 + 0.42 * (T + 1)))
    axes = figure.subplots()
    for t in range(T + 1):
        for j, (tau, word) in enumerate(zip(times, words, strict=True)):
            masked = t >= tau
            _cell(axes, j, t, DARK if masked else FAINT, "[m]" if masked else word, bold=t == tau)
    _grid(axes, N, T + 1, "A masking process: read downwards it destroys, upwards it writes")
    axes.set_yticks(range(T + 1), [f"t = {t}" for t in range(T + 1)])
    axes.set_xticks([])
    listed = ", ".join(f"{word} at step {tau}" for word, tau in zip(words, times, strict=True))
    return Picture.of(figure, f"A grid of {T + 1} steps by {N} words. Masked: {listed}.")


def ribbon(order: GenerationOrder, words: Sequence[str], title: str = "Who is made when") -> Picture:
    """An order as a numbered ribbon: words as they are read, above each the rank at which it is made.

    Args:
        order: without a batch axis.
        words: N words, in text order.
        title: what stands above.
    """
    figure = Figure(figsize=(0.6 + 0.95 * len(words), 1.35))
    axes = figure.subplots()
    _draw_ribbon(axes, order, words)
    axes.set_title(title, fontsize=11, color=INK, loc="left")
    steps = "; then ".join(" with ".join(words[p] for p in step.tolist()) for step in order.steps())
    return Picture.of(figure, f"{title}. First {steps}. Equal colour: made together.")


def masks(order: GenerationOrder, words: Sequence[str], *, in_text_order: bool = False) -> Picture:
    """M^c and M^sc side by side; a filled cell means: the row may see the column.

    Args:
        order: without a batch axis.
        words: N words, in text order.
        in_text_order: whether rows and columns are read from left to right; else they stand in generation order.
    """
    n = order.length
    figure = Figure(figsize=(1.6 + 0.84 * n, 1.0 + 0.38 * n))
    shown = range(n) if in_text_order else order.positions.tolist()
    blocks = order.blocks_in_text_order if in_text_order else order.blocks
    both = (causal_mask(order, in_text_order=in_text_order), strictly_causal_mask(order, in_text_order=in_text_order))
    names = (r"$M^{c}$: its own block too (eq. 3)", r"$M^{sc}$: earlier blocks only (eq. 5)")
    for axes, mask, name in zip(figure.subplots(1, 2), both, names, strict=True):
        _draw_mask(axes, mask, blocks, name)
        axes.set_yticks(range(n), [words[p] for p in shown], fontsize=9)
        axes.set_xticks(range(n), [words[p] for p in shown], fontsize=9, rotation=60, ha="left", rotation_mode="anchor")
        axes.xaxis.tick_top()
    figure.subplots_adjust(wspace=0.55)
    seen = [int(mask.sum()) for mask in both]
    storage = "text order" if in_text_order else "generation order"
    return Picture.of(
        figure,
        f"Two {n} by {n} matrices in {storage}: M^c allows {seen[0]} cells, M^sc {seen[1]}; "
        "the difference is the blocks on the diagonal.",
    )


def leaks(changes: Mapping[str, Tensor], words: Sequence[str], order: GenerationOrder) -> Picture:
    """For each model: how much each output moves when one word is changed.

    Args:
        changes: name of a model -> float (N, N), the largest change of a logit at [changed word, output].
        words: N words, in text order.
        order: without a batch axis; cells that move although strict causality forbids it are orange.
    """
    n = len(words)
    forbidden = ~strictly_causal_mask(order, in_text_order=True).T  # [changed, output]
    figure = Figure(figsize=(0.8 + len(changes) * (0.6 + 0.36 * n), 1.4 + 0.36 * n))
    counts = []
    panels = figure.subplots(1, len(changes), squeeze=False)[0]
    for axes, (name, change) in zip(panels, changes.items(), strict=True):
        moved = change > 0
        for i in range(n):
            for j in range(n):
                leak = bool(moved[i, j] and forbidden[i, j])
                colour = PALETTE[6] if leak else (PALETTE[5] if moved[i, j] else FAINT)
                _cell(axes, j, i, colour, "!" if leak else "")
        counts.append(int((moved & forbidden).sum()))
        _grid(axes, n, n, f"{name}\n{counts[-1]} leaks")
        axes.set_xticks(range(n), words, fontsize=9, rotation=60, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(n), words if axes is panels[0] else [""] * n, fontsize=9)
        axes.set_xlabel("output that moves", fontsize=9)
    panels[0].set_ylabel("word that is changed", fontsize=9)
    said = "; ".join(f"{name}: {count} leaks" for name, count in zip(changes, counts, strict=True))
    return Picture.of(figure, f"Which outputs move when a word is changed (orange with !: forbidden). {said}.")


def overview() -> Picture:
    """The README's picture: a masking process becomes an order, the order two masks, streams fill a text."""
    words, times = ["the", "cat", "sat", "on", "the", "mat"], [2, 3, 1, 3, 2, 1]
    order = GenerationOrder.from_masking_times(times)
    figure = Figure(figsize=(15, 5.4))
    outer = figure.add_gridspec(1, 3, width_ratios=(1.05, 0.95, 1.35), wspace=0.26)

    left = outer[0].subgridspec(2, 1, height_ratios=(2.1, 1.0), hspace=0.42)
    axes = figure.add_subplot(left[0])
    for t in range(4):
        for j, (tau, word) in enumerate(zip(times, words, strict=True)):
            _cell(axes, j, t, DARK if t >= tau else FAINT, "[m]" if t >= tau else word)
    _grid(axes, 6, 4, "1  Masking destroys a text in steps ...", size=13)
    axes.set_yticks(range(4), [f"t = {t}" for t in range(4)])
    axes.set_xticks([])
    axes = figure.add_subplot(left[1])
    _draw_ribbon(axes, order, words)
    axes.set_title("... read backwards, it is an order", fontsize=13, color=INK, loc="left", pad=10)

    middle = outer[1].subgridspec(2, 1, hspace=0.35)
    both = (causal_mask(order), strictly_causal_mask(order))
    names = (r"2  $M^{c}$: who may see whom", r"$M^{sc}$: not one's own block")
    for cell, mask, name in zip(middle, both, names, strict=True):
        axes = figure.add_subplot(cell)
        _draw_mask(axes, mask, order.blocks, name, size=13)
        axes.set_yticks(range(6), [words[p] for p in order.positions], fontsize=10)
        axes.set_xticks([])

    streams = GenerationOrder.strided(16, 4)
    axes = figure.add_subplot(outer[2])
    done: set[int] = set()
    for row, step in enumerate(streams.steps()):
        new = set(step.tolist())
        for p in range(16):
            colour = PALETTE[p // 4] if p in new | done else FAINT
            _cell(axes, p, row, colour, str(row + 1) if p in new else "", faded=p in done)
        done |= new
    _grid(axes, 16, streams.n_blocks, "3  Four streams write 16 tokens in 7 steps", size=13)
    axes.set_aspect("auto")
    axes.set_yticks(range(7), [f"step {s + 1}" for s in range(7)], fontsize=10)
    axes.set_xticks([1.5, 5.5, 9.5, 13.5], [f"stream {s}" for s in range(1, 5)], fontsize=11)
    return Picture.of(figure, "A masking process becomes an order, an order two masks, and four streams write a text.")


def _draw_ribbon(axes: Axes, order: GenerationOrder, words: Sequence[str]) -> None:
    for p, (rank, block) in enumerate(zip(order.ranks.tolist(), order.blocks_in_text_order.tolist(), strict=True)):
        _cell(axes, p, 0, PALETTE[block % len(PALETTE)], words[p], bold=True)
        axes.text(p, -0.78, f"rank {rank}", ha="center", va="center", fontsize=9, color=INK)
    _grid(axes, len(words), 1, "")
    axes.set_ylim(0.5, -1.1)
    axes.set_xticks([])
    axes.set_yticks([])


def _draw_mask(axes: Axes, mask: Tensor, blocks: Tensor, title: str, size: int = 11) -> None:
    for n, row in enumerate(mask.tolist()):
        for i, allowed in enumerate(row):
            _cell(axes, i, n, PALETTE[int(blocks[n]) % len(PALETTE)] if allowed else FAINT, "")
    _grid(axes, len(mask), len(mask), title, size)


def _cell(axes: Axes, x: float, y: float, colour: str, text: str, *, bold: bool = False, faded: bool = False) -> None:
    box = {"facecolor": colour, "edgecolor": PAPER, "linewidth": 1.5, "alpha": 0.35 if faded else 1.0}
    axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1.0, 1.0, **box))
    if text:
        luminance = sum(w * c for w, c in zip((0.30, 0.59, 0.11), to_rgb(colour), strict=True))
        ink = PAPER if luminance < 0.5 else INK
        axes.text(x, y, text, ha="center", va="center", fontsize=10, color=ink, weight="bold" if bold else "normal")


def _grid(axes: Axes, columns: int, rows: int, title: str, size: int = 11) -> None:
    axes.set_xlim(-0.5, columns - 0.5)
    axes.set_ylim(rows - 0.5, -0.5)
    axes.set_aspect("equal" if columns == rows else "auto")
    axes.tick_params(length=0, colors=INK)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_title(title, fontsize=size, color=INK, loc="left", pad=10)


def dress(axes: Axes, title: str, unit: str = "", *, size: int = 8) -> None:
    """Give axes the house's looks: a title, the name and unit of the vertical axis, ticks of a size, no frame."""
    axes.set_title(title, fontsize=11, color=INK, loc="left")
    axes.set_ylabel(unit, fontsize=9, color=INK)
    axes.tick_params(labelsize=size, colors=INK)
    axes.set_facecolor(PAPER)
    axes.spines[["top", "right"]].set_visible(False)


def log_scale(axes: Axes, which: str) -> None:
    """Make an axis, "x" or "y", logarithmic, with 1, 2, 5, 10, 20 on it, as people write numbers."""
    getattr(axes, f"set_{which}scale")("log")
    axis = getattr(axes, f"{which}axis")
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter("{x:,g}")
    axis.set_minor_formatter("")


def write_beside(axes: Axes, labels: Sequence[str], at: Sequence[tuple[float, float]], *, points: float = 9) -> None:
    """Write a label beside each dot, above it to the right, or where there is most room if another is in the way.

    Args:
        axes: as they will be shown: what is drawn later may hide what is written now.
        labels: short ones, as numbers are.
        at: the dots (x, y), in the units of the axes.
        points: from a dot to its label, in points of 1/72 inch.
    """
    axes.figure.draw_without_rendering()  # a layout decides only now where on the page a dot lies
    scale = axes.figure.dpi / 72
    dots = torch.as_tensor(axes.transData.transform(at)) / scale
    ring = points * torch.tensor([[0.7, 0.7], [-0.7, 0.7], [0.7, -0.7], [-0.7, -0.7], [1.0, 0.0], [-1.0, 0.0]])
    taken = torch.cat((dots, torch.full((1, 2), torch.inf)))  # something is always elsewhere
    for i, (label, dot) in enumerate(zip(labels, at, strict=True)):
        others = torch.cat((taken[:i], taken[i + 1 :]))
        room = (dots[i] + ring[:, None] - others).norm(dim=-1).amin(-1).clamp(max=points)  # as much is enough
        spot = ring[int(room.argmax())]
        taken = torch.cat((taken, (dots[i] + spot)[None]))
        said = {"fontsize": 8, "color": INK, "ha": "center", "va": "center", "textcoords": "offset points"}
        axes.annotate(label, dot, xytext=spot.tolist(), **said)


def leak_matrix(model: Transformer, tokens: Tensor, order: GenerationOrder) -> Tensor:
    """How far each output moves when each token is changed: float (N, N), at [changed token, output].

    Args:
        model: what predicts, on any device.
        tokens: int64 (1, N).
        order: the order under which it predicts.
    """
    with torch.no_grad(), evaluating(model) as device:
        tokens, order = tokens.to(device), order.to(device)
        before, rows = model(tokens, order), []
        for p in range(tokens.shape[1]):
            changed = tokens.clone()
            changed[0, p] = (changed[0, p] + 1) % model.config.vocab_size
            rows.append((model(changed, order) - before).abs().amax(-1)[0])
    return torch.stack(rows).cpu()
