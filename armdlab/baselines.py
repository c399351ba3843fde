"""What is ARMD compared with, and what breaks when a part of it is left out?

Every model here is made of the very same layers and the same `ARMDConfig`, so a difference in figures is a difference
in the idea.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from armdlab.counts import at_least_one
from armdlab.masks import ALL_VISIBLE, Mask, Masks
from armdlab.model import ARMD, ARMDConfig, Transformer, attend, causal_layer
from armdlab.orders import UNKNOWN, GenerationOrder
from armdlab.positions import sinusoids


class AR(Transformer):
    """The autoregressive transformer: one causal stream, whose row of token n - 1 predicts token n."""

    def check_order(self, tokens: Tensor, order: GenerationOrder | None) -> GenerationOrder:
        """See `Transformer.check_order`; the only order that this model knows is left to right."""
        order = super().check_order(tokens, order)
        if not order.is_left_to_right:
            raise ValueError(f"order={order} is not left to right, the only one that AR can follow; use ARMD")
        return order

    def hidden(self, tokens: Tensor, token_at: Tensor, target_at: Tensor, masks: Masks) -> Tensor:
        """See `Transformer.hidden`; the row of each known token becomes the row of the next target."""
        rows, positions = self.embed(tokens, token_at)
        angles = self.rotary.at(positions)
        for layer in self.layers:
            rows = causal_layer(layer, rows, angles, masks.evidence_to_evidence)
        return self.norm(rows)


class BlockDiffusion(Transformer):
    """Masked diffusion inside blocks that follow each other left to right (BD3-LM; Arriola et al., 2025).

    Rows of X are clean tokens of finished blocks, rows of G a noisy copy in which what is not known yet is [mask]. G
    predicts every [mask] at once (SUBS: never [mask] itself, and what is known stays). There is no time input: how much
    is masked tells the time, and nothing need be computed again when nothing was revealed.

    Args:
        config: as for `ARMD`; `n_two_stream` and the position settings of prefix aggregation play no part.
        block_size: tokens of a block; None for the whole text, which is masked diffusion.

    Raises:
        ValueError: if `block_size` is below 1.
    """

    settings = ("block_size",)

    def __init__(self, config: ARMDConfig, block_size: int | None) -> None:
        size = config.max_length if block_size is None else at_least_one("block_size", block_size)
        super().__init__(config)
        self.block_size = size
        self.mask = nn.Parameter(torch.zeros(config.d_model))
        nn.init.normal_(self.mask, std=0.02)

    def forward(
        self, tokens: Tensor, order: GenerationOrder | None = None, *, is_masked: Tensor | None = None
    ) -> Tensor:
        """Predict every token from the tokens of earlier blocks of an order, or in one given state of masking.

        Each row of a call sees one state of masking, so this takes as many calls as a block has steps (all blocks take
        their n-th step in one call): N for MDLM token by token, where ARMD takes one.

        Args:
            tokens: int64 (B, N) in text order, N at most `config.max_length`.
            order: any order that finishes one block of the model after another; None for left to right.
            is_masked: bool (B, N), what a token's own block does not know, in place of an order: one call, in which
                every token is predicted from its own block, as far as it is not masked, and from all blocks before.
                The logits of tokens that are not masked mean nothing.

        Returns:
            Logits (B, N, V) in text order.

        Raises:
            ValueError: as `ARMD`, if the order leaves a block of the model unfinished, or if `order` and `is_masked`
                are both given.
        """
        if is_masked is not None:
            if order is not None:
                raise ValueError(
                    f"order={order} and is_masked are both given, and each says what a token may see; leave one out"
                )
            self.check_tokens(tokens)
            return self._denoise(tokens, is_masked)
        order = self.check_order(tokens, order).to(tokens.device)
        turns = self.turns(order)
        logits = self._denoise(tokens, (turns >= 0).expand_as(tokens))
        for turn in range(1, int(turns.max()) + 1):
            later = self._denoise(tokens, (turns >= turn).expand_as(tokens))
            logits = torch.where((turns == turn).unsqueeze(-1), later, logits)
        return logits

    def check_order(self, tokens: Tensor, order: GenerationOrder | None) -> GenerationOrder:
        """See `Transformer.check_order`; an order must finish a block of the model before it begins the next."""
        order = super().check_order(tokens, order)
        made_in = order.positions // self.block_size  # of each rank
        crosses = (made_in.diff(dim=-1) != 0) & (order.blocks.diff(dim=-1) == 0)
        if (made_in.diff(dim=-1) < 0).any() or crosses.any():
            raise ValueError(
                f"order={order} leaves a block of {self.block_size} tokens before it is finished, which block "
                "diffusion cannot follow; use an order inside blocks, or ARMD"
            )
        return order

    def turns(self, order: GenerationOrder) -> Tensor:
        """How many blocks of the order its block of the model saw before each position: int64 (N,) or (B, N)."""
        blocks = order.blocks_in_text_order
        made_in = torch.arange(order.length, device=blocks.device).expand_as(blocks) // self.block_size
        first = torch.full_like(blocks, order.length).scatter_reduce(-1, made_in, blocks, "amin")
        return blocks - first.gather(-1, made_in)

    def _denoise(self, tokens: Tensor, is_masked: Tensor) -> Tensor:
        at = torch.arange(tokens.shape[1], device=tokens.device)
        blocks = at // self.block_size
        n_clean = (tokens.shape[1] - 1) // self.block_size * self.block_size  # nothing reads the last one's clean copy
        masks = ALL_VISIBLE
        if n_clean:  # the masks of ARMD, but noisy rows read those of their own block only (BD3-LM, section 3.3)
            own_block = Mask(blocks.unsqueeze(-1) == blocks.unsqueeze(-2))
            clean_blocks = F.pad(blocks[:n_clean], (1, 0), value=-1)  # BOS stands before them
            masks = replace(Masks.between(clean_blocks, blocks), target_to_target=own_block)
        noisy = tokens.masked_fill(is_masked, UNKNOWN)
        return self.head(self.hidden(tokens[:, :n_clean], at[:n_clean], at, masks, noisy=noisy))

    def hidden(self, tokens: Tensor, token_at: Tensor, target_at: Tensor, masks: Masks, *, noisy: Tensor) -> Tensor:
        """See `Transformer.hidden`.

        Args:
            tokens: int64 (B, E - 1), clean tokens of finished blocks; BOS will stand before them.
            token_at: int64 (E - 1,), their text positions.
            target_at: int64 (T,), the text positions of the noisy copy.
            masks: who may see whom.
            noisy: int64 (B, T), what is known at the targets; -1 where they are masked.
        """
        x, x_at = self.embed(tokens, token_at)
        is_masked = (noisy == UNKNOWN).unsqueeze(-1)
        g = torch.where(is_masked, self.mask.to(x.dtype), self.embedding(noisy.clamp(min=0)))
        sizes, rows = [x.shape[1], g.shape[1]], torch.cat([x, g], 1)
        angles = self.rotary.at(torch.cat([x_at, target_at + 1]))
        both = masks.target_to_evidence.beside(masks.target_to_target)
        for layer in self.layers:
            normed = layer.attention_norm(rows)
            x_queries, g_queries = layer.queries(normed, angles).split(sizes, 2)
            keys, values = layer.keys_values(normed, angles)
            (x_keys, g_keys), (x_values, g_values) = keys.split(sizes, 2), values.split(sizes, 2)
            x_attended = attend(x_queries, x_keys, x_values, masks.evidence_to_evidence)
            g_attended = attend(g_queries, torch.cat([x_keys, g_keys], 2), torch.cat([x_values, g_values], 2), both)
            rows = layer.finish(rows, torch.cat([x_attended, g_attended], 2))
        return self.norm(rows[:, sizes[0] :])


class MDLM(BlockDiffusion):
    """Masked diffusion (Sahoo et al., 2024): block diffusion whose one block is the whole text.

    Its ancestral sampler is `generate` along `GenerationOrder.masking_process`: what is revealed stays, so when each
    token is revealed does not depend on what it is, and can be drawn before. A step that reveals nothing is no block
    of that order, and costs no call.
    """

    settings = ()

    def __init__(self, config: ARMDConfig) -> None:
        super().__init__(config, None)


class TableARMD(ARMD):
    """Position embeddings as most models have them: a table with a learnt row for each position.

    So ARMD was in this lab at first, and the tales that it ships still are. Where a text has more tokens than a row has
    numbers it is worse, and the more so the longer the text; in short ones it is better (tests/benchmarks/README.md).
    """

    def __init__(self, config: ARMDConfig) -> None:
        super().__init__(config)
        del self.waves, self.amplitudes
        self.position = nn.Parameter(sinusoids(config.max_length + 1, config.d_position, config.position_base))

    def position_embeddings(self) -> Tensor:
        """PE, the table itself."""
        return self.position


class ShiftedQuery(ARMD):
    """A target starts from the token made just before it, q_n = x_{n-1}: strictly causal, but no longer blind to order.

    G becomes a copy of X, and the model an AR transformer over the order of storage (ARMD, section 3); where a block
    holds two tokens it leaks besides. It exists to show that the query needs prefix aggregation.
    """

    def first_targets(self, x: Tensor, x_at: Tensor, g_at: Tensor, masks: Masks) -> tuple[Tensor, Tensor]:
        """Let row r of G start as row r of X: BOS, then the token before."""
        return x, x_at


class LeakyQuery(ARMD):
    """Right mask, wrong query: each target starts from its own token, which the mask of no layer can hide.

    It exists to be caught by the tests for strict causality.
    """

    def first_targets(self, x: Tensor, x_at: Tensor, g_at: Tensor, masks: Masks) -> tuple[Tensor, Tensor]:
        """Add to prefix aggregation the one embedding that it must not hold: row r + 1 of X is rank r itself."""
        g, g_at = super().first_targets(x, x_at, g_at, masks)
        return g + F.pad(x[:, 1:], (0, 0, 0, 1)), g_at


class LeakyMask(ARMD):
    """Right query, wrong mask: G reads X under M^c, so that each target sees the keys and values of its own block.

    It exists to be caught by the tests for strict causality.
    """

    def two_streams(self, x: Tensor, x_at: Tensor, g: Tensor, g_at: Tensor, masks: Masks) -> Tensor:
        """As in ARMD, with M^c in the place of M^sc."""
        T = g.shape[1]
        causal = masks.target_to_target.apply(torch.ones(T, T, device=g.device)).bool()  # M^c over ranks
        leaky = F.pad(causal, (1, 0), value=True)[..., :T]  # BOS, then ranks 0 .. T - 2: the rows of X
        return super().two_streams(x, x_at, g, g_at, replace(masks, target_to_evidence=Mask(leaky)))
