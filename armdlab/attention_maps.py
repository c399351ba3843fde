"""What does each target read, in each layer, when a text is scored under an order? (ARMD, eq. 7)

The fused kernels return no weights. So one ordinary pass of the model is overheard: the queries, keys and mask of every
attention are those that the model itself hands to the kernel, and the softmax is written out once more.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from armdlab.model import ARMD
from armdlab.orders import GenerationOrder


@dataclass(frozen=True)
class AttentionMap:
    """What the targets (stream G) read in one layer; rows and columns stand in generation order.

    Args:
        reads: "X" in a two-stream layer, where column 0 is BOS and column r is the token of rank r - 1; "G" in a causal
            layer, where column r is the target of rank r.
        weights: float (H, N, N), [h, n, i]: the share of its reading that target n gives to row i. Rows sum to 1, and
            what the mask forbids is exactly 0.
        values: float (H, N, D/H), what there is to read: `weights @ values` is what the layer's attention brought.
    """

    reads: str
    weights: Tensor = field(repr=False)
    values: Tensor = field(repr=False)


@torch.no_grad()
def attention_maps(model: ARMD, tokens: Tensor, order: GenerationOrder) -> list[AttentionMap]:
    """Score a text and overhear what every target reads, one map for each layer.

    Decoding along the order reads the same: row n of a map is what target n reads at the step that makes it, because
    nothing that comes later reaches it.

    Args:
        model: in evaluation mode, or its dropout would show.
        tokens: int64 (1, N) in text order, on the model's device.
        order: who is made when, without a batch axis.

    Returns:
        L maps, first layer first.

    Raises:
        ValueError: if `model` has no stream of targets, or there is more than one text.

    >>> from armdlab import ARMDConfig
    >>> model = ARMD(ARMDConfig(vocab_size=7, max_length=8, n_layer=2, n_head=2, d_model=16)).eval()
    >>> first, second = attention_maps(model, torch.zeros(1, 4, dtype=torch.long), GenerationOrder.strided(4, 2))
    >>> first.reads, second.reads, first.weights[0, 0].tolist()  # the first target has BOS alone to read
    ('X', 'G', [1.0, 0.0, 0.0, 0.0])
    """
    if not isinstance(model, ARMD):
        raise ValueError(f"model={type(model).__name__} has no stream of targets to look into; give an ARMD")
    if tokens.dim() != 2 or len(tokens) != 1 or order.is_batched:
        raise ValueError(
            f"tokens has shape {tuple(tokens.shape)} and order is {order}; give one text (1, N) and one order (N,)"
        )
    with _Overheard() as heard:
        model(tokens, order)
    # In a two-stream layer X attends before G does; the last of these layers needs no X any more.
    L2s, L = model.config.n_two_stream, model.config.n_layer
    of_targets = heard.calls[1 : 2 * (L2s - 1) : 2] + heard.calls[2 * (L2s - 1) :]
    return [
        AttentionMap("X" if depth < L2s else "G", _weights(*call), call[1][0])
        for depth, call in zip(range(L), of_targets, strict=True)
    ]


def _weights(scores: Tensor, values: Tensor, allowed: Tensor | None) -> Tensor:
    """Softmax of scores (1, H, Q, K) over what is allowed: (H, Q, K)."""
    if allowed is not None:
        scores = scores.masked_fill(~allowed, -math.inf)
    return scores.softmax(-1)[0]


class _Overheard(TorchFunctionMode):
    """Remember (scores, values, mask) of every fused attention that is called on this thread meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Tensor, Tensor, Tensor | None]] = []

    def __torch_function__(
        self, function: Callable, types: Sequence, args: Sequence = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:  # noqa: ANN401
        kwargs = kwargs or {}
        if function is F.scaled_dot_product_attention:
            queries, keys, values = args
            scores = queries @ keys.mT / math.sqrt(queries.shape[-1])
            allowed = kwargs["attn_mask"]
            if kwargs["is_causal"]:
                allowed = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
            self.calls.append((scores, values, allowed))
        return function(*args, **kwargs)
