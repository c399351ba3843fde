"""Which position is generated when, and together with which others? (ARMD, sections 3 and 3.1)

Everything else in the lab takes its answer from here: masks say who may see whom *under an order*, the model
scores a text *under an order*, the decoder walks *along an order*.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from armdlab.counts import at_least_one, is_whole
from armdlab.permutations import as_int64, check_blocks, check_permutation

UNKNOWN = -1  # where tokens are given: this position is still to be generated


@dataclass(frozen=True, eq=False)
class GenerationOrder:
    """A permutation of the text, cut into blocks: pi and B(n) of the paper.

    A *rank* counts tokens as they are made, a *position* counts them as they are read. Tokens of equal block are
    made together, so they cannot see one another. An order is a value: it is validated when built and never changes.

    Args:
        positions: int64 (N,), or (B, N) where the rows of a batch differ; the text position (0-based) generated at
            each rank.
        blocks: int64 (N,), or (B, N) where the rows are cut differently; the block of each rank: non-decreasing,
            from 0, without gaps.

    Raises:
        ValueError: if a row of `positions` is no permutation of 0 .. N-1, or a row of `blocks` decreases, skips a
            number or does not start from 0.

    >>> order = GenerationOrder(positions=[2, 0, 1], blocks=[0, 1, 1])
    >>> order.n_blocks, order.is_sequential
    (2, False)
    """

    positions: Tensor
    blocks: Tensor

    def __post_init__(self) -> None:
        """Turn sequences into tensors and refuse what is no order."""
        positions, blocks = as_int64("positions", self.positions), as_int64("blocks", self.blocks)
        if positions.shape[-1] != blocks.shape[-1] or (blocks.dim() == 2 and blocks.shape != positions.shape):
            raise ValueError(
                f"positions has shape {tuple(positions.shape)} and blocks has shape {tuple(blocks.shape)}; "
                "blocks must be (N,), or have exactly the shape of positions"
            )
        object.__setattr__(self, "positions", positions.clone())  # what the caller writes into theirs changes nothing
        object.__setattr__(self, "blocks", blocks.to(positions.device).clone())
        check_permutation(self.positions)
        check_blocks(self.blocks)

    # ------------------------------------------------------------------------------------------ constructors

    @classmethod
    def left_to_right(cls, length: int) -> GenerationOrder:
        """The order of reading, one token at a time: what an autoregressive model does.

        >>> GenerationOrder.left_to_right(4).positions.tolist()
        [0, 1, 2, 3]
        """
        ranks = torch.arange(at_least_one("length", length))
        return cls(ranks, ranks)

    @classmethod
    def random(
        cls, length: int, *, batch_size: int | None = None, generator: torch.Generator | None = None
    ) -> GenerationOrder:
        """Any of the N! permutations with equal chance, one token at a time.

        Args:
            length: number of text positions N.
            batch_size: number of independent rows B; None for one order without a batch axis.
            generator: source of chance, on the CPU; None for torch's global one.
        """
        return cls.shuffled(length, length, batch_size=batch_size, generator=generator)

    @classmethod
    def shuffled(
        cls,
        length: int,
        count: int,
        *,
        batch_size: int | None = None,
        generator: torch.Generator | None = None,
    ) -> GenerationOrder:
        """Left to right, but `count` positions drawn at random exchange their places (ARMD, section 3.2).

        Args:
            length: number of text positions N.
            count: number of positions that exchange places among themselves, 0 to N (rho at the end of the curriculum).
            batch_size: number of independent rows B; None for one order without a batch axis.
            generator: source of chance, on the CPU; None for torch's global one.

        Raises:
            ValueError: if `count` is no whole number from 0 to `length`.
        """
        if not is_whole(count) or not 0 <= count <= at_least_one("length", length):
            raise ValueError(f"count={count} positions cannot be shuffled; choose 0 to length={length}")
        rows = at_least_one("batch_size", 1 if batch_size is None else batch_size)
        # float64 keys: in float32 two keys of a long row collide often enough to favour low positions
        chosen = torch.rand(rows, length, dtype=torch.float64, generator=generator).argsort(-1)[:, :count]
        positions = torch.arange(length).repeat(rows, 1)
        positions.scatter_(1, chosen.sort(-1).values, chosen)  # the same places, in a random order
        return cls(positions[0] if batch_size is None else positions, torch.arange(length))

    @classmethod
    def strided(cls, length: int, streams: int) -> GenerationOrder:
        """Interleave `streams` equal streams; heads come first, one at a time (ARMD, section 3.1).

        Args:
            length: number of text positions N.
            streams: number of parallel streams S; must divide `length`.

        Returns:
            Order with S + N/S - 1 blocks.

        Raises:
            ValueError: if `streams` does not divide `length`; the message names divisors nearby.

        >>> order = GenerationOrder.strided(8, 2)
        >>> order.positions.tolist()  # the paper's [1, 5, 2, 6, 3, 7, 4, 8], counted from 0
        [0, 4, 1, 5, 2, 6, 3, 7]
        >>> order.blocks.tolist()
        [0, 1, 2, 2, 3, 3, 4, 4]
        """
        at_least_one("streams", streams)
        if at_least_one("length", length) % streams:
            divisors = [s for s in range(1, length + 1) if length % s == 0]
            below, above = [s for s in divisors if s < streams], [s for s in divisors if s > streams]
            nearest = " or ".join(map(str, below[-1:] + above[:1]))
            raise ValueError(f"streams={streams} does not divide length={length}; try {nearest}")
        return cls(*_interleave(torch.arange(length), streams))

    @classmethod
    def from_masking_times(cls, masking_times: Tensor | Sequence[int]) -> GenerationOrder:
        """Read a masking process backwards: what was masked last is generated first (ARMD, section 3).

        Args:
            masking_times: int64 (N,) or (B, N); the step tau(j) in 1 .. T at which position j becomes [mask].

        Returns:
            Order in which equal times share a block; inside a block positions stand in text order. For (B, N) the
            blocks are (B, N) too.

        >>> order = GenerationOrder.from_masking_times([2, 3, 1, 3])
        >>> order.positions.tolist(), order.blocks.tolist()
        ([1, 3, 0, 2], [0, 0, 1, 2])
        """
        times, positions = as_int64("masking_times", masking_times).sort(dim=-1, descending=True, stable=True)
        is_new_block = (times.diff(dim=-1) != 0).long()
        return cls(positions, torch.cat([torch.zeros_like(times[..., :1]), is_new_block.cumsum(-1)], -1))

    @classmethod
    def masking_process(
        cls,
        length: int,
        steps: int,
        *,
        block_size: int | None = None,
        batch_size: int | None = None,
        known: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> GenerationOrder:
        """The order in which `steps` steps of ancestral sampling reveal a text (MDLM; log-linear schedule).

        Under that schedule a token is revealed at any of the steps with equal chance, whatever it is and whatever the
        others are. Steps that reveal nothing are left out: they would ask the network what it has answered already.

        Args:
            length: number of text positions N.
            steps: number of denoising steps T, of each block where there are several.
            block_size: tokens of a block that is finished before the next begins (BD3-LM); None for the whole text.
            batch_size: number of rows B, which reveal equally many tokens at a step, each at positions of its own; None
                for one order without a batch axis.
            known: bool (N,), what is given: it stands before all that is revealed (in its block); None for nothing.
            generator: source of chance, on the CPU; None for torch's global one.

        Returns:
            Order of at most `steps` blocks (for each block of `block_size`), and one more for what is given.

        Raises:
            ValueError: if a number is below 1, or `known` has not one boolean for each position.
        """
        size = at_least_one("length", length) if block_size is None else block_size
        rows = 1 if batch_size is None else batch_size
        at_least_one("steps", steps), at_least_one("block_size", size), at_least_one("batch_size", rows)
        block_of = torch.arange(length) // size
        known = torch.zeros(length, dtype=torch.bool) if known is None else torch.as_tensor(known).cpu()
        if known.dtype != torch.bool or known.shape != (length,):
            found = f"{known.dtype} of shape {tuple(known.shape)}"
            raise ValueError(f"known is {found}; give booleans of shape ({length},)")
        # Both sums sort by block, and in a block put first what is known; then by chance, and by the step of revealing.
        shuffled = torch.rand(rows, length, dtype=torch.float64, generator=generator) + 2 * block_of - 1 * known
        step = torch.randint(steps, (length,), generator=generator).masked_fill(known, -1) + (steps + 1) * block_of
        blocks = step.sort().values.unique(return_inverse=True)[1]
        return cls((shuffled[0] if batch_size is None else shuffled).argsort(-1), blocks)

    @classmethod
    def blockwise(cls, length: int, size: int) -> GenerationOrder:
        """Left-to-right blocks of `size` tokens made together, as in block diffusion; the last may be shorter.

        >>> GenerationOrder.blockwise(5, 2).blocks.tolist()
        [0, 0, 1, 1, 2]
        """
        ranks = torch.arange(at_least_one("length", length))
        return cls(ranks, ranks // at_least_one("size", size))

    @classmethod
    def infilling(cls, known: Tensor | Sequence[bool], streams: int = 1) -> GenerationOrder:
        """What is given comes first, left to right; the gaps follow, in `streams` strided streams.

        Args:
            known: bool (N,) or (B, N); True where the token is given. A prompt is the case in which a prefix is known.
            streams: number of parallel streams S over the unknown positions. S need not divide their number: the
                first streams are then one token longer.

        Returns:
            Order with one block for each known position (they cost no decoding step: one pass reads them all).

        Raises:
            ValueError: if `streams` exceeds the number of unknown positions of a row, or 1 where there is none.

        >>> order = GenerationOrder.infilling([True, False, False, True, False, False], streams=2)
        >>> order.positions.tolist(), order.blocks.tolist()
        ([0, 3, 1, 4, 2, 5], [0, 1, 2, 3, 4, 4])
        """
        known = torch.as_tensor(known)
        if known.dtype != torch.bool or known.dim() not in (1, 2) or known.shape[-1] == 0:
            found = f"{known.dtype} of shape {tuple(known.shape)}"
            raise ValueError(f"known is {found}; give booleans of shape (N,) or (B, N)")
        if known.dim() == 2:
            return cls.stack([cls.infilling(row, streams) for row in known])
        given, unknown = known.nonzero().squeeze(-1), (~known).nonzero().squeeze(-1)
        positions, blocks = _interleave(unknown, at_least_one("streams", streams))
        ranks = torch.arange(len(given), device=given.device)
        return cls(torch.cat([given, positions]), torch.cat([ranks, blocks + len(given)]))

    @classmethod
    def stack(cls, orders: Sequence[GenerationOrder]) -> GenerationOrder:
        """Give every row of a batch an order of its own.

        Args:
            orders: B orders of equal length, each without a batch axis.

        Returns:
            Order with `positions` (B, N), and with `blocks` (N,) where all rows are cut alike, else (B, N).

        Raises:
            ValueError: if there is none, their lengths differ, or one has a batch axis.
        """
        if not orders or len({order.length for order in orders}) > 1 or any(o.is_batched for o in orders):
            shapes = [tuple(order.positions.shape) for order in orders]
            raise ValueError(f"orders have shapes {shapes}; give at least one, all of the same shape (N,)")
        positions, blocks = (torch.stack([getattr(o, name) for o in orders]) for name in ("positions", "blocks"))
        return cls(positions, blocks[0] if (blocks == blocks[0]).all() else blocks)

    # ---------------------------------------------------------------------------------------------- readings

    @property
    def length(self) -> int:
        """Number of text positions N."""
        return self.positions.shape[-1]

    @property
    def is_batched(self) -> bool:
        """Whether the rows of a batch have orders of their own: `positions` is (B, N)."""
        return self.positions.dim() == 2

    @cached_property
    def n_blocks(self) -> int:
        """Number of blocks (the largest of the batch): the steps that sequential decoding of blocks takes."""
        return int(self.blocks.max()) + 1

    @cached_property
    def is_sequential(self) -> bool:
        """Whether every block is one token, so that every mask is the plain triangle in generation order."""
        return bool((self.blocks[..., -1] == self.length - 1).all())

    @cached_property
    def is_left_to_right(self) -> bool:
        """Whether every row is generated in reading order, one token at a time."""
        return self.is_sequential and bool((self.positions.diff(dim=-1) == 1).all())

    @cached_property
    def ranks(self) -> Tensor:
        """The inverse permutation, int64 like `positions`: the rank at which each text position is generated."""
        return self.positions.argsort(-1)

    @cached_property
    def blocks_in_text_order(self) -> Tensor:
        """int64 like `positions`: the block of each text position."""
        blocks = self.blocks.expand_as(self.positions)
        return blocks.gather(-1, self.ranks)

    def rows(self, rows: slice | Tensor) -> GenerationOrder:
        """The orders of some rows of a batch, by slice, int64 or bool; the same order where all rows share one."""
        if not self.is_batched:
            return self
        return GenerationOrder(self.positions[rows], self.blocks if self.blocks.dim() == 1 else self.blocks[rows])

    def behind(self, known: Tensor | Sequence[bool]) -> GenerationOrder:
        """The same order behind what is given: that is read first, left to right, and all others keep their places.

        So streams behind a prompt begin where they begin without one, which is where training has seen them begin.

        Args:
            known: bool (N,) or (B, N); True where the token is given.

        Returns:
            Order with one block for each known position; the others share blocks as before.

        Raises:
            ValueError: if `known` has not one boolean for each position.

        >>> order = GenerationOrder.strided(8, 2).behind([True] * 3 + [False] * 5)
        >>> order.positions.tolist(), order.blocks.tolist()
        ([0, 1, 2, 4, 5, 6, 3, 7], [0, 1, 2, 3, 4, 5, 6, 6])
        """
        known = torch.as_tensor(known, device=self.positions.device)
        if known.dtype != torch.bool or known.dim() not in (1, 2) or known.shape[-1] != self.length:
            found = f"{known.dtype} of shape {tuple(known.shape)}"
            raise ValueError(f"known is {found}; give booleans of shape ({self.length},) or (B, {self.length})")
        known, positions = torch.broadcast_tensors(known, self.positions)
        given, blocks = known.gather(-1, positions), self.blocks.expand_as(positions)
        ranks = torch.arange(self.length, device=positions.device)
        moved = torch.where(given, positions - self.length, ranks).argsort(-1)
        positions, blocks, given = (part.gather(-1, moved) for part in (positions, blocks, given))
        begins = given[..., 1:] | given[..., :-1] | (blocks.diff(dim=-1) != 0)
        blocks = F.pad(begins.cumsum(-1), (1, 0))
        alike = blocks.dim() == 1 or bool((blocks == blocks[0]).all())
        return GenerationOrder(positions, blocks.reshape(-1, self.length)[0] if alike else blocks)

    def one_by_one(self) -> GenerationOrder:
        """The same positions in the same order, each a block of its own: what verified decoding draws from.

        >>> GenerationOrder.strided(4, 2).one_by_one().n_blocks
        4
        """
        return GenerationOrder(self.positions, torch.arange(self.length, device=self.positions.device))

    def steps(self) -> Iterator[Tensor]:
        """Yield, block after block, the int64 text positions (n,) that are generated together.

        Raises:
            ValueError: if the order has a batch axis.

        >>> [step.tolist() for step in GenerationOrder.strided(6, 3).steps()]
        [[0], [2], [4], [1, 3, 5]]
        """
        if self.is_batched:
            raise ValueError(f"positions has shape {tuple(self.positions.shape)}; steps() reads one row, (N,)")
        yield from self.positions.split(torch.bincount(self.blocks).tolist())

    def to_generation_order(self, values: Tensor) -> Tensor:
        """Reorder (B, N, ...) from text order into generation order: x = pi(z)."""
        return _take(values, self.positions)

    def to_text_order(self, values: Tensor) -> Tensor:
        """Reorder (B, N, ...) from generation order into text order: the inverse of `to_generation_order`."""
        return _take(values, self.ranks)

    def to(self, device: torch.device | str) -> GenerationOrder:
        """The same order on another device; itself if it is already there."""
        if self.positions.device == torch.device(device):
            return self
        # Asking an accelerator for a value stalls it: whatever the host needs to know goes along, and nothing is
        # validated twice.
        _ = self.n_blocks, self.is_sequential, self.is_left_to_right
        moved = object.__new__(GenerationOrder)
        for name, value in vars(self).items():
            moved.__dict__[name] = value.to(device) if isinstance(value, Tensor) else value
        return moved

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, GenerationOrder):
            return NotImplemented
        return torch.equal(self.positions, other.positions) and torch.equal(self.blocks, other.blocks)

    __hash__ = None

    def __repr__(self) -> str:
        rows = f"{len(self.positions)} rows of " if self.is_batched else ""
        return f"GenerationOrder({rows}length={self.length}, n_blocks={self.n_blocks})"


def _interleave(members: Tensor, streams: int) -> tuple[Tensor, Tensor]:
    """Cut int64 (U,) positions into streams and interleave them: (positions, blocks), heads one by one."""
    if streams > max(len(members), 1):
        raise ValueError(f"streams={streams} is more than the {len(members)} positions to generate; use fewer")
    lanes = members.tensor_split(streams)  # the first U mod S lanes are one longer
    depths = torch.cat([torch.arange(len(lane), device=members.device) for lane in lanes])
    lane_of = torch.cat([torch.full_like(lane, s) for s, lane in enumerate(lanes)])
    by_depth = depths.argsort(stable=True)  # all heads, then all second tokens, ...
    depths, lane_of = depths[by_depth], lane_of[by_depth]
    return members[by_depth], torch.where(depths == 0, lane_of, depths + streams - 1)


def _take(values: Tensor, index: Tensor) -> Tensor:
    """Gather (B, N, ...) along N by int64 (N,) or (B, N)."""
    if index.dim() == 1:
        return values[:, index]
    rows = torch.arange(len(values), device=values.device).unsqueeze(-1)
    return values[rows, index]
