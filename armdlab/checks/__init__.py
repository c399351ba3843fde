"""Is what you wrote right, and if not, which mistake is it? (the exercises' judges)

A judge calls the learner's function on inputs on which typical mistakes cannot pass, goes from shape to single cells,
and names the first mistake that it finds. It never raises: an error in the learner's code becomes a sentence, too.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import torch
from torch import Tensor

from armdlab.masks import causal_mask, strictly_causal_mask
from armdlab.orders import GenerationOrder


@dataclass(frozen=True)
class Verdict:
    """What a judge found.

    Args:
        passed: whether every law held.
        sentence: what was checked, or which mistake was found and how to see it.
    """

    passed: bool
    sentence: str

    def __repr__(self) -> str:
        return f"{'passed' if self.passed else 'not yet'}: {self.sentence}"

    def _repr_html_(self) -> str:
        """For a notebook, which breaks plain text in the middle of words."""
        return f"<p>{escape(repr(self))}</p>"


# Ties, a position that is masked alone, and times whose order is not that of the positions
TIMES = ([2, 3, 1, 3, 2, 1], [1, 2, 3], [4, 4, 4, 4], [3, 1, 4, 1, 5])


def order_from_masking(function: Callable[[list[int]], list[list[int]]]) -> Verdict:
    """Judge a function that turns masking times tau into steps of positions, made together, in the order of making."""
    for times in TIMES:
        steps, trouble = call(function, list(times))
        if trouble:
            return trouble
        fault = _order_fault(times, steps)
        if fault:
            return Verdict(False, fault)
    return Verdict(True, f"4 of 4 masking processes become the right order: {', '.join(map(str, TIMES))}")


def masks(function: Callable[[Tensor], tuple[Tensor, Tensor]]) -> Verdict:
    """Judge a function that turns the block of each rank, int64 (N,), into M^c and M^sc, both bool (N, N)."""
    for order in (GenerationOrder.strided(6, 2), GenerationOrder.blockwise(5, 3), GenerationOrder.left_to_right(3)):
        blocks = order.blocks
        pair, trouble = call(function, blocks.clone())
        if trouble:
            return trouble
        if not (isinstance(pair, list | tuple) and len(pair) == 2 and all(isinstance(mask, Tensor) for mask in pair)):
            members = f" of {', '.join(type(m).__name__ for m in pair)}" if isinstance(pair, list | tuple) else ""
            return Verdict(False, f"return two tensors, M^c and M^sc; yours is {type(pair).__name__}{members}")
        wanted = {"M^c": causal_mask(order), "M^sc": strictly_causal_mask(order)}
        if all(mask.dtype == torch.bool for mask in pair) and all(map(torch.equal, pair, [*wanted.values()][::-1])):
            return Verdict(False, "your two masks are swapped: return M^c, which has <=, first, and M^sc second")
        for (name, expected), found in zip(wanted.items(), pair, strict=True):
            fault = _mask_fault(name, found, expected, blocks)
            if fault:
                return Verdict(False, fault)
    return Verdict(True, "6 of 6 masks are right: two for each of a strided, a blockwise and a left-to-right order")


def leaks(changes: Tensor, order: GenerationOrder, *, wanted: int) -> Verdict:
    """Judge whether an order makes a model leak in so many cells.

    Args:
        changes: float (N, N), how far each output moves at [changed token, output], as `figures.leak_matrix` gives it.
        order: the learner's order, without a batch axis.
        wanted: number of leaking cells.
    """
    found = int((changes > 0)[~strictly_causal_mask(order, in_text_order=True).T].sum())
    if found == wanted:
        return Verdict(True, f"{order} leaks in exactly {wanted} cells")
    sizes = torch.bincount(order.blocks).tolist()
    more = "larger" if found < wanted else "smaller"
    return Verdict(False, f"your blocks of sizes {sizes} leak in {found} cells, not in {wanted}; try {more} blocks")


def _order_fault(times: Sequence[int], steps: object) -> str | None:
    where, N = f"for times {times}", len(times)
    found = as_steps(steps)
    if found is None:
        return f"{where} a list of lists of positions is wanted; yours is {steps!r}"
    expected = [step.tolist() for step in GenerationOrder.from_masking_times(times).steps()]
    if found == expected:
        return None
    if [] in found:
        return f"{where} a step of yours is empty, {found}; every step makes at least one position"
    made = sorted(position for step in found for position in step)
    if made == list(range(1, N + 1)):
        return f"{where} your positions run from 1 to {N}; count them from 0, as Python does"
    if made != list(range(N)):
        return f"{where} every position 0 to {N - 1} must appear once; found {found}"
    if found == expected[::-1]:
        return (
            f"your order is reversed: {where} it begins with {found[0]}, which was masked first; "
            "what was masked LAST is generated first"
        )
    step_of = {position: number for number, step in enumerate(found) for position in step}
    split = ((step[0], b) for step in expected for b in step if step_of[b] != step_of[step[0]])
    for a, b in split:
        return f"ties are split: {where} positions {a} and {b} were masked at the same step, so they must share a block"
    for step in found:
        a, b = min(step, key=lambda j: times[j]), max(step, key=lambda j: times[j])
        if times[a] != times[b]:
            return (
                f"steps are merged: {where} you make positions {a} and {b} together, "
                f"but they were masked at steps {times[a]} and {times[b]}"
            )
    return f"{where} the steps should be {expected}; yours are {found}"


def as_steps(steps: object) -> list[list[int]] | None:
    """Steps of whole numbers, sorted inside each step; None where it is anything else."""
    if not isinstance(steps, list | tuple):
        return None
    try:
        return [sorted(operator.index(position) for position in step) for step in steps]
    except Exception:  # what a learner returns may hold anything
        return None


def _mask_fault(name: str, found: Tensor, expected: Tensor, blocks: Tensor) -> str | None:
    where = f"for blocks {blocks.tolist()}"
    if found.shape != expected.shape:
        return f"{where} {name} has shape {tuple(found.shape)}; it should be {tuple(expected.shape)}, a row a token"
    if found.dtype != torch.bool:
        return f"{where} {name} holds {found.dtype}; compare block numbers, and you get booleans"
    if torch.equal(found, expected):
        return None
    if torch.equal(found, expected.T):
        return (
            f"{where} {name} is transposed: row n says what token n may SEE, so compare the key's block with the row's"
        )
    n, i = (found != expected).nonzero()[0].tolist()
    if name == "M^c" and torch.equal(found, blocks[None, :] < blocks[:, None]):
        return f"{where} you used < where M^c needs <=: token {n} cannot see token {i} of its own block"
    if name == "M^sc" and torch.equal(found, blocks[None, :] <= blocks[:, None]):
        return f"{where} you used <= where M^sc needs <: token {n} sees token {i} of its own block, which is a leak"
    if torch.equal(found, torch.ones_like(found).tril(0 if name == "M^c" else -1)):
        return f"{where} {name} is the plain triangle: token {n} and token {i} are compared by rank, not by block"
    verb = "may" if expected[n, i] else "may not"
    return f"{where} token {n} {verb} see token {i} in {name}, since their blocks are {blocks[n]} and {blocks[i]}"


def call(function: Callable, *arguments: object) -> tuple[Any, Verdict | None]:
    """Run the learner's function; an error or an unfilled stub becomes a verdict."""
    try:
        result = function(*arguments)
    except Exception as error:  # a learner's code may raise anything
        given = ", ".join(map(_said, arguments))
        reason = f"{type(error).__name__}: {error}"
        return None, Verdict(False, f"your function stopped with {reason}; it was called with {given}")
    if result is None or result is ...:
        return None, Verdict(False, "nothing is returned: fill in the stub above, run it, then run this cell again")
    return result, None


def in_words(found: object) -> str:
    """The kind of thing that a learner returned, where another was wanted."""
    return f"a tensor of shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__


def as_number(found: object) -> float | None:
    """What a learner returned as one number; None where it is anything else."""
    try:
        return float(found)
    except (TypeError, ValueError, RuntimeError):  # the last from a tensor of several
        return None


def _said(argument: object) -> str:
    """An argument in a few words: a large tensor's type and shape, a long list's length, a model's name."""
    if isinstance(argument, Tensor) and argument.numel() > 12:
        return f"a tensor of {argument.dtype} and shape {tuple(argument.shape)}"
    if isinstance(argument, list) and len(argument) > 12:
        return f"a list of {len(argument)}"
    return type(argument).__name__ if isinstance(argument, torch.nn.Module) else repr(argument)
