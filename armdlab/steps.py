"""What does one step of decoding hand to whoever watches, and which texts still go on?"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from armdlab.orders import UNKNOWN


@dataclass(frozen=True)
class DecodeStep:
    """What one step of decoding made: the unknown tokens of one block, or what a gate or a judge let pass in each row.

    Args:
        positions: int64 (n,), text positions made together; (B, n) where rows have orders of their own, with -1 where
            a row made fewer tokens than another.
        tokens: int64 (B, n), what was chosen for them (or given, where only some rows knew the token).
        log_probs: float64 (B, n), nats: the model's own log-probability of each, at temperature 1, nothing truncated.
            Where a row has ended before, tokens are `end`, or what it was given there, and their log-probability is 0:
            no chance was involved.
        elapsed: seconds since decoding started; 0 where nobody took them.
        is_reading: whether finished texts were read again (`armdlab.correcting`): tokens are then what stands there
            now, new or not, and log-probabilities what they cost in that order.
        calls: of the network that a reading took: passes that read, and calls that drew anew. 1 elsewhere.
    """

    positions: Tensor
    tokens: Tensor
    log_probs: Tensor
    elapsed: float = 0.0
    is_reading: bool = False
    calls: int = 1

    def write_into(self, text: Tensor, values: Tensor | None = None) -> None:
        """Put the tokens, or other values (B, n) of theirs, in their places in (B, N)."""
        values = (self.tokens if values is None else values).to(text.device)
        positions = self.positions.to(text.device)
        if positions.dim() == 1:
            text[:, positions] = values
        else:
            row, column = (positions != UNKNOWN).nonzero(as_tuple=True)
            text[row, positions[row, column]] = values[row, column]


class Writing:
    """The texts of a run, as far as they are made, and which rows of the batch still write.

    A row is done when it holds an `end` that was made, and nothing before it is unknown.

    Args:
        tokens: int64 (B, N), -1 where a token is to be made.
        end: the token that ends a text; None where each text fills its length.
    """

    def __init__(self, tokens: Tensor, end: int | None) -> None:
        self.end, self.text, self.is_made_here = end, tokens.clone(), tokens == UNKNOWN
        self.rows: Tensor | None = None  # int64 (B',), those that still write; None for all

    def of(self, tensor: Tensor) -> Tensor:
        """What belongs to the rows that still write; what all rows share stays."""
        return tensor if self.rows is None or tensor.dim() == 1 else tensor[self.rows]

    def step(self, positions: Tensor, tokens: Tensor, log_probs: Tensor) -> DecodeStep:
        """Take down what the writing rows made, (B', n); return it for all rows."""
        if self.rows is not None:
            n_rows = len(self.text)
            if positions.dim() == 2 and len(positions) < n_rows:
                positions = _spread(positions, self.rows, n_rows, UNKNOWN)
            tokens = _spread(tokens, self.rows, n_rows, 0 if self.end is None else self.end)
            held = self.text.gather(1, positions.clamp(min=0).expand(n_rows, -1))  # rows that left may know the token
            tokens = torch.where(held == UNKNOWN, tokens, held)
            log_probs = _spread(log_probs, self.rows, n_rows, 0.0)
        made = DecodeStep(positions, tokens, log_probs)
        if self.end is not None:
            made.write_into(self.text)
        return made

    def drop_finished(self, is_full: Tensor | None = None) -> Tensor | None:
        """Find out which of the writing rows go on.

        Args:
            is_full: bool (B',), rows of which the walk itself knows that nothing is left to make.

        Returns:
            int64, indices among the rows that wrote until now; None if all of them go on.
        """
        if self.end is None and is_full is None:
            return None
        text = self.of(self.text)
        goes_on = torch.ones_like(text[:, 0], dtype=torch.bool) if is_full is None else ~is_full
        if self.end is not None:
            ended = ((text == self.end) & self.of(self.is_made_here)).cumsum(-1) > 0
            goes_on = goes_on & ((text == UNKNOWN) & ~ended).any(-1)
        if goes_on.all():
            return None
        stay = goes_on.nonzero().squeeze(-1)
        self.rows = stay if self.rows is None else self.rows[stay]
        return stay


def _spread(values: Tensor, rows: Tensor, n_rows: int, fill: float) -> Tensor:
    return values.new_full((n_rows, values.shape[1]), fill).index_copy_(0, rows.to(values.device), values)


class Timed:
    """An iterator over steps, each with the seconds since the first was asked for.

    To take them, the host waits for the device at every step. It can run ahead of it through the steps `untimed`.

    Args:
        untimed: the steps.
        device: what makes them.
    """

    def __init__(self, untimed: Iterator[DecodeStep], device: torch.device) -> None:
        self.untimed, self.device = untimed, device
        self._started: float | None = None

    def __iter__(self) -> Timed:
        return self

    def __next__(self) -> DecodeStep:
        self._started = self._started or time.perf_counter()
        return replace(next(self.untimed), elapsed=seconds_since(self._started, self.device))


def seconds_since(started: float, device: torch.device) -> float:
    """Seconds since `time.perf_counter()` was `started`, once the device has done what it was asked."""
    if device.type != "cpu":
        torch.accelerator.synchronize()  # or the seconds would be those of asking, not of doing
    return time.perf_counter() - started
