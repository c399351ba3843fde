"""Is what you wrote about likelihoods right, and if not, which mistake is it? (judges of lesson 03)"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from armdlab.checks import Verdict, call, in_words


def nats_of_texts(function: Callable[[Tensor, Tensor], Tensor]) -> Verdict:
    """Judge -log p of each text, (B,), from logits float64 (B, N, V) in text order and int64 tokens (B, N)."""
    for B, N, V in ((3, 5, 7), (2, 1, 4), (1, 6, 3)):
        chance = torch.Generator().manual_seed(N)
        logits = 2 * torch.randn(B, N, V, generator=chance, dtype=torch.float64)
        tokens = torch.randint(V, (B, N), generator=chance)
        found, trouble = call(function, logits.clone(), tokens.clone())
        if trouble:
            return trouble
        log_p = _gathered(logits.log_softmax(-1), tokens)
        right = -log_p.sum(-1)
        shifted = logits[:, :-1].log_softmax(-1).gather(-1, tokens[:, 1:, None])[..., 0]
        wrong = {
            "yours is log p, below 0; nats count surprise, so turn the sign": -right,
            "yours is in bits; take the natural logarithm": right / math.log(2),
            "yours is the mean over tokens; the chances of all tokens multiply, so their nats add": right / N,
            "yours is p itself; take its logarithm, and turn the sign": right.neg().exp(),
            "you shift logits by one, as for an AR model; these stand at the token that they predict": -shifted.sum(-1),
            "you sum logits; they are no log-probabilities before log_softmax": -_gathered(logits, tokens).sum(-1),
            "your softmax runs over positions; let it run over the vocabulary, the last axis": (
                -_gathered(logits.log_softmax(1), tokens).sum(-1)
            ),
        }
        fault = _fault(found, right, wrong, f"for logits of shape {(B, N, V)}", "one number a text")
        if fault:
            return Verdict(False, fault)
    return Verdict(True, "3 of 3 batches cost what the chain rule says: texts of 5, 1 and 6 tokens")


def log_mean_exp(function: Callable[[Tensor], Tensor]) -> Verdict:
    """Judge -log of the mean probability, (R,), from float64 nats (K, R) of R texts under K orders."""
    chance = torch.Generator().manual_seed(0)
    small, large = (scale * torch.rand(4, 3, generator=chance, dtype=torch.float64) for scale in (3.0, 20.0))
    for nats in (small, large + 900.0, small[:1]):
        found, trouble = call(function, nats.clone())
        if trouble:
            return trouble
        K = len(nats)
        right = math.log(K) - (-nats).logsumexp(0)
        wrong = {
            "yours is the mean of the nats, which is the bound; take the mean of the PROBABILITIES, then -log": (
                nats.mean(0)
            ),
            "yours is the cheapest order; the mean over orders has all of them in it": nats.amin(0),
            f"you sum over the {K} orders and do not divide by K: log K is missing": -(-nats).logsumexp(0),
            "yours is below 0; give nats, -log of the mean": -right,
            "yours is the mean probability; take -log of it": nats.neg().exp().mean(0),
            "you take exp of nats, not of minus nats: p = exp(-nats)": nats.logsumexp(0) - math.log(K),
        }
        where = f"for {K} orders of {nats.shape[1]} texts of about {nats.mean():.0f} nats"
        if isinstance(found, Tensor) and found.shape == right.shape and found.isinf().all():
            return Verdict(False, f"{where} exp(-nats) is 0 in float64, and its log is infinite; use torch.logsumexp")
        fault = _fault(found, right, wrong, where, "one number a text, the mean over axis 0")
        if fault:
            return Verdict(False, fault)
    return Verdict(
        True, "3 of 3 sets of orders are averaged rightly: 4 orders of cheap and of dear texts, and one order"
    )


def one_call_bound(function: Callable[[Tensor, Tensor], Tensor]) -> Verdict:
    """Judge one sample of the bound, (B,) nats, from float64 log p (B, N) of all tokens and bool is_masked (B, N)."""
    for B, N in ((3, 5), (2, 8)):
        chance = torch.Generator().manual_seed(N)
        log_p = -3 * torch.rand(B, N, generator=chance, dtype=torch.float64)
        is_masked = torch.arange(N) <= torch.arange(1, B + 1)[:, None]  # 2, 3, .. masked tokens, so rows differ
        is_masked = is_masked[:, torch.randperm(N, generator=chance)]
        found, trouble = call(function, log_p.clone(), is_masked.clone())
        if trouble:
            return trouble
        nats, k = -log_p * is_masked, is_masked.sum(-1)
        right = N / k * nats.sum(-1)
        wrong = {
            "you sum the masked tokens without a weight; each stands for N/k of them": nats.sum(-1),
            "your weight is 1/k, which gives nats a token; for a text it is N/k": right / N,
            "your weight is k/N; the fewer are masked, the more each counts: N/k": k / N * nats.sum(-1),
            "yours is below 0; nats are -log p": -right,
            "you score all tokens; those that are not masked were given to the network": N / k * -log_p.sum(-1),
            "you score what is NOT masked": N / k * (-log_p * ~is_masked).sum(-1),
            "you count k over the whole batch; each text has a k of its own": N * B / k.sum() * nats.sum(-1),
        }
        where = f"for {B} texts of {N} tokens with {k.tolist()} masked"
        fault = _fault(found, right, wrong, where, "one number a text")
        if fault:
            return Verdict(False, fault)
    return Verdict(True, "5 of 5 texts are weighted rightly: 2, 3 or 4 masked tokens of 5, 2 or 3 of 8")


def _gathered(values: Tensor, tokens: Tensor) -> Tensor:
    return values.gather(-1, tokens.unsqueeze(-1)).squeeze(-1)


def _fault(found: object, right: Tensor, wrong: Mapping[str, Tensor], where: str, shape: str) -> str | None:
    if not isinstance(found, Tensor) or found.shape != right.shape:
        return f"{where} return {shape}, a tensor of shape {tuple(right.shape)}; yours is {in_words(found)}"
    found = found.to(right.dtype)
    if torch.allclose(found, right, rtol=1e-5):  # a quotient of whole numbers is float32
        return None
    for sentence, value in wrong.items():
        if torch.allclose(found, value, rtol=1e-5):
            return f"{where} {sentence}"
    return f"{where} the first should be {right[0]:.4f}; yours is {float(found[0]):.4f}"
