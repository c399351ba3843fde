"""What must the calls of a decoder read and multiply, so that no program that makes these calls can be faster?

Counted are the rows that a call really computes, whether or not their tokens stay, and the slots that one of them may
see. Left out is what weighs little: norms, embeddings, the prefix of ARMD, chance.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from armdlab.engine import Engine, KVCache, Slots
from armdlab.masks import Mask


@dataclass(frozen=True)
class Pass:
    """One layer in one call; all texts of the batch together.

    Args:
        n_giving: rows that give keys and values: in a two-stream layer those of X.
        n_asking: rows that attend and go on: in the last two-stream layer those of G.
        n_pairs: pairs of an asking row and a slot that it may see.
        n_slots: slots of the cache that some row may see.
    """

    n_giving: int
    n_asking: int
    n_pairs: int
    n_slots: int


@dataclass(frozen=True)
class Call:
    """One call of the network: its layers, and the number of rows that the head turns into logits."""

    passes: tuple[Pass, ...]
    n_predicted: int


def work(calls: Sequence[Call], *, width: int, vocab: int, weight_bytes: int, cache_bytes: int) -> tuple[int, int]:
    """Bytes that calls read, and operations that they make.

    A layer has 12 D^2 weights: 2 D^2 make keys and values, 10 D^2 queries, what attention gives, and feed-forward.
    They are read once a call, as are the D V of the head. A product of R rows with P weights takes 2 R P operations.
    Attention takes 4 D for a pair: 2 D for its score, 2 D for adding its value. A slot holds a key and a value.

    Args:
        calls: of a text, or of a batch of texts.
        width: D.
        vocab: V.
        weight_bytes: that a weight takes.
        cache_bytes: that a number in the cache takes.

    >>> two_stream = Pass(n_giving=1, n_asking=2, n_pairs=6, n_slots=3)
    >>> work([Call((two_stream,), n_predicted=1)], width=4, vocab=10, weight_bytes=2, cache_bytes=4)
    (560, 880)
    """
    passes = [layer for call in calls for layer in call.passes]
    square, head = width * width, width * vocab
    weights = 12 * square * len(passes) + head * len(calls)
    cached = 2 * width * sum(layer.n_slots for layer in passes)
    by_weights = sum(2 * square * layer.n_giving + 10 * square * layer.n_asking for layer in passes)
    by_weights += head * sum(call.n_predicted for call in calls)
    attention = 4 * width * sum(layer.n_pairs for layer in passes)
    return weights * weight_bytes + cached * cache_bytes, 2 * by_weights + attention


def one_by_one(n_calls: int, n_layer: int, batch_size: int) -> list[Call]:
    """The calls of one causal stream, a token each: the n-th sees n slots."""
    B = batch_size
    return [Call((Pass(B, B, B * n, B * n),) * n_layer, B) for n in range(1, n_calls + 1)]


def watched(engine: Engine, write: Callable[[], object]) -> list[Call]:
    """The calls that `write` makes of an engine."""
    run_layer, head = engine.run_layer, engine.head
    calls: list[Call] = []
    passes: list[Pass] = []

    def note_layer(
        depth: int,
        rows: Tensor,
        angles: Tensor,
        cache: KVCache,
        slots: Slots,
        mask: Mask,
        n_giving: int | None = None,
    ) -> Tensor:
        B, R, _ = rows.shape
        E = R if n_giving is None else n_giving
        T = R - E if engine.layers[depth].query_key_value is None else R
        if mask.allowed is None:
            n_slots = slots.stop
            n_pairs = T * (T + 1) // 2 if mask.is_causal else T * n_slots
            passes.append(Pass(B * E, B * T, B * n_pairs, B * n_slots))
        else:
            allowed = mask.allowed.expand(B, T, -1)
            passes.append(Pass(B * E, B * T, int(allowed.sum()), int(allowed.any(1).sum())))
        return run_layer(depth, rows, angles, cache, slots, mask, n_giving)

    def note_head(rows: Tensor) -> Any:
        calls.append(Call(tuple(passes), rows.shape[:-1].numel()))
        passes.clear()
        return head(rows)

    engine.run_layer, engine.head = note_layer, note_head
    try:
        write()
    finally:
        engine.head = head
        del engine.run_layer
    return calls


def bytes_of_a_weight(engine: Engine) -> int:
    """What a packed weight takes: FBGEMM's layout holds half precision, and computes in float32."""
    return 2 if engine.head.layout == "half" else engine.dtype.itemsize
