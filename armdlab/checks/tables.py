"""Is what you wrote about the tables' numbers right, and if not, which mistake is it? (judges of lesson 08)"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence

from armdlab.checks import Verdict, call

# Texts of different lengths and prices: each way to average gives another number
TEXTS = ([0.5, 0.1], [2.0], [0.2, 0.3, 0.4, 0.1, 0.3, 0.2])
# Tokens that repeat inside a sample, that one sample has and another has not, and samples of several lengths
SAMPLES = ([3, 3, 3, 7], [1, 2, 3, 4, 1, 2], [5, 5, 5, 5, 5])
SAME = 1e-6  # relative


def perplexity(function: Callable[[list[list[float]]], float]) -> Verdict:
    """Judge the perplexity of a corpus: a number, from the nats of each token of each text."""
    found, trouble = _number(function, [list(text) for text in TEXTS])
    if trouble:
        return trouble
    total, count = sum(map(sum, TEXTS)), sum(map(len, TEXTS))
    right, means = math.exp(total / count), [sum(text) / len(text) for text in TEXTS]
    if _is(found, right):
        return Verdict(
            True, f"{len(TEXTS)} texts of {count} tokens: exp of {total / count:.4f} nats a token, {right:.4f}"
        )
    mistakes = {
        math.exp(_mean(means)): "you take the mean of the texts' means, so a text of one token counts as much as "
        "one of six; divide the sum of all nats by the number of all tokens",
        _mean([math.exp(mean) for mean in means]): "you take the mean of the texts' perplexities; exp bends upwards, "
        "so dear texts rule it. Take the mean of the nats first, over all tokens, then exp, once",
        _mean([math.exp(nats) for text in TEXTS for nats in text]): "you take exp of each token's nats, then the mean; "
        "take the mean first, then exp, once",
        2 ** (total / count): "you take 2 to the power of nats; nats are natural logarithms, so it is exp",
        math.exp(total): "you do not divide by the number of tokens",
        total / count: "that is nats a token; perplexity is exp of it",
        math.exp(-total / count): "your sign is turned: nats are -log p already, and perplexity is never below 1",
        math.exp(total / len(TEXTS)): f"you divide by the {len(TEXTS)} texts; divide by their {count} tokens",
    }
    return _named(found, mistakes, f"the perplexity of these texts is {right:.4f}; yours is {found:.4f}")


def entropy_of_samples(function: Callable[[list[list[int]]], tuple[float, float]]) -> Verdict:
    """Judge the entropy of samples: (nats, bits), of the frequencies inside a sample, mean over samples."""
    pair, trouble = call(function, [list(sample) for sample in SAMPLES])
    if trouble:
        return trouble
    numbers = _as_numbers(pair)
    if numbers is None or len(numbers) != 2:
        return Verdict(False, f"return two numbers, entropy in nats and in bits; yours is {pair!r}")
    nats, bits = numbers
    right = _mean([_entropy(sample) for sample in SAMPLES])
    if _is(nats, right) and _is(bits, right / math.log(2)):
        return Verdict(True, f"{right:.4f} nats are {right / math.log(2):.4f} bits, mean over {len(SAMPLES)} samples")
    if _is(bits, right) and _is(nats, right / math.log(2)):
        return Verdict(False, "your two numbers are swapped: a bit is less than a nat, so there are more of them")
    if _is(nats, right) and _is(bits, right * math.log(2)):
        return Verdict(False, "you multiply by ln 2; a bit is 0.693 nats, so divide: there are more bits than nats")
    mistakes = {
        _entropy([token for sample in SAMPLES for token in sample]): "you count the tokens of all samples together; a "
        "model that writes one word a sample would look rich. Take each sample's own entropy, then the mean",
        math.fsum(len(sample) * _entropy(sample) for sample in SAMPLES)
        / sum(map(len, SAMPLES)): "you weight samples by their length; each sample counts once",
        right / math.log(2): "your first number is in bits; use the natural logarithm for nats",
        -right: "your entropy is negative; it is MINUS the sum of share times log share",
        _mean(
            [_entropy(sample) / len(set(sample)) for sample in SAMPLES]
        ): "you take the mean over kinds; sum over them",
        sum(map(_entropy, SAMPLES)): "you sum over the samples; take their mean",
    }
    wanted = (
        f"the samples have {right:.4f} nats and {right / math.log(2):.4f} bits; yours are {nats:.4f} and {bits:.4f}"
    )
    return _named(nats, mistakes, wanted)


def _number(function: Callable[..., object], *given: object) -> tuple[float, Verdict | None]:
    result, trouble = call(function, *given)
    numbers = None if trouble else _as_numbers([result])
    if numbers is None:
        return math.nan, trouble or Verdict(False, f"return one number; yours is {result!r}")
    return numbers[0], None


def _as_numbers(values: object) -> list[float] | None:
    try:
        return [float(value) for value in values]
    except (TypeError, ValueError, RuntimeError):
        return None


def _named(found: float, mistakes: dict[float, str], otherwise: str) -> Verdict:
    return Verdict(False, next((said for value, said in mistakes.items() if _is(found, value)), otherwise))


def _is(found: float, wanted: float) -> bool:
    return math.isclose(found, wanted, rel_tol=SAME)


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _entropy(sample: Sequence[int]) -> float:
    shares = [count / len(sample) for count in Counter(sample).values()]
    return -math.fsum(share * math.log(share) for share in shares)
