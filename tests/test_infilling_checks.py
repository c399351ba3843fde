"""Laws of lesson 07's judges: stubs are open, typical mistakes are named, right answers pass in any form."""

import re

import pytest
import torch

from armdlab.checks import infilling as infilling_checks


def sentence_of(judge, function):
    verdict = judge(function)
    assert not verdict.passed
    return verdict.sentence


def infilling(known):
    return [p for p, k in enumerate(known) if k] + [p for p, k in enumerate(known) if not k]


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        (lambda known: None, "nothing is returned: fill in the stub above, run it, then run this cell again"),
        (lambda known: 5, "return a list of 6 whole numbers; yours is 5"),
        (
            lambda known: infilling([not k for k in known]),
            "for known = [True, False, False, True, False, True]: you fill the gaps first and read what is known "
            "behind them, so nothing is known yet when they are filled",
        ),
        (
            lambda known: list(range(len(known))),
            "you go through the text as it stands: a gap then sees what is left of it only",
        ),
        (
            lambda known: [p for p, k in enumerate(known) if not k],
            "you list the gaps alone; what is known must be read too, before them",
        ),
        (
            lambda known: [p for p, k in enumerate(known) if k],
            "you list what is known alone; the gaps come behind it",
        ),
        (lambda known: [p + 1 for p in infilling(known)], "your positions count from 1; count them from 0"),
        (
            lambda known: [p for p, k in enumerate(known) if k] + list(range(known.count(False))),
            "your gaps are numbered among themselves; a gap is named by where it stands in the text",
        ),
        (
            lambda known: [p for p, k in enumerate(known) if k] + [p for p, k in enumerate(known) if not k][::-1],
            "you fill the gaps from right to left; that is an order too",
        ),
        (lambda known: [0] * len(known), "every position 0 to 5 must appear once; yours are [0, 0, 0, 0, 0, 0]"),
        (lambda known: infilling(known)[::-1], "rank 0 is position 0; yours is 4"),
        (lambda known: known.index(7), "your function stopped with ValueError: 7 is not in list"),
    ],
)
def test_judge_of_infilling_names_the_mistake(function, sentence):
    assert sentence in sentence_of(infilling_checks.infilling_positions, function)


def each(logits, tokens):
    return logits.log_softmax(-1).gather(-1, tokens.unsqueeze(-1)).squeeze(-1)


def picked(logits, tokens):
    return logits.gather(-1, tokens.unsqueeze(-1)).squeeze(-1)


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        (lambda logits, tokens, known: None, "nothing is returned"),
        (
            lambda logits, tokens, known: each(logits, tokens).sum(),
            "you add up all tokens, the known ones too: that is the log-probability of the whole text",
        ),
        (
            lambda logits, tokens, known: each(logits, tokens)[known].sum(),
            "you add up the known tokens; it is the gaps",
        ),
        (lambda logits, tokens, known: -each(logits, tokens)[~known].sum(), "you give nats, which are -log p"),
        (
            lambda logits, tokens, known: each(logits, tokens)[~known].mean(),
            "you take the mean over the gaps; the chain rule adds them up",
        ),
        (lambda logits, tokens, known: picked(logits, tokens)[~known].sum(), "you add up logits; they become"),
        (lambda logits, tokens, known: each(logits, tokens)[~known].exp().sum(), "you add up probabilities; the chain"),
        (lambda logits, tokens, known: each(logits, tokens)[~known].sum().exp(), "you give the probability; take its"),
        (
            lambda logits, tokens, known: each(logits.roll(1, 0), tokens)[~known].sum(),
            "you shift by one, as tutorials of AR models do; the logits at a position predict that very position",
        ),
        (lambda logits, tokens, known: each(logits, tokens), "return one number, the sum over the gaps; yours is a"),
        (lambda logits, tokens, known: "much", "return one number; yours is str"),
        (lambda logits, tokens, known: 0.5, "; yours is 0.5000"),
    ],
)
def test_judge_of_filling_prices_names_the_mistake(function, sentence):
    assert sentence in sentence_of(infilling_checks.filling_log_prob, function)


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        (lambda nats: None, "nothing is returned"),
        (
            lambda nats: nats.softmax(-1),
            "for nats [3.0, 1.0, 2.0] you take the softmax of the nats, so that the dearest text is the likeliest",
        ),
        (lambda nats: (-nats).exp(), "you do not divide by the sum: these are chances of whole texts"),
        (lambda nats: (1 / nats) / (1 / nats).sum(), "you share out by 1 / nats; a nat less makes e times as likely"),
        (lambda nats: nats / nats.sum(), "you share out the nats themselves"),
        (lambda nats: (-nats).log_softmax(-1), "you give logarithms; take exp"),
        (lambda nats: torch.full_like(nats, 1 / len(nats)), "all of yours are equal; the prices differ"),
        (
            lambda nats: (-nats).exp() / (-nats).exp().sum(),
            "for nats [900.0, 901.0] some of your chances are no numbers: exp(-900) is 0",
        ),
        (lambda nats: nats.argmin(), "return one chance for each alternative, a tensor of shape (3,); yours is a"),
        (lambda nats: nats.tolist(), "return one chance for each alternative, a tensor of shape (3,); yours is list"),
        (lambda nats: nats * 0.1, "the chances are [0.090, 0.665, 0.245]; yours are [0.300, 0.100, 0.200]"),
    ],
)
def test_judge_of_chances_names_the_mistake(function, sentence):
    assert sentence in sentence_of(infilling_checks.chances, function)


def test_judges_of_infilling_pass_right_answers_in_any_form():
    def in_a_loop(logits, tokens, known):
        total = 0.0
        for row, token, is_known in zip(logits, tokens, known, strict=True):
            total += 0.0 if is_known else float(row.softmax(-1)[token].log())
        return total

    def sorted_by_known(known):
        return torch.tensor(known).logical_not().int().argsort(stable=True)

    verdicts = [
        infilling_checks.infilling_positions(infilling),
        infilling_checks.infilling_positions(sorted_by_known),
        infilling_checks.filling_log_prob(lambda logits, tokens, known: each(logits, tokens)[~known].sum()),
        infilling_checks.filling_log_prob(in_a_loop),
        infilling_checks.chances(lambda nats: (-nats).softmax(-1)),
        infilling_checks.chances(lambda nats: (nats.min() - nats).exp() / (nats.min() - nats).exp().sum()),
    ]
    assert all(verdict.passed for verdict in verdicts)
    assert all(re.match(r"4 of 4 ", verdict.sentence) for verdict in verdicts)
