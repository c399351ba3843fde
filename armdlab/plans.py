"""What decides a training run, besides the model and the text? (rates, batches, and which order is learnt when)"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from armdlab.checkpoints import PLAN, read_json
from armdlab.counts import at_least_one, is_whole
from armdlab.curriculum import Curriculum


@dataclass(frozen=True)
class Plan:
    """Everything that decides a training run, besides the model and the text.

    Args:
        steps: optimiser steps.
        curriculum: which order is learnt at which step; its `length` is the row length N.
        batch_size: rows of each process at each step.
        micro_batch_size: rows in one pass, where a whole batch does not fit in memory; None for all. It changes
            figures by rounding; besides, dropout and what masked diffusion masks are drawn for each pass.
        learning_rate: at the top of the schedule, of AdamW.
        muon: at the top of the schedule, of Muon (Jordan et al., 2024) on the matrices of the layers; None for AdamW
            there too. 0.02 is its usual rate.
        fine_tuning: where the curriculum turns to streams the schedule starts anew, at this share of `learning_rate`;
            all of it beats a half for every number of streams, and left to right (tests/benchmarks/README.md).
        warm_up: share of the steps over which the learning rate grows; then it falls as a cosine.
        cool_down: share of its top that the learning rate ends at.
        weight_decay: on matrices only.
        beta2: share of AdamW's second moment that a step keeps. Our tables were measured with 0.95. Over thousands of
            small batches 0.999 takes from tokens that cannot be here what 0.95 leaves to them
            (tests/benchmarks/README.md).
        unlikelihood: weight of `objectives.chance_of_said` in the loss: all of it at `learning_rate`, falling as the
            rate falls, to a tenth; 0 for none. Not for masked diffusion.
        clip: largest norm of the gradient.
        seed: of batches and dropout.
        bf16: whether to compute in bfloat16 (weights stay in float32).

    Raises:
        ValueError: if a value is out of range.
    """

    steps: int
    curriculum: Curriculum
    batch_size: int = 16
    micro_batch_size: int | None = None
    learning_rate: float = 2e-3
    muon: float | None = None
    fine_tuning: float = 1.0
    warm_up: float = 0.05
    cool_down: float = 0.1
    weight_decay: float = 0.1
    beta2: float = 0.95
    unlikelihood: float = 0.0
    clip: float = 1.0
    seed: int = 0
    bf16: bool = False

    def __post_init__(self) -> None:
        """Refuse a plan that cannot be trained."""
        for name in ("steps", "batch_size"):
            object.__setattr__(self, name, at_least_one(name, getattr(self, name)))
        if self.micro_batch_size is not None and not (
            is_whole(self.micro_batch_size) and 1 <= self.micro_batch_size <= self.batch_size
        ):
            raise ValueError(
                f"micro_batch_size={self.micro_batch_size} must be from 1 to batch_size={self.batch_size}, or None"
            )
        for name, low, high in (("fine_tuning", 0, 10), ("clip", 0, 1e6)):
            if not low < getattr(self, name) <= high:
                raise ValueError(f"{name}={getattr(self, name)} must be above {low} and at most {high:g}")
        for name in ("warm_up", "cool_down", "weight_decay"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)} must be from 0 to 1")
        if not 0 <= self.unlikelihood <= 1000:
            raise ValueError(
                f"unlikelihood={self.unlikelihood} must be from 0 (none) to 1000; 100 is what was measured"
            )
        if not 0 < self.beta2 < 1:
            raise ValueError(f"beta2={self.beta2} must be above 0 and below 1; 0.95 to 0.999 are usual")
        if not 0 < self.learning_rate < 1:
            raise ValueError(f"learning_rate={self.learning_rate} must be above 0 and below 1; 2e-3 is a good start")
        if self.muon is not None and not 0 < self.muon < 1:
            raise ValueError(f"muon={self.muon} must be above 0 and below 1; 0.02 is a good start, None leaves it out")

    def rate(self, step: int) -> float:
        """The learning rate of a step: linear warm-up, then a cosine to `cool_down`; once more where streams begin.

        So what was learnt before the streams is comparable with a baseline that never learns them.
        """
        before = min(self.curriculum.i_strided, self.steps)
        if step < before or not before:
            top, first, n = self.learning_rate, 0, before or self.steps
        else:
            top, first, n = self.fine_tuning * self.learning_rate, before, self.steps - before
        rising = max(1, round(self.warm_up * n))
        if step - first < rising:
            return top * (step - first + 1) / rising
        progress = (step - first - rising) / max(1, n - rising)
        return top * (self.cool_down + (1 - self.cool_down) * (1 + math.cos(math.pi * progress)) / 2)

    def weight_of_unlikelihood(self, step: int) -> float:
        """What a step's `objectives.chance_of_said` weighs in the loss; it falls with the rate, to a tenth.

        All of it at low rates would cost nats that the end of a run should win; none at all would give back what it
        has taught (tests/benchmarks/README.md).
        """
        return self.unlikelihood * max(0.1, self.rate(step) / self.learning_rate)


def load_plan(folder: str | Path) -> Plan:
    """Read the plan of a saved training.

    Raises:
        FileNotFoundError: if the folder holds none.
        ValueError: if the file is torn, or was written by another version.
    """
    path = Path(folder) / PLAN
    read = read_json(path)
    try:
        saved = dict(read["plan"])
        curriculum = saved.pop("curriculum")
        curriculum["streams"], curriculum["mixture"] = (
            tuple(curriculum["streams"]),
            tuple(map(tuple, curriculum["mixture"])),
        )
        return Plan(curriculum=Curriculum(**curriculum), **saved)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} is no plan that this version knows ({error}); train again into another folder"
        ) from None
