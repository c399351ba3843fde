"""Under an order, who may see whom? (ARMD, equations 3 and 5)

One comparison of block numbers makes every mask of the lab. Where every block is one token and rows are stored in
generation order, the comparison always gives the plain triangle, whatever the permutation: such masks are not built
at all but announced as `is_causal`, and the fast causal kernels serve them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from armdlab.orders import GenerationOrder


def causal_mask(order: GenerationOrder, *, in_text_order: bool = False) -> Tensor:
    """M^c: token n may see token i iff B(i) <= B(n), its whole own block included (eq. 3).

    Args:
        order: the generation order.
        in_text_order: whether rows and columns are text positions; else they are ranks.

    Returns:
        bool (N, N), or (B, N, N) for a batched order; [n, i] is True where n may see i.

    >>> causal_mask(GenerationOrder.blockwise(3, 2)).int().tolist()
    [[1, 1, 0], [1, 1, 0], [1, 1, 1]]
    """
    blocks = order.blocks_in_text_order if in_text_order else order.blocks
    return may_see(blocks, blocks)


def strictly_causal_mask(order: GenerationOrder, *, in_text_order: bool = False) -> Tensor:
    """M^sc: token n may see token i iff B(i) < B(n), its own block excluded (eq. 5).

    Args and Returns as for `causal_mask`.

    >>> strictly_causal_mask(GenerationOrder.blockwise(3, 2)).int().tolist()
    [[0, 0, 0], [0, 0, 0], [1, 1, 0]]
    """
    blocks = order.blocks_in_text_order if in_text_order else order.blocks
    return may_see(blocks, blocks, strictly=True)


def may_see(query_blocks: Tensor, key_blocks: Tensor, *, strictly: bool = False) -> Tensor:
    """Compare block numbers (..., Q) and (..., K): bool (..., Q, K), True where the query may see the key."""
    queries, keys = query_blocks.unsqueeze(-1), key_blocks.unsqueeze(-2)
    return keys < queries if strictly else keys <= queries


@dataclass(frozen=True)
class Mask:
    """A mask as attention kernels want it: everything, the plain triangle, or a matrix.

    Args:
        allowed: bool (Q, K) or (B, Q, K), True where the query may see the key; None for the two cases below.
        is_causal: whether row q sees columns 0 .. q and no others; else, with `allowed` None, it sees all.
    """

    allowed: Tensor | None = None
    is_causal: bool = False

    @property
    def hides(self) -> bool:
        """Whether there is anything that some row may not see."""
        return self.is_causal or self.allowed is not None

    def apply(self, weights: Tensor) -> Tensor:
        """Set the float weights (..., Q, K') on the last K' columns to exactly 0 where the mask forbids them."""
        if self.is_causal:
            return weights.tril()
        if self.allowed is None:
            return weights
        return weights.masked_fill(~self.allowed[..., -weights.shape[-1] :], 0.0)

    def part(self, rows: slice, columns: slice) -> Mask:
        """The mask of some rows and columns; for a triangle, both must be the same slice."""
        return self if self.allowed is None else Mask(self.allowed[..., rows, columns])

    def to(self, device: torch.device) -> Mask:
        """The same mask on a device."""
        return self if self.allowed is None else Mask(self.allowed.to(device))

    def beside(self, other: Mask) -> Mask:
        """One mask over this one's columns and then the other's; both see everything, or both are matrices."""
        if self.is_causal or other.is_causal or (self.allowed is None) != (other.allowed is None):
            raise ValueError(f"{self} and {other} cannot stand beside each other; give two matrices, or none")
        return self if self.allowed is None else Mask(torch.cat([self.allowed, other.allowed], -1))

    def above(self, other: Mask, n_rows: int) -> Mask:
        """One mask of this one's rows and then the other's, over the same columns; both have `n_rows` if triangles."""
        if self.is_causal != other.is_causal or (self.allowed is None) != (other.allowed is None):
            raise ValueError(f"{self} and {other} cannot stand above each other; give two of a kind")
        if self.is_causal:
            triangle = torch.ones(n_rows, n_rows, dtype=torch.bool).tril()
            return Mask(torch.cat([triangle, triangle]))
        return self if self.allowed is None else Mask(torch.cat([self.allowed, other.allowed], -2))


@dataclass(frozen=True)
class Masks:
    """The three relations between the rows of one forward pass (ARMD, eq. 7).

    Rows of the causal stream X are *evidence*: BOS, then tokens that are known. Rows of the strictly causal stream G
    are *targets*: positions to be predicted. BOS counts as a block before block 0.
    """

    evidence_to_evidence: Mask  # X reads X: M^c
    target_to_evidence: Mask  # G reads X: M^sc
    target_to_target: Mask  # G reads G: M^c in ARMD's causal layers, the own block in block diffusion

    @classmethod
    def one_pass(cls, order: GenerationOrder) -> Masks:
        """Masks for scoring a whole text in one pass: N evidence rows (BOS, ranks 0 .. N-2) and N target rows."""
        if order.is_sequential:
            return PLAIN_CAUSAL
        before = torch.full_like(order.blocks[..., :1], -1)
        return cls.between(torch.cat([before, order.blocks[..., :-1]], -1), order.blocks)

    @classmethod
    def between(cls, evidence: Tensor, targets: Tensor, n_cached_evidence: int = 0, n_cached_targets: int = 0) -> Masks:
        """Masks for new rows that come after cached ones; every new row may see every cached row.

        Args:
            evidence: int64 (..., E), the block of each new evidence row; -1 for BOS.
            targets: int64 (..., T), the block of each new target row.
            n_cached_evidence: number of evidence rows already in the cache; they stand before the new ones.
            n_cached_targets: number of target rows already in the cache.
        """

        def sees_cache(allowed: Tensor, n_cached: int) -> Mask:
            return Mask(torch.nn.functional.pad(allowed, (n_cached, 0), value=True))

        return cls(
            sees_cache(may_see(evidence, evidence), n_cached_evidence),
            sees_cache(may_see(targets, evidence, strictly=True), n_cached_evidence),
            sees_cache(may_see(targets, targets), n_cached_targets),
        )

    def to(self, device: torch.device) -> Masks:
        """The same masks on a device."""
        kinds = (self.evidence_to_evidence, self.target_to_evidence, self.target_to_target)
        return Masks(*(mask.to(device) for mask in kinds))


# Evidence row r holds rank r - 1 (row 0 is BOS), so "ranks before n" are evidence rows 0 .. n: the triangle again.
PLAIN_CAUSAL = Masks(Mask(is_causal=True), Mask(is_causal=True), Mask(is_causal=True))
# One block after everything that is known: nothing is hidden.
ALL_VISIBLE = Masks(Mask(), Mask(), Mask())
