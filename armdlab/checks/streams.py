"""Is what you wrote about two streams right, and if not, which mistake is it? (judges of lesson 02)"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from armdlab.baselines import LeakyMask, LeakyQuery, ShiftedQuery
from armdlab.checks import Verdict, call, in_words
from armdlab.figures import leak_matrix
from armdlab.masks import Masks, may_see, strictly_causal_mask
from armdlab.model import ARMD, ARMDConfig, attend
from armdlab.orders import GenerationOrder

ORDERS = (GenerationOrder.strided(6, 2), GenerationOrder.blockwise(5, 3), GenerationOrder.left_to_right(4))


def prefix_aggregation(function: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Verdict:
    """Judge G^0 = ((PE PE^T) * M^sc) X of float64 PE (N, d_pe) and X (N, D), and int64 blocks (N,), all by rank."""
    for order in ORDERS:
        chance = torch.Generator().manual_seed(order.length)
        pe = torch.randn(order.length, 4, generator=chance, dtype=torch.float64)
        x = torch.randn(order.length, 7, generator=chance, dtype=torch.float64)  # no two sizes are alike
        found, trouble = call(function, pe.clone(), x.clone(), order.blocks.clone())
        fault = trouble.sentence if trouble else _prefix_fault(found, pe, x, order.blocks)
        if fault:
            return Verdict(False, fault)
    return Verdict(True, "3 of 3 prefixes are right: under a strided, a blockwise and a left-to-right order")


def two_stream_attention(function: Callable[..., tuple[Tensor, Tensor]]) -> Verdict:
    """Judge eq. 7: what both streams read, against the package's own attention.

    The function takes queries of X (B, H, E, d) and of G (B, H, T, d), keys and values of X (B, H, E, d), the blocks of
    the rows of X (E,), BOS being -1, and those of G (T,); it returns two tensors like the queries.
    """
    for order in ORDERS:
        evidence, targets = F.pad(order.blocks, (1, 0), value=-1), order.blocks[1:]
        chance = torch.Generator().manual_seed(order.length)
        E, T = len(evidence), len(targets)
        x_queries, g_queries, keys, values = (
            torch.randn(2, 3, n, 8, generator=chance, dtype=torch.float64) for n in (E, T, E, E)
        )
        given = (x_queries, g_queries, keys, values, evidence, targets)
        pair, trouble = call(function, *(tensor.clone() for tensor in given))
        fault = trouble.sentence if trouble else _attention_fault(pair, *given)
        if fault:
            return Verdict(False, fault)
    return Verdict(True, "6 of 6 streams agree with the package: X and G under a strided, a blockwise, a plain order")


def leak_test(function: Callable[[torch.nn.Module, Tensor, GenerationOrder], Tensor]) -> Verdict:
    """Judge a leak test: bool (N, N), True at [changed token, output] where strict causality is broken.

    It meets a clean model, three with a large leak, and one whose leak is a millionth of a logit.
    """
    config = ARMDConfig(vocab_size=6, max_length=6, n_layer=2, n_head=2, d_model=16)
    order = GenerationOrder.from_masking_times([2, 3, 1, 3, 2, 1])
    tokens = torch.tensor([[0, 1, 2, 3, 0, 4]])
    for seed, kind in enumerate((ARMD, LeakyQuery, LeakyMask, ShiftedQuery, Whisper)):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = kind(config).eval()
        with torch.no_grad():
            model.embedding.weight.mul_(50.0)  # untrained embeddings are small, and leaks should be large, but for one
        given = tokens.clone()
        found, trouble = call(function, model, given, order)
        if trouble:
            return trouble
        if not torch.equal(given, tokens):
            return Verdict(False, "your test changed the tokens that it was given; change a clone of them")
        fault = _leak_fault(found, model, tokens, order)
        if fault:
            return Verdict(False, fault)
    return Verdict(
        True, "5 of 5 models judged rightly: ARMD is clean, and four leaks are found, one a millionth of a logit"
    )


class Whisper(ARMD):
    """ARMD that adds a millionth of each token's id to its own logits: a leak that only exact comparison finds."""

    def forward(self, tokens: Tensor, order: GenerationOrder | None = None) -> Tensor:
        """As `ARMD`, and a whisper."""
        return super().forward(tokens, order) + 1e-6 * tokens.unsqueeze(-1)


def _prefix_fault(found: object, pe: Tensor, x: Tensor, blocks: Tensor) -> str | None:
    where = f"for blocks {blocks.tolist()}"
    if not isinstance(found, Tensor) or found.shape != x.shape:
        return f"{where} return G^0, a tensor of shape {tuple(x.shape)} like X; yours is {in_words(found)}"
    kernel, strict = pe @ pe.T, may_see(blocks, blocks, strictly=True)
    right = kernel.masked_fill(~strict, 0) @ x
    if _close(found, right):
        return None
    triangle = torch.ones_like(strict).tril(-1)
    n_seen = strict.sum(-1, keepdim=True).clamp(min=1)
    wrong = {
        "you used <= where M^sc needs <, so a target's sum holds its own token, which is a leak": (
            kernel * may_see(blocks, blocks) @ x
        ),
        "the mask is missing: every target sums over all tokens, later ones too": kernel @ x,
        "the weights are missing: multiply each token by <PE_n, PE_i>, or all targets of a block start alike": (
            strict.to(x) @ x
        ),
        "the mask is transposed: row n of the sum takes columns i with B(i) < B(n)": kernel * strict.T @ x,
        "you compare ranks, not blocks: tokens made together see each other": kernel * triangle @ x,
        "you divide by the number of earlier tokens; eq. (6) is a plain sum, and a norm comes behind it": right
        / n_seen,
        "there is no softmax in eq. (6): the weights <PE_n, PE_i> are used as they are": (
            kernel.masked_fill(~strict, -math.inf).softmax(-1).nan_to_num() @ x
        ),
    }
    for sentence, value in wrong.items():
        if _close(found.nan_to_num(), value):
            return f"{where} {sentence}"
    if not found.isfinite().all():
        return f"{where} G^0 holds nan or inf: eq. (6) has no softmax, so what is forbidden weighs 0, not -inf"
    n = int((found.to(right) - right).abs().amax(-1).gt(1e-6).nonzero()[0])
    return f"{where} row {n} should begin with {right[n, 0]:.4f}; yours begins with {float(found[n, 0]):.4f}"


def _attention_fault(
    pair: object, x_queries: Tensor, g_queries: Tensor, keys: Tensor, values: Tensor, evidence: Tensor, targets: Tensor
) -> str | None:
    where = f"for blocks {evidence.tolist()} of X and {targets.tolist()} of G"
    if not (isinstance(pair, list | tuple) and len(pair) == 2 and all(isinstance(part, Tensor) for part in pair)):
        return f"return two tensors, what X reads and what G reads; yours is {type(pair).__name__}"
    masks = Masks.between(evidence, targets)
    x_mask, g_mask = masks.evidence_to_evidence.allowed, masks.target_to_evidence.allowed
    right = [
        attend(x_queries, keys, values, masks.evidence_to_evidence),
        attend(g_queries, keys, values, masks.target_to_evidence),
    ]
    if len(evidence) != len(targets) and [part.shape for part in pair] == [part.shape for part in right[::-1]]:
        return "your two streams are swapped: return what X reads first, and what G reads second"
    looser, stricter = may_see(targets, evidence), may_see(evidence, evidence, strictly=True)
    for name, part, expected, queries, mask, other in (
        ("X", pair[0], right[0], x_queries, x_mask, stricter),
        ("G", pair[1], right[1], g_queries, g_mask, looser),
    ):
        if part.shape != expected.shape:
            return f"{where} {name} reads {tuple(part.shape)}; it should be {tuple(expected.shape)}, a row a query"
        if _close(part, expected):
            continue
        scores = queries @ keys.mT / math.sqrt(keys.shape[-1])
        weights = scores.masked_fill(~mask, -math.inf).softmax(-1)
        other_weights = scores.masked_fill(~other, -math.inf).softmax(-1)
        needs = "M^c (<=), and you gave it M^sc (<)" if name == "X" else "M^sc (<), and you gave it M^c (<=): a leak"
        wrong = {
            f"{name} needs {needs}": other_weights @ values,
            f"{name} reads without a mask": scores.softmax(-1) @ values,
            f"{name} divides its scores by nothing; divide by the root of d = {keys.shape[-1]}": (
                (queries @ keys.mT).masked_fill(~mask, -math.inf).softmax(-1) @ values
            ),
            f"{name} is masked after the softmax, so its weights do not sum to 1; set scores to -inf before it": (
                scores.softmax(-1) * mask @ values
            ),
            f"forbidden scores of {name} become 0, which still weighs e^0 = 1; set them to -inf": (
                scores.masked_fill(~mask, 0).softmax(-1) @ values
            ),
            f"the softmax of {name} runs over queries; let it run over keys, the last axis": (
                scores.masked_fill(~mask, -math.inf).softmax(-2).nan_to_num() @ values
            ),
            f"{name} reads keys; what the weights mix is values": weights @ keys,
        }
        for sentence, value in wrong.items():
            if _close(part.nan_to_num(), value.nan_to_num()):  # kernels differ in what a row that sees nothing gets
                return f"{where} {sentence}"
        if part.isnan().any():
            return f"{where} {name} holds nan: a row that may see nothing has no softmax; does it see BOS, block -1?"
        gap = float((part.to(expected) - expected).abs().max())
        return f"{where} what {name} reads differs from the package's attention by up to {gap:.4f}"
    return None


def _leak_fault(found: object, model: ARMD, tokens: Tensor, order: GenerationOrder) -> str | None:
    N, name = tokens.shape[1], type(model).__name__
    if not isinstance(found, Tensor) or found.shape != (N, N):
        return f"return a tensor of shape ({N}, {N}), [changed token, output]; yours is {in_words(found)}"
    if found.dtype != torch.bool:
        return f"your answer holds {found.dtype}; say True or False for each cell: does it leak?"
    moved, blocks = leak_matrix(model, tokens, order) > 0, order.blocks_in_text_order
    forbidden = ~strictly_causal_mask(order, in_text_order=True).T  # [changed, output]
    leaks = moved & forbidden
    if torch.equal(found, leaks):
        return None
    if isinstance(model, Whisper) and not found.any():
        return "a leak of a millionth of a logit gets past you: compare bit by bit (!=), with no tolerance"
    diagonal = torch.eye(N, dtype=torch.bool)
    own_block = blocks[:, None] == blocks[None, :]
    rank_order = order.positions[:, None], order.positions[None, :]
    wrong = {
        "counts every output that moves; those of LATER blocks than the changed token's may move": moved,
        "looks at the changed token's own output alone; all of its block, and of earlier ones, must stand still": (
            leaks & diagonal
        ),
        "finds no leak inside a block; outputs of the changed token's own block must stand still too": leaks
        & ~own_block,
        "is transposed: the row is the token that you change, the column the output that moves": leaks.T,
        "has rows and columns by rank; the model answers in text order": leaks[rank_order],
        "has no mistake but its sign: True means a leak": ~leaks,
    }
    for sentence, value in wrong.items():
        if torch.equal(found, value):
            return f"on {name} your answer {sentence}"
    missed = leaks & ~found
    silent = missed.any(-1) & ~found.any(-1)
    if missed.any() and not (found & ~leaks).any() and torch.equal(silent, missed.any(-1)):
        ids = {int(tokens[0, p]) for p in silent.nonzero()[:, 0].tolist()}
        if len(ids) == 1:
            return (
                f"at positions {silent.nonzero()[:, 0].tolist()} the token is {ids.pop()}, and you seem to put the "
                "same one there, which changes nothing; add 1 to it, modulo the vocabulary"
            )
    p, q = (found != leaks).nonzero()[0].tolist()
    truth = "moves, which is a leak" if leaks[p, q] else "moves, as it may" if moved[p, q] else "does not move"
    return f"on {name}, when token {p} (block {blocks[p]}) is changed, output {q} (block {blocks[q]}) {truth}"


def _close(found: Tensor, value: Tensor) -> bool:
    return found.shape == value.shape and torch.allclose(found.to(value.dtype), value, atol=1e-6)
