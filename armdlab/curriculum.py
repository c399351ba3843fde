"""At this step of training, which orders does the model learn? (ARMD, sections 3.2 and 4)

First to read, then to jump, then to write in parallel: left to right, then a growing number of shuffled tokens
(progressive permutation), then strided blocks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from armdlab.orders import GenerationOrder
from armdlab.sampling import CUTS, FAMILY, seeded

FOREVER = 10**12  # steps
IN_STREAMS = ("strided", "one by one", "cut")
FAMILIES = ("left to right", "shuffled", *IN_STREAMS, "random", "infilling")


@dataclass(frozen=True)
class Curriculum:
    """Progressive permutation and strided fine-tuning, as a pure function of the step and the seed.

    Because nothing else enters, a resumed run and a run of several processes see the same orders.

    Args:
        length: tokens in a training row, N.
        i_ar: steps of pure left-to-right training, i_AR.
        i_perm: step from which the number of shuffled tokens stays at `rho`.
        i_strided: step from which orders are drawn from `mixture`; one past the end of training means never.
        rho: number of shuffled tokens at the end of the ramp, at most `length`.
        streams: numbers of streams S, one of which is drawn at every strided step; each divides `length`.
        seed: of all draws.
        mixture: families of orders with their weights, as (name, weight): one is drawn at every step from `i_strided`.
            The names are those of `FAMILIES`; the paper's fine-tuning is strided alone. "one by one" is a strided order
            whose blocks are single tokens, as verified decoding prices them; "cut" one whose blocks are cut at random,
            as a gate does.
        prompts: share of the rows of these three that are written behind a prompt, whose length is drawn for each row.

    Raises:
        ValueError: if a number is not whole, the steps are out of order, `rho` exceeds `length`, a number of streams
            does not divide it, a family is unknown or weighs nothing, or `prompts` is no share.
    """

    length: int
    i_ar: int
    i_perm: int
    i_strided: int
    rho: int
    streams: tuple[int, ...] = (1, 2, 4)
    seed: int = 0
    mixture: tuple[tuple[str, float], ...] = (("strided", 1.0),)
    prompts: float = 0.0

    def __post_init__(self) -> None:
        """Refuse a curriculum that no training could follow."""
        for name in ("length", "i_ar", "i_perm", "i_strided", "rho"):
            if isinstance(value := getattr(self, name), bool) or not isinstance(value, int):
                raise ValueError(f"{name}={value!r} must be a whole number")
        if not 0 <= self.i_ar <= self.i_perm <= self.i_strided:
            raise ValueError(
                f"i_ar={self.i_ar}, i_perm={self.i_perm}, i_strided={self.i_strided} must not be negative or fall"
            )
        if not 0 <= self.rho <= self.length:
            raise ValueError(f"rho={self.rho} positions cannot be shuffled; choose 0 to length={self.length}")
        if not self.streams:
            raise ValueError("streams is empty; name at least one number of streams, such as (1, 2, 4)")
        for streams in self.streams:
            GenerationOrder.strided(self.length, streams)
        for family, weight in self.mixture:
            if family not in FAMILIES or not 0 < weight < math.inf:
                raise ValueError(
                    f"mixture holds {family!r} with weight {weight}; weigh above 0 any of {', '.join(FAMILIES)}"
                )
        if not self.mixture:
            raise ValueError(f"mixture is empty; name at least one of {', '.join(FAMILIES)}")
        if not 0 <= self.prompts <= 1:
            raise ValueError(f"prompts={self.prompts} must be from 0 (no row) to 1 (every row in streams)")

    @classmethod
    def for_steps(
        cls,
        steps: int,
        length: int,
        *,
        streams: tuple[int, ...] | None = None,
        rho: int | None = None,
        seed: int = 0,
    ) -> Curriculum:
        """Spread the three lessons over a number of steps; the last sixth, a fifth of what went before, is strided.

        Left to right takes 15 % of what goes before, the ramp ends at 40 %. The paper has 5 % and 27 % on OpenWebText
        (9K and 48K of 180K), 10 % and 30 % on LM1B (100K and 300K of 1M); short runs need more room at the start.

        Args:
            steps: optimiser steps of the whole training.
            length: tokens in a training row, N.
            streams: as in `Curriculum`; None for those of 1, 2, 4 and 8 that divide `length`.
            rho: as in `Curriculum`; None for the paper's share, 32 of 1024.
            seed: of all draws.
        """
        if streams is None:
            streams = tuple(s for s in (1, 2, 4, 8) if length % s == 0)
        before = round(steps / 1.2)
        rho = min(length, max(2, length // 32)) if rho is None else rho
        return cls(length, round(0.15 * before), round(0.4 * before), before, rho=rho, streams=streams, seed=seed)

    @classmethod
    def left_to_right(cls, length: int, *, seed: int = 0) -> Curriculum:
        """What a model learns that knows no other order: no shuffling, no streams, however long it takes."""
        return cls(length, FOREVER, FOREVER, FOREVER, rho=0, streams=(1,), seed=seed)

    def phase(self, step: int) -> str:
        """Name the lesson of a step: "left to right", "shuffled", then "strided" (or "mixture", if it is one)."""
        if step >= self.i_strided:
            return self.mixture[0][0] if len(self.mixture) == 1 else "mixture"
        return "shuffled" if self.n_shuffled(step) else "left to right"

    def n_shuffled(self, step: int) -> int:
        """Number of shuffled tokens at a step: 0 until i_AR, then growing from 1 to rho at i_perm, then rho.

        >>> [Curriculum(64, i_ar=2, i_perm=6, i_strided=9, rho=4).n_shuffled(step) for step in range(8)]
        [0, 0, 1, 2, 3, 4, 4, 4]
        """
        if step < self.i_ar or self.rho == 0:
            return 0
        if step >= self.i_perm:
            return self.rho
        return 1 + (self.rho - 1) * (step - self.i_ar) // max(1, self.i_perm - self.i_ar - 1)

    def family(self, step: int) -> str:
        """Which of `FAMILIES` the order of a step is from."""
        if step < self.i_strided:
            return self.phase(step)
        names, weights = zip(*self.mixture, strict=True)
        shares, chance = torch.tensor([float(weight) for weight in weights]), seeded(self.seed, step, FAMILY)
        return names[int(shares.multinomial(1, generator=chance))]

    def n_streams(self, step: int) -> int:
        """The number of streams S that a strided step draws, whatever becomes of its blocks."""
        return self.streams[int(torch.randint(len(self.streams), (), generator=seeded(self.seed, step)))]

    def in_words(self, step: int) -> str:
        """The order of a step in words: what a meter shows.

        >>> plan = Curriculum(64, i_ar=2, i_perm=6, i_strided=9, rho=4, streams=(4,))
        >>> [plan.in_words(step) for step in (0, 6, 9)]
        ['left to right', '4 of 64 shuffled', '4 streams']
        """
        family = self.family(step)
        if family == "shuffled":
            return f"{self.n_shuffled(step)} of {self.length} shuffled"
        if family in IN_STREAMS:
            ending = {"strided": "", "one by one": ", one by one", "cut": ", some waiting"}[family]
            return f"{self.n_streams(step)} streams{ending}{', some behind prompts' if self.prompts else ''}"
        return family

    def order(self, step: int, batch_size: int, *, process: int = 0) -> GenerationOrder:
        """The order of one training step.

        Args:
            step: optimiser step, from 0.
            batch_size: number of rows B.
            process: rank of the process, so that each draws shuffles of its own (all draw the same family and S).

        Returns:
            One order for all rows, or one for each where chance enters.
        """
        # FAMILY and CUTS, 3 and 4, are drawn for all processes; 0 to 2 stay, so that older runs can go on.
        own = process if process < 3 else process + 2
        family, generator = self.family(step), seeded(self.seed, step, own)
        if family == "left to right":
            return GenerationOrder.left_to_right(self.length)
        if family in IN_STREAMS:
            strided = GenerationOrder.strided(self.length, self.n_streams(step))
            if self.prompts:
                strided = strided.behind(known_in_prompts(self.length, batch_size, self.prompts, generator))
            if family == "one by one":
                return strided.one_by_one()
            if family == "cut":
                share = float(torch.rand((), generator=seeded(self.seed, step, CUTS)))  # the same for all processes
                return cut_blocks(strided, share, batch_size=batch_size, generator=generator)
            return strided
        if family == "infilling":
            return GenerationOrder.infilling(known_around_spans(self.length, batch_size, generator))
        count = self.length if family == "random" else self.n_shuffled(step) if step < self.i_strided else self.rho
        return GenerationOrder.shuffled(self.length, count, batch_size=batch_size, generator=generator)


def weighed(family: str) -> tuple[str, float]:
    """A family of orders and its weight in a mixture, as a terminal is told them.

    Raises:
        ValueError: if no number follows an equals sign.

    >>> weighed("one by one=2")
    ('one by one', 2.0)
    """
    name, _, weight = family.partition("=")
    try:
        return name, float(weight)
    except ValueError:
        raise ValueError(f"orders={family!r} is no family with its weight; write --orders 'strided=2'") from None


def cut_blocks(
    order: GenerationOrder, share: float, *, batch_size: int, generator: torch.Generator | None = None
) -> GenerationOrder:
    """Cut blocks at random: of tokens that were made together, some now wait for the others, as behind a gate.

    Args:
        order: of all rows, or of each.
        share: chance of a cut at each place between two tokens of a block; 0 cuts none, 1 all.
        batch_size: number of independent rows B; in each, any tokens of a block may be those that wait.
        generator: source of chance, on the CPU; None for torch's global one.

    Raises:
        ValueError: if `share` is not from 0 to 1.

    >>> order = GenerationOrder.strided(8, 4)
    >>> cut_blocks(order, 0.0, batch_size=1).n_blocks, cut_blocks(order, 1.0, batch_size=1).n_blocks
    (5, 8)
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share={share} must be from 0 (no cuts) to 1 (every token alone)")
    blocks = order.blocks.expand(batch_size, -1)
    # blocks are whole numbers, so a key below 1 shuffles within them only
    shuffled = (blocks + torch.rand(blocks.shape, dtype=torch.float64, generator=generator)).argsort(-1)
    positions = order.positions.expand(batch_size, -1).gather(-1, shuffled)
    is_cut = torch.rand(blocks.shape, dtype=torch.float64, generator=generator)[:, 1:] < share
    starts = (blocks.diff(dim=-1) == 1) | is_cut
    return GenerationOrder(positions, F.pad(starts.cumsum(-1), (1, 0)))


def known_in_prompts(length: int, batch_size: int, share: float, generator: torch.Generator) -> Tensor:
    """What is given behind prompts of 1 to N/2 tokens; a short one is likelier than a long one.

    The length is N/2 times the square of a number drawn evenly from 0 to 1: one in two is below N/8.

    Args:
        length: number of text positions N.
        batch_size: number of rows B.
        share: chance of each row that it has a prompt.
        generator: source of chance, on the CPU.

    Returns:
        bool (B, N), True where the token is given.
    """
    drawn, chance = torch.rand(2, batch_size, generator=generator, dtype=torch.float64)
    lengths = (1 + drawn.square() * (length // 2)).long() * (chance < share)
    return torch.arange(length) < lengths.unsqueeze(-1)


def known_around_spans(length: int, batch_size: int, generator: torch.Generator) -> Tensor:
    """What is given when one to three spans are to be filled, together an eighth to a half of the text.

    Less than that where they overlap.

    Args:
        length: number of text positions N.
        batch_size: number of rows B.
        generator: source of chance, on the CPU.

    Returns:
        bool (B, N), True where the token is given; spans may meet or overlap, and at least one position is open.
    """
    known = torch.ones(batch_size, length, dtype=torch.bool)
    for row in known:
        n_spans = int(torch.randint(1, 4, (), generator=generator))
        share = 0.125 + 0.375 * float(torch.rand((), generator=generator))
        size = max(1, round(share * length / n_spans))
        for start in torch.randint(max(1, length - size + 1), (n_spans,), generator=generator).tolist():
            row[start : start + size] = False
    return known
