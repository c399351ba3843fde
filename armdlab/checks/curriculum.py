"""Is what you wrote about the curriculum right, and if not, which mistake is it? (judges of lesson 04)"""

from __future__ import annotations

import operator
from collections.abc import Callable

import torch
from torch import Tensor

from armdlab.checks import Verdict, call
from armdlab.curriculum import Curriculum

RAMPS = ((10, 40, 8), (0, 6, 3), (5, 105, 1), (20, 20, 4), (7, 8, 4), (3, 50, 0))  # (i_AR, i_perm, rho)


def ramp(function: Callable[[int, int, int, int], int]) -> Verdict:
    """Judge the number of shuffled tokens, int, from (step, i_ar, i_perm, rho)."""
    for i_ar, i_perm, rho in RAMPS:
        plan = Curriculum(64, i_ar, i_perm, i_perm, rho=rho)
        for step in range(i_perm + 20):
            found, trouble = call(function, step, i_ar, i_perm, rho)
            if trouble:
                return trouble
            fault = _ramp_fault(found, step, plan)
            if fault:
                return Verdict(False, f"for i_AR = {i_ar}, i_perm = {i_perm}, rho = {rho}: {fault}")
    return Verdict(True, f"{len(RAMPS)} of {len(RAMPS)} ramps are right at every step, steep, flat and empty ones")


def shuffled_order(function: Callable[[int, int, torch.Generator], Tensor]) -> Verdict:
    """Judge a partly shuffled order: int64 positions (N,), from (length, count, generator)."""
    for N, count in ((9, 3), (8, 0), (6, 6), (12, 2)):
        drawn = []
        for seed in range(300):
            found, trouble = call(function, N, count, torch.Generator().manual_seed(seed))
            fault = trouble.sentence if trouble else _order_fault(found, N, count)
            if fault:
                return Verdict(False, fault)
            drawn.append(found)
        again, _ = call(function, N, count, torch.Generator().manual_seed(0))
        fault = _chance_fault(torch.stack(drawn), again, N, count)
        if fault:
            return Verdict(False, fault)
    return Verdict(
        True, "4 of 4 kinds of orders are right in 300 draws each: 3 of 9, 0 of 8, 6 of 6 and 2 of 12 shuffled"
    )


def _ramp_fault(found: object, step: int, plan: Curriculum) -> str | None:
    right = plan.n_shuffled(step)
    try:
        found = operator.index(found)
    except TypeError:
        return f"at step {step} a whole number is wanted; yours is {found!r}"
    if found == right:
        return None
    late = plan.rho and plan.i_ar < step < plan.i_perm
    if step < plan.i_ar:
        return f"at step {step} the order is left to right, so 0 tokens are shuffled; yours is {found}"
    if not plan.rho:
        return f"at step {step} rho is 0, so no token is ever shuffled; yours is {found}"
    if step >= plan.i_perm and found > plan.rho:
        return f"at step {step} the ramp is over and {plan.rho} tokens are shuffled; yours grows on, to {found}"
    if step == plan.i_ar and found == 0:
        return f"at step {step} the first token is shuffled, so the ramp starts from 1; yours starts from 0"
    if step < plan.i_perm and found == plan.rho:
        return f"at step {step} there is a ramp, and {right} of {plan.rho} tokens are shuffled; yours is at rho already"
    if late and found == 1 + (plan.rho - 1) * (step - plan.i_ar) // (plan.i_perm - plan.i_ar):
        return (
            f"at step {step} yours is {found}, not {right}: the ramp has i_perm - i_AR - 1 intervals, and ends at rho"
        )
    return f"at step {step} {right} tokens are shuffled; yours is {found}"


def _order_fault(found: object, length: int, count: int) -> str | None:
    where = f"for {count} of {length}"
    if not isinstance(found, Tensor) or found.shape != (length,) or found.is_floating_point():
        yours = f"{found.dtype} of shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
        return f"{where} return whole numbers, a tensor of shape ({length},); yours is {yours}"
    if found.sort().values.tolist() != list(range(length)):
        return f"{where} every position 0 to {length - 1} must appear once; yours is {found.tolist()}"
    moved = int((found != torch.arange(length)).sum())
    if moved > count:
        return f"{where} at most {count} positions leave their places; in {found.tolist()} there are {moved}"
    return None


def _chance_fault(drawn: Tensor, again: Tensor, length: int, count: int) -> str | None:
    where, moved = f"for {count} of {length}", drawn != torch.arange(length)  # (draws, N)
    if count < 2:
        return None
    if not moved.any():
        return f"{where} nothing moves in 300 draws; the chosen positions must exchange their places"
    if not torch.equal(drawn[0], again):
        return f"{where} the same seed gave two orders; draw from the `generator` that is given"
    if len(drawn.unique(dim=0)) == 1:
        return f"{where} 300 seeds gave one and the same order; draw from the `generator` that is given"
    still = (~moved.any(0)).nonzero()[:, 0].tolist()
    if still:
        return f"{where} positions {still} never move in 300 draws; choose which ones exchange places at random"
    places = torch.arange(length)
    first = torch.where(moved, places, length).amin(-1)
    last = torch.where(moved, places, -1).amax(-1)
    if count < length and (last - first < count).all():
        return f"{where} those that move are always neighbours; choose them anywhere in the text"
    often = moved.sum(0).double()
    expected = float(often.mean())
    error = (expected * (1 - expected / len(drawn))) ** 0.5
    favourite = int((often - expected).abs().argmax())
    if abs(float(often[favourite]) - expected) > 5 * error:
        return (
            f"{where} position {favourite} moves {int(often[favourite])} times in {len(drawn)} draws, and the mean "
            f"position {expected:.0f} times; all choices must be equally likely"
        )
    mean = float(moved.sum(-1).double().mean())  # of a random permutation one stays in its place, on average
    if abs(mean - (count - 1)) > 0.3:  # five standard errors
        return (
            f"{where} {mean:.1f} positions move in the mean of 300 draws, and {count - 1} should: every way in which "
            "the chosen can exchange places must be equally likely, also those that leave some of them where they were"
        )
    return None
