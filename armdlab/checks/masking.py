"""Is what you wrote about orders and masks right, and if not, which mistake is it? (judges of lesson 01)"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from armdlab.checks import Verdict, as_steps, call
from armdlab.masks import causal_mask, strictly_causal_mask
from armdlab.orders import GenerationOrder

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
