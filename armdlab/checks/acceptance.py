"""Is what you wrote about drafts and their judge right, and if not, which mistake is it? (judges of lesson 06)"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from armdlab.checks import Verdict, as_number, call, in_words

# (p, q) in which every typical mistake shows: q too high and too low, a token that only one of them knows, and p = q
PAIRS = (
    ((0.5, 0.3, 0.2), (0.2, 0.2, 0.6)),
    ((0.1, 0.2, 0.3, 0.4), (0.7, 0.1, 0.1, 0.1)),
    ((0.0, 0.4, 0.6), (0.5, 0.5, 0.0)),
    ((0.25, 0.75), (0.25, 0.75)),
)
SAME = 1e-6  # a learner's tensor may be float32


def acceptance_rule(
    accept_probability: Callable[[Tensor, Tensor], Tensor], residual: Callable[[Tensor, Tensor], Tensor]
) -> Verdict:
    """Judge both halves of the rule, float64 (V,) from p and q: whether draft x stays, and what is drawn if not.

    What comes out in the end is enumerated over all drafts, and must be p.
    """
    for p, q in (tuple(torch.tensor(side, dtype=torch.float64) for side in pair) for pair in PAIRS):
        where = f"for p = {p.tolist()} and q = {q.tolist()}"
        a, trouble = call(accept_probability, p.clone(), q.clone())
        if trouble:
            return trouble
        fault = _shape_fault("accept_probability", a, p)
        if fault:
            return Verdict(False, f"{where} {fault}")
        a = torch.where(q > 0, a.double(), 0)  # what q never drafts is never judged
        refused = 1 - (q * a).sum()
        r = p
        if refused > SAME:  # else p = q, nothing is ever redrawn, and `residual` may say what it likes
            r, trouble = call(residual, p.clone(), q.clone())
            if trouble:
                return trouble
            fault = _shape_fault("residual", r, p)
            if fault:
                return Verdict(False, f"{where} {fault}")
        kept = q * a + refused * r
        are_chances = bool(((a >= 0) & (a <= 1)).all())
        if not (are_chances and torch.allclose(kept, p, rtol=0, atol=SAME)):
            fault = _accept_fault(a, p, q) or _residual_fault(r, p, q)
            return Verdict(
                False, f"{where} {fault or f'the token that is kept has chances {_listed(kept)}, and should have p'}"
            )
        if refused > (p - q).clamp(min=0).sum() + SAME:
            return Verdict(
                False,
                f"{where} the result is exact, but drafts stay with chance {1 - refused:.2f} only, and "
                f"{torch.minimum(p, q).sum():.2f} is possible: drafting in vain makes nothing faster",
            )
    return Verdict(
        True, f"{len(PAIRS)} of {len(PAIRS)} pairs give back p exactly, and drafts stay as often as they can"
    )


def tokens_per_call(function: Callable[[Tensor], Tensor]) -> Verdict:
    """Judge the number of tokens that a call makes in the mean, from float64 (n,), the chance that each draft passes.

    Each chance is given that all drafts before it passed.
    """
    for chances in ((0.5, 0.8, 0.3), (0.9, 0.6, 0.7, 0.2), (1.0, 1.0, 1.0, 1.0, 1.0), (0.0, 0.7), (0.3,)):
        a = torch.tensor(chances, dtype=torch.float64)
        found, trouble = call(function, a.clone())
        if trouble:
            return trouble
        n, passed = len(a), a.cumprod(0)  # passed[k]: drafts 1 .. k + 1 have all passed
        wrong = {
            "you count the drafts that pass, and the call draws one token more: in the place of the refused one, or "
            "behind them all": passed.sum(),
            f"you let the last draft count for nothing; if all {n} pass, the call draws one more behind them": (
                1 + passed[:-1].sum()
            ),
            "you add the chances as if each draft counted alone; it counts only if all before it passed": a.sum(),
            "yours is one plus the sum of the chances; a draft counts only if all before it passed": 1 + a.sum(),
            "you take the mean chance for all drafts; they differ along the window": (
                (a.mean() ** torch.arange(n + 1)).sum()
            ),
            "you leave the first draft out; if it fails, all others are in vain": 1 + a[1:].cumprod(0).sum(),
            "yours is the chance that the whole window passes": passed[-1],
            f"yours is {n + 1} times the chance that the whole window passes; a part of it counts too": (
                (n + 1) * passed[-1]
            ),
        }
        fault = _number_fault(found, 1 + passed.sum(), wrong, f"for chances {list(chances)}")
        if fault:
            return Verdict(False, fault)
    return Verdict(True, "5 of 5 windows make as many tokens as they should: of 3, 4, 5, 2 and 1 drafts")


def _accept_fault(a: Tensor, p: Tensor, q: Tensor) -> str | None:
    judged = q > 0
    a, p, q = a.double()[judged], p[judged], q[judged]
    right = (p / q).clamp(max=1)
    if torch.allclose(a, right, rtol=0, atol=SAME):
        return None
    wrong = {
        "you accept with p / q, which is above 1 where q drafts too seldom; a chance is at most 1": p / q,
        "you accept with min(1, q / p), the wrong way round: it favours what q drafts too often": (q / p).clamp(max=1),
        "you accept with p; a draft has come with chance q already, so divide by it": p,
        "you accept with min(p, q), the chance of drafting AND keeping x; divide by q": torch.minimum(p, q),
        "you accept every draft, so that texts are those of q": torch.ones_like(p),
        "you refuse every draft that q makes too often; it may stay with chance p / q": (p >= q).double(),
    }
    for sentence, value in wrong.items():
        if torch.allclose(a, value, rtol=0, atol=SAME):
            return sentence
    if not ((a >= 0) & (a <= 1)).all():
        return f"accept_probability must hold chances, from 0 to 1; yours are {_listed(a)}"
    return None  # another rule may be exact with a residual of its own: let the enumeration decide


def _residual_fault(r: Tensor, p: Tensor, q: Tensor) -> str | None:
    left = (p - q).clamp(min=0)
    if torch.allclose(r.double(), left / left.sum(), rtol=0, atol=SAME):
        return None
    more = (q - p).clamp(min=0)
    wrong = {
        "you do not clip p - q: where q is above p nothing is left to draw, 0": p - q,
        "you divide p - q by its sum, which is 0; clip it at 0 first": (p - q) / (p - q).sum(),
        "you do not divide by the sum, so the residual does not sum to 1": left,
        "you draw from p; what q drafts too often is then made too often": p,
        "you draw from q again; its mistakes are then made twice": q,
        "you take |p - q|: where q is above p, x is drafted too often already": (p - q).abs() / (p - q).abs().sum(),
        "you have max(q - p, 0), the wrong way round: it redraws what q drafts too often": more / more.sum(),
    }
    for sentence, value in wrong.items():
        if torch.allclose(r.double(), value, rtol=0, atol=SAME, equal_nan=True):
            return sentence
    if not (r >= 0).all() or abs(float(r.sum()) - 1) > SAME:
        return f"residual must hold chances that sum to 1; yours are {_listed(r)}"
    return None


def _shape_fault(name: str, found: object, p: Tensor) -> str | None:
    if isinstance(found, Tensor) and found.shape == p.shape:
        return None
    return f"{name} returns one chance for each token, a tensor of shape {tuple(p.shape)}; yours is {in_words(found)}"


def _number_fault(found: object, right: Tensor, wrong: Mapping[str, Tensor], where: str) -> str | None:
    number = as_number(found)
    if number is None:
        return f"{where} return one number; yours is {in_words(found)}"
    if abs(number - right) < 1e-6:
        return None
    for sentence, value in wrong.items():
        if abs(number - value) < 1e-6:
            return f"{where} {sentence}"
    return f"{where} a call makes {right:.4f} tokens in the mean; yours is {number:.4f}"


def _listed(values: Tensor) -> str:
    return f"[{', '.join(f'{value:.3f}' for value in values.tolist())}]"
