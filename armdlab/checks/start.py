"""Is the list of steps that you wrote by hand right, and if not, which mistake is it? (judge of lesson 00)"""

from __future__ import annotations

from armdlab.checks import Verdict, as_steps, call
from armdlab.orders import GenerationOrder

LENGTH, STREAMS = 6, 2


def steps_by_hand(steps: object) -> Verdict:
    """Judge the steps of six words in two streams: a list of lists of positions, in the order of making."""
    steps, trouble = call(lambda: steps)
    if trouble:
        return trouble
    found = as_steps(steps)
    if found is None:
        return Verdict(
            False, f"write a list of steps, each a list of positions, such as [[0], [1, 2]]; yours is {steps!r}"
        )
    fault = _fault(found)
    if fault:
        return Verdict(False, fault)
    return Verdict(True, f"{len(found)} of {len(found)} steps are right: two heads one by one, then two pairs")


def _fault(found: list[list[int]]) -> str | None:
    right = [step.tolist() for step in GenerationOrder.strided(LENGTH, STREAMS).steps()]
    if found == right:
        return None
    made = sorted(position for step in found for position in step)
    if made == list(range(1, LENGTH + 1)):
        return f"your positions run from 1 to {LENGTH}; count them from 0, as Python does"
    if made != list(range(LENGTH)):
        return f"every position 0 to {LENGTH - 1} is made once, and by one step; yours are {made}"
    if [] in found:
        return "a step of yours is empty; every step makes at least one position"
    if found[0] == [0, 3]:
        return "your two heads are made together, from nothing; heads are made one by one, so step 1 makes 0 alone"
    if all(len(step) == 1 for step in found):
        return (
            f"you take {len(found)} steps, one for each token; after the heads a step makes one token of EACH stream, "
            "so two at once"
        )
    for step in found:
        neighbours = [(a, b) for a in step for b in step if a < b and a // 3 == b // 3]
        for a, b in neighbours:
            return (
                f"you make {a} and {b} in one step, and both are in stream {a // 3 + 1}; a step makes one token of each"
            )
    if found[:STREAMS] != right[:STREAMS]:
        return "heads come first, stream by stream: step 1 makes 0 and step 2 makes 3; only then do streams go on"
    at = next(i for i, (a, b) in enumerate(zip(found, right, strict=False)) if a != b)
    return f"step {at + 1} makes {right[at]}: in a stream, tokens come left to right; yours makes {found[at]}"
