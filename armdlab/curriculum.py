"""At this step of training, which orders does the model learn? (ARMD, sections 3.2 and 4)

First to read, then to jump, then to write in parallel: left to right, then a growing number of shuffled tokens
(progressive permutation), then strided blocks.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from armdlab.orders import GenerationOrder


@dataclass(frozen=True)
class Curriculum:
    """Progressive permutation and strided fine-tuning, as a pure function of the step and the seed.

    Because nothing else enters, a resumed run and a run of several processes see the same orders.

    Args:
        length: tokens in a training row, N.
        i_ar: steps of pure left-to-right training, i_AR.
        i_perm: step from which the number of shuffled tokens stays at `rho`.
        i_strided: step from which rows are strided blocks; a step past the end of training means never.
        rho: number of shuffled tokens at the end of the ramp, at most `length`.
        streams: numbers of streams S, one of which is drawn at every strided step; each divides `length`.
        seed: of all draws.

    Raises:
        ValueError: if the steps are out of order, `rho` exceeds `length`, or a number of streams does not divide it.
    """

    length: int
    i_ar: int
    i_perm: int
    i_strided: int
    rho: int
    streams: tuple[int, ...] = (1, 2, 4)
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse a curriculum that no training could follow."""
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

    @classmethod
    def for_steps(cls, steps: int, length: int, *, streams: tuple[int, ...] | None = None, seed: int = 0) -> Curriculum:
        """Spread the three lessons over a number of steps.

        The proportions are near those of the paper on OpenWebText (9K of 180K steps left to right, full shuffling from
        48K, up to 80K more strided), with more room at the start, which short runs need. rho is the paper's 32 of 1024.

        Args:
            steps: optimiser steps of the whole training.
            length: tokens in a training row, N.
            streams: as in `Curriculum`; None for those of 1, 2 and 4 that divide `length`.
            seed: of all draws.
        """
        if streams is None:
            streams = tuple(s for s in (1, 2, 4) if length % s == 0)
        marks = (round(share * steps) for share in (0.15, 0.40, 0.70))
        return cls(length, *marks, rho=min(length, max(2, length // 32)), streams=streams, seed=seed)

    def phase(self, step: int) -> str:
        """Name what is learnt at a step: "left to right", "shuffled" or "strided"."""
        if step >= self.i_strided:
            return "strided"
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

    def order(self, step: int, batch_size: int, *, process: int = 0) -> GenerationOrder:
        """The order of one training step.

        Args:
            step: optimiser step, from 0.
            batch_size: number of rows B.
            process: rank of the process, so that each draws shuffles of its own (all draw the same S).

        Returns:
            One order for all rows, or one for each where they are shuffled.
        """
        if step >= self.i_strided:
            generator = seeded(self.seed, step)
            pick = int(torch.randint(len(self.streams), (), generator=generator))
            return GenerationOrder.strided(self.length, self.streams[pick])
        count = self.n_shuffled(step)
        if count == 0:
            return GenerationOrder.left_to_right(self.length)
        generator = seeded(self.seed, step, process)
        return GenerationOrder.shuffled(self.length, count, batch_size=batch_size, generator=generator)


def seeded(*numbers: int) -> torch.Generator:
    """A CPU generator whose stream depends on all of the numbers, and on nothing else.

    >>> int(torch.randint(100, (), generator=seeded(1, 2))) == int(torch.randint(100, (), generator=seeded(1, 2)))
    True
    """
    state = 0
    for number in numbers:  # splitmix64: neighbouring steps get streams that have nothing in common
        state = (state ^ number) + 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF
        state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
        state = (state ^ state >> 27) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
        state ^= state >> 31
    return torch.Generator().manual_seed(state >> 1)
