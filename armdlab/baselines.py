"""What is ARMD compared with, and what breaks when a part of it is left out?

Every model here is made of the very same layers and the same `ARMDConfig`, so a difference in figures is a difference
in the idea.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from armdlab.masks import Mask, Masks
from armdlab.model import ARMD, KVCache, Transformer, causal_layer
from armdlab.orders import GenerationOrder


class AR(Transformer):
    """The autoregressive transformer: one causal stream, whose row of token n - 1 predicts token n."""

    def check_order(self, tokens: Tensor, order: GenerationOrder | None) -> GenerationOrder:
        """See `Transformer.check_order`; the only order that this model knows is left to right."""
        order = super().check_order(tokens, order)
        if not order.is_left_to_right:
            raise ValueError(f"order={order} is not left to right, the only one that AR can follow; use ARMD")
        return order

    def hidden(
        self, tokens: Tensor, token_at: Tensor, target_at: Tensor, masks: Masks, cache: KVCache | None = None
    ) -> Tensor:
        """See `Transformer.hidden`; the row of each known token becomes the row of the next target."""
        rows, positions = self.embed(tokens, token_at, with_bos=cache is None or cache.is_empty)
        angles = self.rotary.at(positions)
        for depth, layer in enumerate(self.layers):
            rows = causal_layer(layer, depth, rows, angles, masks.evidence_to_evidence, cache)
        return self.norm(rows)


class ShiftedQuery(ARMD):
    """A target starts from the token made just before it, q_n = x_{n-1}: strictly causal, but no longer blind to order.

    G becomes a copy of X, and the model an AR transformer over the order of storage (ARMD, section 3); where a block
    holds two tokens it leaks besides. It exists to show that the query needs prefix aggregation.
    """

    def first_targets(
        self, x: Tensor, x_at: Tensor, g_at: Tensor, masks: Masks, cache: KVCache | None
    ) -> tuple[Tensor, Tensor]:
        """Let row r of G start as row r of X: BOS, then the token before."""
        return x, x_at


class LeakyQuery(ARMD):
    """Right mask, wrong query: each target starts from its own token, which the mask of no layer can hide.

    It exists to be caught by the tests for strict causality.
    """

    def first_targets(
        self, x: Tensor, x_at: Tensor, g_at: Tensor, masks: Masks, cache: KVCache | None
    ) -> tuple[Tensor, Tensor]:
        """Add to prefix aggregation the one embedding that it must not hold: row r + 1 of X is rank r itself."""
        g, g_at = super().first_targets(x, x_at, g_at, masks, cache)
        return g + F.pad(x[:, 1:], (0, 0, 0, 1)), g_at


class LeakyMask(ARMD):
    """Right query, wrong mask: G reads X under M^c, so that each target sees the keys and values of its own block.

    It exists to be caught by the tests for strict causality.
    """

    def two_streams(
        self, x: Tensor, x_at: Tensor, g: Tensor, g_at: Tensor, masks: Masks, cache: KVCache | None
    ) -> Tensor:
        """As in ARMD, with M^c in the place of M^sc."""
        T = g.shape[1]
        causal = masks.target_to_target.apply(torch.ones(T, T, device=g.device)).bool()  # M^c over ranks
        leaky = F.pad(causal, (1, 0), value=True)[..., :T]  # BOS, then ranks 0 .. T - 2: the rows of X
        return super().two_streams(x, x_at, g, g_at, replace(masks, target_to_evidence=Mask(leaky)), cache)
