"""Is what you wrote about tales right, and if not, which mistake is it? (judges of the lesson on tales)"""

from __future__ import annotations

import math
from collections.abc import Callable
from difflib import SequenceMatcher

from armdlab import tales
from armdlab.checks import Verdict, as_number, call


def nats_of_choices(function: Callable[[list[float]], float]) -> Verdict:
    """Judge a function that turns the probabilities of a tale's choices into its nats, -log p."""
    for seed in (7, 11, 2026):
        tale = tales.sample(seed)
        probabilities = [choice.probability for choice in tale.derivation]
        returned, trouble = call(function, list(probabilities))
        if trouble:
            return trouble
        found = as_number(returned)
        if found is None:
            return Verdict(False, f"a number of nats is wanted; yours is {returned!r}")
        nats, mistakes = -tale.log_prob, f"for the {len(probabilities)} choices of tale {seed} "
        named = {
            "yours is log p, below 0; nats count how surprising a tale is, so turn the sign": -nats,
            "yours is in bits; divide by ln 2 only if bits are asked for": nats / math.log(2),
            "yours is in digits, to the base 10; take the natural logarithm": nats / math.log(10),
            "yours is the probability itself; take its logarithm, and turn the sign": math.exp(-nats),
            "yours is the mean over the choices; a tale pays for all of them, so sum": nats / len(probabilities),
            "yours adds the probabilities before it takes the logarithm; chances of choices made one after another "
            "multiply, so their logarithms add": -math.log(sum(probabilities)),
        }
        for sentence, value in named.items():
            if math.isclose(found, value, rel_tol=1e-6):
                return Verdict(False, mistakes + sentence)
        if not math.isclose(found, nats, rel_tol=1e-6):  # torch may have computed in float32
            return Verdict(False, f"{mistakes}-log p is {nats:.4f}; yours is {found:.4f}")
    return Verdict(True, "3 of 3 tales cost what the grammar says: 7, 11 and 2026")


def broken_tale(text: str, seed: int, *, kind: str, at_least: int) -> Verdict:
    """Judge a text: it should still parse, and contradict itself in one agreement, over so many words.

    Args:
        text: what the learner made of the tale.
        seed: which tale it was.
        kind: of the agreement to break.
        at_least: words between the two mentions.
    """
    told = tales.sample(seed).text
    if text == told:
        return Verdict(False, "the tale is as it was told; change one word of it")
    reading = tales.load_grammar().read(text)
    if not reading.parses:
        return Verdict(False, f"{reading.violations[-1].sentence}; change a word into another that could stand there")
    if reading.is_consistent:
        return Verdict(False, "this is another tale, and all of it agrees; change a word that an earlier one settled")
    violation = reading.violations[0]
    if len(reading.violations) > 1:
        return Verdict(False, f"{len(reading.violations)} agreements are broken; break one: {violation.sentence}")
    if violation.kind != kind:
        return Verdict(False, f"you broke an agreement of kind {violation.kind}, not {kind}: {violation.sentence}")
    if violation.distance is None:
        return Verdict(
            False,
            f"{violation.sentence}, and no other word says so; leave the first mention as it was, change a later one",
        )
    if violation.distance < at_least:
        return Verdict(
            False, f"the two mentions are {violation.distance} words apart; break one over {at_least} or more"
        )
    if _n_changed(told, text) > 2:
        return Verdict(False, f"your text is another one than tale {seed}; change a word or two of that and no more")
    return Verdict(True, f"check finds it, {violation.distance} words after what settled it: {violation.sentence}")


def _n_changed(told: str, text: str) -> int:
    """How many words of a tale became others, came in or went."""
    matcher = SequenceMatcher(a=told.split(), b=text.split(), autojunk=False)
    return sum(max(i1 - i0, j1 - j0) for kind, i0, i1, j0, j1 in matcher.get_opcodes() if kind != "equal")
