"""Which calls of the network does it take to write along an order, and what stands in each?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from armdlab.masks import ALL_VISIBLE, PLAIN_CAUSAL, Masks
from armdlab.model import CHUNK
from armdlab.orders import GenerationOrder


@dataclass(frozen=True)
class Call:
    """One call of the network: ranks that become evidence, ranks that are targets, and which targets are wanted."""

    evidence: slice
    targets: slice
    ranks: slice | Tensor | None  # those that are wanted; None where what is given is only read
    rows: slice | Tensor | None  # where they stand among the targets
    some_given: bool  # whether a row of the batch knows one of them
    sees: Masks | tuple[Tensor, Tensor, int, int]  # masks; or, as long prompts need large ones, what they are made from

    @property
    def sees_all(self) -> bool:
        """Whether ranks are wanted and nothing is hidden from any row, as in nearly all calls."""
        return self.ranks is not None and self.sees is ALL_VISIBLE

    def masks(self) -> Masks:
        """Who may see whom."""
        return self.sees if isinstance(self.sees, Masks) else Masks.between(*self.sees)

    @property
    def sizes(self) -> tuple[int, int]:
        """Rows of evidence, rows of targets."""
        return self.evidence.stop - self.evidence.start, self.targets.stop - self.targets.start


def heads_of(order: GenerationOrder, is_given: Tensor) -> slice | None:
    """The ranks of what is made one by one before the first block of several; None where checking drafts saves no call.

    Args:
        order: on the CPU, `blocks` (N,).
        is_given: bool (B, N) in generation order.
    """
    is_single = torch.bincount(order.blocks)[order.blocks] == 1
    known, n_single = (int(each.int().cumprod(-1).sum(-1).min()) for each in (is_given, is_single))
    return slice(known, n_single) if known + 3 <= n_single < order.length else None


def planned(order: GenerationOrder, is_given: Tensor) -> Iterator[Call]:
    """Lay out the calls of a run before it starts, so that its loop decides nothing.

    A block that is given whole costs no call: its rows ride along with the next block that is not. Where much is given
    it is read `CHUNK` tokens at a time, so that no mask or kernel grows with its square. Evidence lags one block behind
    the targets, because a block becomes evidence only when its tokens are known.

    Args:
        order: on the CPU, `blocks` (N,).
        is_given: bool (B, N) in generation order.
    """
    targeted = fed = 0  # ranks below have their G row, their X row, in the cache
    sizes = torch.bincount(order.blocks).tolist()
    stops = torch.tensor(sizes).cumsum(0).tolist()
    wanted = ~is_given.all(0)  # a rank that only some rows know is decoded, and theirs is put back
    last = int(wanted.nonzero().max()) if wanted.any() else -1
    for size, stop in zip(sizes, stops, strict=True):
        start = stop - size
        ranks = wanted[start:stop].nonzero().squeeze(-1) + start
        if not len(ranks) and (stop - targeted < CHUNK or stop > last):
            continue
        if targeted == start:
            sees = ALL_VISIBLE  # one block after all that is known
        elif targeted == 0 and stop == len(set(order.blocks[:stop].tolist())):
            sees = PLAIN_CAUSAL
        else:
            evidence = order.blocks[fed:start]
            if targeted == 0:
                evidence = torch.cat([torch.tensor([-1]), evidence])  # BOS comes in with the first call
            cached = fed + 1 if targeted else 0
            sees = evidence, order.blocks[targeted:stop], cached, targeted
        some_given = bool(is_given[:, ranks].any())
        if not len(ranks):
            ranks = rows = None
        elif len(ranks) == size:
            ranks, rows = slice(start, stop), slice(start - targeted, stop - targeted)
        else:
            rows = ranks - targeted
        yield Call(slice(fed, start), slice(targeted, stop), ranks, rows, some_given, sees)
        targeted, fed = stop, start
