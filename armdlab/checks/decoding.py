"""Is what you wrote about decoding in streams right, and if not, which mistake is it? (judges of lesson 05)"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from armdlab.checks import Verdict, call
from armdlab.orders import GenerationOrder

SHAPES = ((8, 2), (12, 4), (12, 3), (6, 1), (5, 5))  # (length, streams)


def strided_order(function: Callable[[int, int], tuple[Any, Any]]) -> Verdict:
    """Judge the strided order: positions and blocks, N whole numbers each by rank, from (length, streams)."""
    for N, S in SHAPES:
        pair, trouble = call(function, N, S)
        if trouble:
            return trouble
        fault = _pair_fault(pair, ("positions", "blocks")) or _strided_fault(*map(_listed, pair), N, S)
        if fault:
            return Verdict(False, f"for N = {N}, S = {S}: {fault}")
    shapes = ", ".join(f"{N} in {S}" for N, S in SHAPES)
    return Verdict(True, f"{len(SHAPES)} of {len(SHAPES)} orders are right, positions and blocks: {shapes}")


def rows_of_a_call(function: Callable[[list[list[int]], int], tuple[Any, Any]]) -> Verdict:
    """Judge the new rows of call k of a cached run: evidence and targets, text positions, from (steps, k).

    `steps` lists the positions that each call makes, in the order of the calls; BOS is not asked for.
    """
    n_calls = 0
    for N, S in ((8, 2), (12, 4), (5, 1)):
        steps = [step.tolist() for step in GenerationOrder.strided(N, S).steps()]
        for k in range(len(steps)):
            pair, trouble = call(function, [list(step) for step in steps], k)
            if trouble:
                return trouble
            fault = _pair_fault(pair, ("evidence", "targets")) or _rows_fault(*map(_listed, pair), steps, k)
            if fault:
                return Verdict(False, f"N = {N}, S = {S}, call {k}: {fault}")
            n_calls += 1
    return Verdict(True, f"{n_calls} of {n_calls} calls of 3 orders take in the right rows and give out the right ones")


def _listed(numbers: Tensor | list[int] | tuple[int, ...]) -> list[int]:
    return [int(number) for number in numbers]


def _pair_fault(pair: object, names: tuple[str, str]) -> str | None:
    wanted = f"return two lists, {names[0]} and {names[1]}"
    if not isinstance(pair, list | tuple) or len(pair) != 2:
        return f"{wanted}; yours is {pair!r}"
    for name, numbers in zip(names, pair, strict=True):
        try:
            is_whole = all(int(number) == number for number in numbers)
        except (TypeError, ValueError):
            is_whole = False
        if not is_whole:
            return f"{wanted} of whole numbers; your {name} are {numbers!r}"
    return None


def _strided_fault(positions: list[int], blocks: list[int], length: int, streams: int) -> str | None:
    order = GenerationOrder.strided(length, streams)
    right_positions, right_blocks, lane = order.positions.tolist(), order.blocks.tolist(), length // streams
    if len(positions) != length or len(blocks) != length:
        return f"{length} positions and {length} blocks are wanted; yours are {len(positions)} and {len(blocks)}"
    if sorted(positions) == list(range(1, length + 1)):
        return "your positions count from 1; count them from 0, as Python does"
    if sorted(positions) != list(range(length)):
        return f"every position 0 to {length - 1} must appear once; yours are {positions}"
    if positions != right_positions:
        if positions == list(range(length)):
            return (
                "you go through the text left to right, so what is made together are neighbours, which need each other "
                f"most; stream s starts at s * N/S, so rank 1 is position {lane}"
            )
        at = next(i for i, (a, b) in enumerate(zip(positions, right_positions, strict=True)) if a != b)
        return f"rank {at} is position {right_positions[at]}; yours is {positions[at]}, in {positions}"
    if blocks == right_blocks:
        return None
    if blocks == [rank // streams for rank in range(length)]:
        return (
            f"your {streams} heads share block 0, so they are drawn from nothing and know nothing of each other; heads "
            f"are made one by one, in blocks 0 to {streams - 1}"
        )
    if blocks == list(range(length)):
        return f"every token has a block of its own, {length} steps; behind the heads {streams} tokens share one"
    if blocks == [max(0, rank // streams - 1) for rank in range(length)]:
        return "heads and the tokens behind them share a block; a head must be known before its stream goes on"
    at = next(i for i, (a, b) in enumerate(zip(blocks, right_blocks, strict=True)) if a != b)
    return f"rank {at}, position {positions[at]}, is in block {right_blocks[at]}; yours is {blocks[at]}, in {blocks}"


def _rows_fault(evidence: list[int], targets: list[int], steps: list[list[int]], k: int) -> str | None:
    right = steps[k - 1] if k else []
    if (sorted(evidence), sorted(targets)) == (sorted(right), sorted(steps[k])):
        return None
    if (sorted(targets), sorted(evidence)) == (sorted(right), sorted(steps[k])):
        return "your two lists are swapped: return evidence, what is known and goes in, first"
    if sorted(targets) != sorted(steps[k]):
        return f"the targets are what this call makes, {steps[k]}; yours are {targets}"
    if set(evidence) & set(steps[k]):
        seen = sorted(set(evidence) & set(steps[k]))
        return f"the evidence holds position {seen[0]}, which this very call is to make: its token is not known yet"
    if not k:
        return f"before call 0 nothing is known but BOS, so no token goes in; yours are {evidence}"
    if sorted(evidence) == sorted(p for step in steps[:k] for p in step):
        return (
            f"{evidence} all go in again; the cache holds what earlier calls took in, so only what the last call made "
            f"is new, {right}"
        )
    if set(evidence) < set(right):
        left_out = sorted(set(right) - set(evidence))
        return f"positions {left_out} were made by the last call too, and no later call will take them in"
    return f"the evidence is what the last call made, {right}; yours is {evidence}"
