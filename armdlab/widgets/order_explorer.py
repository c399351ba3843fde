"""Under this order, who may see whom, and why? Pick an order or paint one; touch its masks cell by cell.

The masks are those of `armdlab.masks`: the view asks the kernel for them and only draws.
"""

from __future__ import annotations

from typing import Any

import traitlets

from armdlab import figures
from armdlab.figures import Picture
from armdlab.masks import causal_mask, strictly_causal_mask
from armdlab.orders import GenerationOrder
from armdlab.widgets.order_picker import Wish, labels, shown, shown_masks, words_of
from armdlab.widgets.view import View

MOST_WORDS = 32  # of which a cell is still large enough to be pointed at
# Why a token may or may not see another, by mask and by when the other is made.
REASONS = {
    "causal": {
        "earlier": "made earlier",
        "together": "made together, and M^c includes the own block",
        "later": "made later",
        "itself": "M^c includes the own block, and so itself",
    },
    "strict": {
        "earlier": "made earlier",
        "together": "made together, and M^sc excludes the own block",
        "later": "made later",
        "itself": "it is what is to be predicted",
    },
}


class OrderExplorer(View):
    """Pick or paint a generation order and see its two masks.

    Args:
        text: up to 32 words.
        order: what to start from; left to right if None.

    Raises:
        ValueError: if there is no word or too many, or the order is of another length.
    """

    files = ("order_picker", "order_explorer")

    state = traitlets.Dict().tag(sync=True)

    def __init__(self, text: str = "the cat sat on the mat", order: GenerationOrder | None = None) -> None:
        self._wish = Wish.of(text, len(words_of(text, MOST_WORDS)), order)
        self.order, state = explored(self._wish)
        super().__init__(state=state)

    def __repr__(self) -> str:
        return f"OrderExplorer({self.state['summary']}, {self._wish.kind})"

    def answer(self, content: dict[str, Any]) -> dict[str, Any]:
        """Follow the controls: another text or order."""
        wish = self._wish.changed(content)
        self.order, self.state = explored(wish)
        self._wish = wish
        return {}

    def picture(self) -> Picture:
        """Both masks, for where no view can be."""
        return figures.masks(self.order, labels(self.state["words"]))


def explored(wish: Wish) -> tuple[GenerationOrder, dict[str, Any]]:
    """The order that is wished for, and what the view shows of it: masks [n][i] of 0 and 1, in text order.

    Raises:
        ValueError: if the text or the order cannot be; the message says what to change.
    """
    words = words_of(wish.text, MOST_WORDS)
    order = wish.order(len(words))
    n_causal, n_strict = int(causal_mask(order).sum()), int(strictly_causal_mask(order).sum())
    cells = f"M^c allows {n_causal} of {order.length**2} cells, M^sc {n_strict}"
    return order, shown(wish, words, order) | shown_masks(order) | {"reasons": REASONS, "cells": cells}
