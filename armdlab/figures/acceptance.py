"""Which drafts stay, what is drawn anew, and does the right distribution come out? (pictures of lesson 06)"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import zip_longest

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from armdlab.figures import FAINT, INK, PALETTE, PAPER, Picture, dress

KEPT, REDRAWN, REFUSED = PALETTE[0], PALETTE[1], PAPER


def overlap(p: Tensor, q: Tensor, words: Sequence[str], *, draft: int | None = None) -> Picture:
    """Why the rule is exact: what p and q share is kept, what p has more is drawn anew, of the eight likeliest words.

    Args:
        p: float (V,), chances of the judge.
        q: float (V,), chances of the drafter.
        words: V words.
        draft: the word that q drew, which is marked, and drawn in any case; None where there was none.
    """
    both, surplus, excess = p.minimum(q), (p - q).clamp(min=0), (q - p).clamp(min=0)
    likeliest = p.maximum(q).topk(min(8, len(p))).indices.tolist()
    if draft is not None and draft not in likeliest:
        likeliest[-1] = draft
    figure = Figure(figsize=(8.5, 3.4), layout="constrained")
    axes = figure.subplots()
    for x, v in enumerate(likeliest):
        low, more, less = float(both[v]), float(surplus[v]), float(excess[v])
        axes.bar(x, low, color=KEPT, edgecolor=INK, linewidth=0.6)
        axes.bar(x, more, bottom=low, color=REDRAWN, edgecolor=INK, linewidth=0.6)
        axes.bar(x, less, bottom=low, color=REFUSED, edgecolor=INK, linewidth=0.6, hatch="///")
    named = [f"{words[v]}\n(drafted, q = {q[v]:.1g})" if v == draft else words[v] for v in likeliest]
    axes.set_xticks(range(len(likeliest)), named, fontsize=9)
    labels = {
        f"p and q: kept, {float(both.sum()):.2f} in all": (KEPT, ""),
        f"p only: drawn anew, {float(surplus.sum()):.2f}": (REDRAWN, ""),
        f"q only: refused, {float(excess.sum()):.2f}": (REFUSED, "///"),
    }
    handles = [Rectangle((0, 0), 1, 1, facecolor=face, hatch=hatch, edgecolor=INK) for face, hatch in labels.values()]
    axes.legend(handles, labels, fontsize=8, frameon=False)
    dress(axes, "One draft, all tokens: what is refused (hatched) is as much as is drawn anew (orange)", "chance")
    said = "; ".join(f"{words[v]}: p {p[v]:.2f}, q {q[v]:.2f}" for v in likeliest[:4])
    return Picture.of(figure, f"Bars of chances, p against q. {', '.join(labels)}. {said}.")


def half_kept(n_made: Sequence[int], window: int, shown: int = 6) -> int:
    """The first of `shown` calls in a row that make about half of what they can: a picture of them holds every case.

    Args:
        n_made: tokens that each call made.
        window: W, tokens that a call makes at most.
        shown: how many calls a picture holds.

    >>> half_kept([1, 1, 1, 2, 4, 4, 4], window=4, shown=2)
    2
    """
    starts = range(max(1, len(n_made) - shown + 1))
    return min(starts, key=lambda at: abs(sum(n_made[at : at + shown]) - shown * window / 2))


def acceptance(calls: Sequence[tuple[int, Sequence[str], Sequence[str]]], title: str, *, number: int = 1) -> Picture:
    """Call by call: which drafts were kept, which token was drawn, which places are drafted anew.

    Args:
        calls: of each call the first rank of its window, the drafts, and the tokens that it made: all drafts that
            passed, and the one that it drew behind them, in the place of a refused draft or as one more.
        title: of the figure.
        number: of the first of these calls.
    """
    start, stop = calls[0][0], max(first + max(len(drafts), len(made)) for first, drafts, made in calls)
    figure = Figure(figsize=(1.2 + 0.86 * (stop - start), 1.2 + 0.5 * len(calls)), layout="constrained")
    axes = figure.subplots()
    n_kept = n_refused = n_more = 0
    for y, (first, drafts, made) in enumerate(calls):
        for k, (draft, token) in enumerate(zip_longest(drafts, made)):
            is_kept, is_more = token == draft, draft is None
            is_refused = not (is_kept or is_more or token is None)
            n_kept, n_refused, n_more = n_kept + is_kept, n_refused + is_refused, n_more + is_more
            face = KEPT if is_kept else FAINT if token is None else REDRAWN
            x = first - start + k
            axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=face, edgecolor=PAPER, linewidth=1.5))
            text = f"not {draft}\n{token}" if is_refused else f"{draft}?" if token is None else token
            axes.text(x, y, text, ha="center", va="center", fontsize=8.5, color=INK)
    axes.set_xlim(-0.5, stop - start - 0.5)
    axes.set_ylim(len(calls) - 0.5, -0.5)
    axes.set_xlabel("rank, in the order of making", fontsize=9, color=INK)
    dress(
        axes, f"{title}: kept (blue), drawn (orange; not: what was refused), to be drafted anew (grey, with ?)", "call"
    )
    axes.set_xticks(range(0, stop - start, 4), range(start, stop, 4))
    axes.set_yticks(range(len(calls)), range(number, number + len(calls)))
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    made = "; ".join(f"call {y}: {len(tokens)} of {len(d) + 1}" for y, (_, d, tokens) in enumerate(calls, number))
    return Picture.of(
        figure,
        f"Windows of drafts, call by call: {n_kept} kept, {n_refused} drawn anew, {n_more} drawn as one more. "
        f"Tokens made in {made}.",
    )


def agreement(exact: Tensor, shares: Mapping[str, Tensor], title: str) -> Picture:
    """Whether samples have the distribution that they should: a dot for each text, on the diagonal if so.

    Args:
        exact: float (texts,), chances by the chain rule.
        shares: name of a way to write -> float (texts,), share of the samples that are this text.
        title: of the figure.
    """
    figure = Figure(figsize=(8.5, 3.8), layout="constrained")
    axes = figure.subplots()
    axes.plot([1e-4, 1], [1e-4, 1], color=INK, linewidth=0.8, linestyle="--", label="equal")
    for (name, share), colour, mark in zip(shares.items(), (PALETTE[6], PALETTE[5]), "so", strict=True):
        axes.scatter(exact, share, s=16, color=colour, marker=mark, label=name)
    axes.set(xscale="log", yscale="log", xlim=(1e-4, 1), ylim=(1e-4, 1))
    axes.set_xlabel("exact chance of a text, one token after another (from 0.0001)", fontsize=9, color=INK)
    axes.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    dress(axes, title, "share of samples")
    said = "; ".join(f"{name}: at most {float((share - exact).abs().max()):.3f}" for name, share in shares.items())
    return Picture.of(figure, f"Dots of {len(exact)} texts, share against exact chance. Off the diagonal by {said}.")
