"""How are weights laid out for a product of few rows? (oneDNN, FBGEMM)"""

from __future__ import annotations

import warnings
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from armdlab.model import Layer, Transformer


class PackedLinear:
    """A product with one or several weights (D_out, D_in) side by side, laid out once for the kernel that is fastest.

    On a CPU of x86 there are two such layouts. FBGEMM's ("half") holds weights in half precision and computes in
    float32: it is taken where that loses nothing, as for every checkpoint that was stored in half precision, or where
    it is asked for. Else oneDNN's ("blocked"), which is also what makes bfloat16 fast where the processor multiplies
    tiles of it. Figures for 1 to 32 rows stand in tests/benchmarks/README.md. Other devices get the plain matrix.
    """

    def __init__(self, *weights: Tensor, dtype: torch.dtype, layout: str) -> None:
        weight = torch.cat([w.detach() for w in weights]).to(dtype)
        self.dtype, self.layout = dtype, layout
        if layout == "half":
            self.weight = _pack_half(weight)
        elif layout == "blocked":
            self.weight = torch.ops.mkldnn._reorder_linear_weight(weight)
        else:
            self.weight = weight

    def __call__(self, x: Tensor) -> Tensor:
        """W x of (..., D_in)."""
        if self.layout == "half":
            return torch.fbgemm_linear_fp16_weight_fp32_activation(x, self.weight, None)
        if self.layout == "blocked":
            return _blocked(cast(x, self.dtype), self.weight, None, "none", [], "")
        return F.linear(cast(x, self.dtype), self.weight)

    def gelu(self, x: Tensor) -> Tensor:
        """W x, and gelu of it."""
        if self.layout == "blocked":
            return _blocked(cast(x, self.dtype), self.weight, None, "gelu", [], "none")
        return F.gelu(self(x))


def cast(x: Tensor, dtype: torch.dtype) -> Tensor:
    """`x.to(dtype)`, which costs 2 us also where there is nothing to do: a step has fifty such places."""
    return x if x.dtype == dtype else x.to(dtype)


_blocked = torch.ops.mkldnn._linear_pointwise.default if torch.backends.mkldnn.is_available() else None


def _pack_half(weight: Tensor) -> Tensor:
    """FBGEMM's layout, by the entry that costs 3 us a call.

    `torch.ops.quantized.linear_dynamic_fp16` runs the same kernel, but costs 20 us a call: its packed weight is an
    object that Python's binding first fails to read as something else. The entry that is used here is named deprecated
    and says so once, which is why it is called once in silence; `best_layout` looks whether it is still there.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        packed = torch.fbgemm_pack_gemm_matrix_fp16(weight)
        torch.fbgemm_linear_fp16_weight_fp32_activation(weight[:1], packed, None)
    return packed


def best_dtype(model: Transformer, precision: str) -> torch.dtype:
    """Of products: "half" is bfloat16 on an accelerator, and on a CPU that multiplies tiles of it (AMX)."""
    if precision == "float32":
        return torch.float32
    if precision == "half" and (model.bos.device.type != "cpu" or multiplies_tiles()):
        return torch.bfloat16
    return working_dtype(model)


def best_layout(model: Transformer, dtype: torch.dtype, precision: str) -> str:
    """Which layout of weights is the fastest of those that this device has: "half", "blocked" or "plain".

    A rule and no stopwatch: products of two layouts differ in the last digit, and the same seed must make the same
    text tomorrow.
    """
    if model.bos.device.type != "cpu":
        return "plain"
    may_be_half = precision == "half" or (precision == "auto" and all(map(_fits_half, model.parameters())))
    if may_be_half and dtype == torch.float32 and _has_fbgemm():
        return "half"
    is_bf16 = dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return "blocked" if torch.backends.mkldnn.is_available() and (dtype == torch.float32 or is_bf16) else "plain"


def working_dtype(model: Transformer) -> torch.dtype:
    """Of a model's products: autocast's where that is on, else that of its weights."""
    kind = model.bos.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else model.bos.dtype


def multiplies_tiles() -> bool:
    """Whether this CPU has AMX, which multiplies bfloat16 four times as fast as float32."""
    return torch.backends.mkldnn.is_available() and getattr(torch.cpu, "_is_amx_tile_supported", bool)()


def _has_fbgemm() -> bool:
    if torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"):
        return False
    try:
        _pack_half(torch.zeros(8, 8))
    except (AttributeError, TypeError, RuntimeError):  # gone, of an older form, or not built
        return False
    return True


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
    """What `torch.layer_norm` takes beside rows of `dtype`; the weight is a copy."""
    return tuple(layer.normalized_shape), layer.weight.detach().to(dtype, copy=True), None, layer.eps, False
