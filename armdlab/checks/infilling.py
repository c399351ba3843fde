"""Is what you wrote about gaps and their prices right, and if not, which mistake is it? (judges of lesson 07)"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from armdlab.checks import Verdict, as_number, call, in_words

# Gaps at the front, in the middle and at the end; one and several; and known tokens on both sides of a gap
KNOWN = (
    (True, False, False, True, False, True),
    (False, True, True, False),
    (True, True, False, True, True, True, False),
    (False, False, True),
)


def infilling_positions(function: Callable[[list[bool]], Sequence[int]]) -> Verdict:
    """Judge the order of infilling: N text positions by rank, from a list of N booleans, True where known."""
    for known in KNOWN:
        found, trouble = call(function, list(known))
        if trouble:
            return trouble
        fault = _positions_fault(found, known)
        if fault:
            return Verdict(False, f"for known = {list(known)}: {fault}")
    return Verdict(True, f"{len(KNOWN)} of {len(KNOWN)} orders read what is known, then fill the gaps, left to right")


def filling_log_prob(function: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Verdict:
    """Judge the log-probability of a filling, one number, from logits (N, V), tokens (N,) and known (N,)."""
    for n, known in enumerate(KNOWN):
        is_known, chance = torch.tensor(known), torch.Generator().manual_seed(n)
        logits = 2 * torch.randn(len(known), 5, dtype=torch.float64, generator=chance)
        tokens = torch.randint(5, (len(known),), generator=chance)
        found, trouble = call(function, logits.clone(), tokens.clone(), is_known.clone())
        if trouble:
            return trouble
        fault = _log_prob_fault(found, logits, tokens, is_known)
        if fault:
            return Verdict(False, f"for known = {list(known)} {fault}")
    return Verdict(True, f"{len(KNOWN)} of {len(KNOWN)} fillings have their log-probability, given all that is known")


def chances(function: Callable[[Tensor], Tensor]) -> Verdict:
    """Judge the chances of alternatives, float64 (A,), from the nats of the whole text with each of them, (A,)."""
    for prices in ((3.0, 1.0, 2.0), (44.13, 43.83, 65.55, 44.23), (900.0, 901.0), (7.0,)):
        nats = torch.tensor(prices, dtype=torch.float64)
        found, trouble = call(function, nats.clone())
        if trouble:
            return trouble
        fault = _chances_fault(found, nats)
        if fault:
            return Verdict(False, f"for nats {list(prices)} {fault}")
    return Verdict(True, "4 of 4 lists of prices become chances: of 3, 4, 2 and 1 alternatives, and of very dear texts")


def _positions_fault(found: object, known: Sequence[bool]) -> str | None:
    try:
        numbers = [int(number) for number in found]
    except (TypeError, ValueError):
        return f"return a list of {len(known)} whole numbers; yours is {found!r}"
    given = [p for p, is_known in enumerate(known) if is_known]
    gaps = [p for p, is_known in enumerate(known) if not is_known]
    if numbers == given + gaps:
        return None
    wrong = {
        "you fill the gaps first and read what is known behind them, so nothing is known yet when they are filled": (
            gaps + given
        ),
        "you go through the text as it stands: a gap then sees what is left of it only": list(range(len(known))),
        "you list the gaps alone; what is known must be read too, before them": gaps,
        "you list what is known alone; the gaps come behind it": given,
        "your positions count from 1; count them from 0, as Python does": [p + 1 for p in given + gaps],
        "your gaps are numbered among themselves; a gap is named by where it stands in the text": (
            given + list(range(len(gaps)))
        ),
        "you fill the gaps from right to left; that is an order too, but left to right is asked for": (
            given + gaps[::-1]
        ),
    }
    for sentence, value in wrong.items():
        if numbers == value:
            return sentence
    if sorted(numbers) != list(range(len(known))):
        return f"every position 0 to {len(known) - 1} must appear once; yours are {numbers}"
    at = next(i for i, (a, b) in enumerate(zip(numbers, given + gaps, strict=True)) if a != b)
    return f"rank {at} is position {(given + gaps)[at]}; yours is {numbers[at]}, in {numbers}"


def _log_prob_fault(found: object, logits: Tensor, tokens: Tensor, known: Tensor) -> str | None:
    number = as_number(found)
    if number is None:
        wanted = "one number, the sum over the gaps" if isinstance(found, Tensor) else "one number"
        return f"return {wanted}; yours is {in_words(found)}"
    each = logits.log_softmax(-1).gather(-1, tokens.unsqueeze(-1)).squeeze(-1)
    raw = logits.gather(-1, tokens.unsqueeze(-1)).squeeze(-1)
    right = float(each[~known].sum())
    if abs(number - right) < 1e-6:
        return None
    wrong = {
        "you add up all tokens, the known ones too: that is the log-probability of the whole text": each.sum(),
        "you add up the known tokens; it is the gaps that are filled, `~known`": each[known].sum(),
        "you give nats, which are -log p; a log-probability is at most 0": -each[~known].sum(),
        "you take the mean over the gaps; the chain rule adds them up": each[~known].mean(),
        "you add up logits; they become log-probabilities by log_softmax over the vocabulary": raw[~known].sum(),
        "you add up probabilities; the chain rule multiplies them, so add their logarithms": each[~known].exp().sum(),
        "you give the probability; take its logarithm": each[~known].sum().exp(),
        "you shift by one, as tutorials of AR models do; the logits at a position predict that very position": (
            logits.log_softmax(-1).roll(1, 0).gather(-1, tokens.unsqueeze(-1)).squeeze(-1)[~known].sum()
        ),
    }
    for sentence, value in wrong.items():
        if abs(number - float(value)) < 1e-6:
            return sentence
    return f"the log-probability is {right:.4f}; yours is {number:.4f}"


def _chances_fault(found: object, nats: Tensor) -> str | None:
    if not isinstance(found, Tensor) or found.shape != nats.shape:
        return (
            f"return one chance for each alternative, a tensor of shape {tuple(nats.shape)}; yours is {in_words(found)}"
        )
    if not found.isfinite().all():
        return (
            "some of your chances are no numbers: exp(-900) is 0, and 0 by 0 is nothing; subtract the least price "
            "first, or use softmax"
        )
    if torch.allclose(found.double(), (-nats).softmax(-1), rtol=0, atol=1e-6):
        return None
    wrong = {
        "you take the softmax of the nats, so that the dearest text is the likeliest; less nats is likelier": (
            nats.softmax(-1)
        ),
        "you do not divide by the sum: these are chances of whole texts, and those of alternatives given the rest must "
        "sum to 1": (-nats).exp(),
        "you share out by 1 / nats; a nat less makes e times as likely, so it is exp(-nats) that is shared out": (
            (1 / nats) / (1 / nats).sum()
        ),
        "you share out the nats themselves; it is exp(-nats) that is shared out": nats / nats.sum(),
        "you give logarithms; take exp": (-nats).log_softmax(-1),
        "all of yours are equal; the prices differ": torch.full_like(nats, 1 / len(nats)),
    }
    for sentence, value in wrong.items():
        if torch.allclose(found.double(), value, rtol=0, atol=1e-9):
            return sentence
    return f"the chances are {_listed((-nats).softmax(-1))}; yours are {_listed(found)}"


def _listed(values: Tensor) -> str:
    return f"[{', '.join(f'{value:.3f}' for value in values.tolist())}]"
