"""How are weights laid out for a product of few rows? (oneDNN, FBGEMM)"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from armdlab.model import Layer, Transformer


class PackedLinear:
    """A product with one or several weights (D_out, D_in) side by side, laid out once for the kernel that is fastest.

    On a CPU of x86 there are two such layouts. FBGEMM's holds weights in half precision and computes in float32: it is
    taken where that loses nothing, as for every checkpoint that was stored in half precision, or where it is asked for.
    Else oneDNN's. For 1 to 4 rows they take a half and three quarters of the time of the plain product
    (tests/benchmarks/README.md). Other devices get the plain matrix.
    """

    def __init__(self, *weights: Tensor, dtype: torch.dtype, layout: str) -> None:
        weight = torch.cat([w.detach() for w in weights]).to(dtype)
        self.dtype, self.layout = dtype, layout
        if layout == "half":
            self.weight = torch.ops.quantized.linear_prepack_fp16(weight, None)
            self._product = torch.ops.quantized.linear_dynamic_fp16.default
        elif layout == "blocked":
            self.weight = torch.ops.mkldnn._reorder_linear_weight(weight)
            self._product = torch.ops.mkldnn._linear_pointwise.default
        else:
            self.weight, self._product = weight, F.linear

    def __call__(self, x: Tensor) -> Tensor:
        """W x of (..., D_in)."""
        if self.layout == "blocked":
            return self._product(x.to(self.dtype), self.weight, None, "none", [], "")
        return self._product(x.to(self.dtype), self.weight)

    def gelu(self, x: Tensor) -> Tensor:
        """W x, and gelu of it."""
        if self.layout == "blocked":
            return self._product(x.to(self.dtype), self.weight, None, "gelu", [], "none")
        return F.gelu(self(x))


def best_layout(model: Transformer, dtype: torch.dtype, *, may_round: bool) -> str:
    """Which layout of weights is the fastest of those that this device has: "half", "blocked" or "plain"."""
    if model.bos.device.type != "cpu":
        return "plain"
    has_fbgemm = torch.backends.quantized.engine in ("x86", "fbgemm") and torch.backends.cpu.get_cpu_capability() in (
        "AVX2",
        "AVX512",
    )
    if has_fbgemm and dtype == torch.float32 and (may_round or all(map(_fits_half, model.parameters()))):
        return "half"
    is_bf16 = dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return "blocked" if torch.backends.mkldnn.is_available() and (dtype == torch.float32 or is_bf16) else "plain"


def _fits_half(weight: Tensor) -> bool:
    return torch.equal(weight.half().to(weight.dtype), weight)


class PackedLayer:
    """The weights of one `Layer`, with the pairs that RoPE turns side by side, so that one complex product turns them.

    Args:
        layer: of the model.
        wide: of the rows between products.
        parts: whether queries are wanted without keys and values and the reverse, as in the last two-stream layer.
        how: `dtype` and `layout` of the weights.
    """

    def __init__(self, layer: Layer, wide: torch.dtype, *, parts: bool, **how: Any) -> None:  # noqa: ANN401
        query, (key, value) = layer.query.weight, layer.key_value.weight.chunk(2)
        pairs = _pairs(len(query), layer.n_head, query.device)
        query, key = query[pairs], key[pairs]
        self.query = PackedLinear(query, **how) if parts else None
        self.key_value = PackedLinear(key, value, **how) if parts else None
        self.query_key_value = None if parts else PackedLinear(query, key, value, **how)
        self.attention_out = PackedLinear(layer.attention_out.weight, **how)
        self.feed_forward_in = PackedLinear(layer.feed_forward_in.weight, **how)
        self.feed_forward_out = PackedLinear(layer.feed_forward_out.weight, **how)
        self.attention_norm, self.feed_forward_norm = (
            norm(layer.attention_norm, wide),
            norm(layer.feed_forward_norm, wide),
        )


def _pairs(width: int, n_head: int, device: torch.device) -> Tensor:
    """Features of each head in the order 0, d/2, 1, d/2 + 1, ...: dot products do not care, as long as both have it."""
    features = torch.arange(width, device=device).view(n_head, 2, -1)
    return features.transpose(1, 2).flatten()


def norm(layer: nn.LayerNorm, dtype: torch.dtype) -> tuple[Any, ...]:
    """What `torch.layer_norm` takes beside rows of `dtype`."""
    return tuple(layer.normalized_shape), layer.weight.detach().to(dtype), None, layer.eps, False
