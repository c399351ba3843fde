"""What does a target read, in each layer and head, at the step that makes it? Walk along the steps of decoding.

The text is given, so nothing is drawn by chance: the view shows what the model reads when it has to predict each token
of this very text, in this order. All weights are sent at once, so that it answers without a running kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import traitlets
from matplotlib.figure import Figure
from torch import Tensor

from armdlab.attention_maps import AttentionMap, attention_maps
from armdlab.figures import Picture
from armdlab.orders import GenerationOrder
from armdlab.trained import Lab, load
from armdlab.widgets.order_picker import Wish, labels, quoted, shown, shown_masks, tokens_of
from armdlab.widgets.view import View

MOST_TOKENS = 32  # a column for each stays legible
SENTENCE = "A cheerful boy called Theo was counting on the hill when he noticed that his brown trunk was gone."


class AttentionMicroscope(View):
    """Choose a target, a layer and a head, and see which rows of X, or in causal layers of G, it reads.

    Args:
        lab: a trained ARMD with its tokenizer; the shipped model of tales if None.
        text: up to 32 tokens of that model.
        order: what to start from; left to right if None.

    Raises:
        ValueError: if the text is empty or too long, the order is of another length, or `lab` holds no ARMD.
    """

    files = ("order_picker", "attention_microscope")

    state = traitlets.Dict().tag(sync=True)
    weights = traitlets.Bytes().tag(sync=True)

    def __init__(self, lab: Lab | None = None, text: str = SENTENCE, order: GenerationOrder | None = None) -> None:
        self._lab = load("tales") if lab is None else lab
        n_tokens = len(tokens_of(self._lab.tokenizer, text, MOST_TOKENS)[0])
        self._wish = Wish.of(text, n_tokens, order)
        self.order, self.maps, state = self._look(self._wish)
        super().__init__(state=state, weights=packed(self.maps))

    def __repr__(self) -> str:
        return f"AttentionMicroscope({self.state['summary']}; {len(self.maps)} layers of {self.state['heads']} heads)"

    def answer(self, content: dict[str, Any]) -> dict[str, Any]:
        """Follow the controls: another text or order."""
        wish = self._wish.changed(content)
        order, maps, state = self._look(wish)
        with self.hold_sync():  # weights and words belong together
            self.weights, self.state = packed(maps), state
        self._wish, self.order, self.maps = wish, order, maps
        return {}

    def picture(self) -> Picture:
        """What the target that is made last reads in every layer, heads averaged."""
        return reading(self.maps, self.state["words"], self.order)

    def _look(self, wish: Wish) -> tuple[GenerationOrder, list[AttentionMap], dict[str, Any]]:
        ids, words = tokens_of(self._lab.tokenizer, wish.text, MOST_TOKENS)
        order = wish.order(len(words))
        tokens = torch.tensor([ids], device=self._lab.model.bos.device)
        maps = attention_maps(self._lab.model, tokens, order)
        state = shown(wish, words, order) | shown_masks(order)
        return (
            order,
            maps,
            state
            | {
                "reads": [found.reads for found in maps],
                "heads": len(maps[0].weights),
                "steps": [step.tolist() for step in order.steps()],
            },
        )


def with_mean(weights: Tensor) -> Tensor:
    """Heads (H, N, N) with their mean before them: (H + 1, N, N)."""
    return torch.cat([weights.mean(0, keepdim=True), weights])


def packed(maps: Sequence[AttentionMap]) -> bytes:
    """Little-endian float32 (L, H + 1, N, N), the mean of the heads first: what the view reads from."""
    return torch.stack([with_mean(found.weights) for found in maps]).float().cpu().numpy().astype("<f4").tobytes()


def reading(maps: Sequence[AttentionMap], words: Sequence[str], order: GenerationOrder) -> Picture:
    """What the target made last reads in each layer, mean of its heads: rows are layers, columns what there is to read.

    Args:
        maps: as `attention_maps` returns them.
        words: N words, in text order.
        order: without a batch axis.
    """
    n, made = order.length, [words[p] for p in order.positions.tolist()]
    shares = torch.full((len(maps), n + 1), torch.nan)
    for row, found in enumerate(maps):  # columns: BOS, then ranks; X holds no row of the last rank, G none of BOS
        start = 0 if found.reads == "X" else 1
        shares[row, start : start + n] = found.weights.mean(0)[-1].cpu()
    shares[shares == 0] = torch.nan  # forbidden: blank
    figure = Figure(figsize=(2.2 + 0.42 * (n + 1), 1.6 + 0.34 * len(maps)))
    axes = figure.subplots()
    image = axes.imshow(shares.numpy(), cmap="viridis", vmin=0, aspect="auto")
    figure.colorbar(image, ax=axes, label="share of the reading", pad=0.02)
    axes.set_xticks(range(n + 1), ["BOS", *labels(made)], fontsize=9, rotation=60, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(maps)), [f"layer {d} reads {m.reads}" for d, m in enumerate(maps, 1)], fontsize=9)
    axes.set_title("What the target made last reads (generation order; blank: forbidden)", fontsize=11, loc="left")
    first = maps[0].weights.mean(0)[-1]
    most = int(first.argmax())
    name = "BOS" if most == 0 else quoted(made[most - 1])
    return Picture.of(
        figure,
        f"Rows are {len(maps)} layers, columns what there is to read. In layer 1 the target made last, "
        f"{quoted(made[-1])}, reads {name} most: {float(first[most]):.2f} of its reading.",
    )
