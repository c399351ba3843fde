"""Are these positions a permutation of the text, and these blocks a cut of it? (what `GenerationOrder` refuses)"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def as_int64(name: str, values: Tensor | Sequence[int]) -> Tensor:
    """Integers as int64 (N,) or (B, N).

    Raises:
        ValueError: if they are none, or have another shape; the message says `name`.
    """
    tensor = torch.as_tensor(values)
    if tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool:
        raise ValueError(f"{name} holds {tensor.dtype}; give integers")
    if tensor.dim() not in (1, 2) or tensor.numel() == 0:
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}; give at least one token, as (N,) or (B, N)")
    return tensor.long()


def check_permutation(positions: Tensor) -> None:
    """Refuse int64 (N,) or (B, N) of which a row does not hold each of 0 .. N-1 once."""
    length = positions.shape[-1]
    expected = torch.arange(length, device=positions.device)
    wrong = (positions.sort(-1).values != expected).reshape(-1, length).any(-1)
    if wrong.any():
        row = positions.reshape(-1, length)[wrong][0].tolist()
        missing = sorted(set(range(length)) - set(row))
        raise ValueError(
            f"positions={_shorten(row)} is no permutation of 0 .. {length - 1}: "
            f"{_shorten(missing)} missing; name every position once"
        )


def check_blocks(blocks: Tensor) -> None:
    """Refuse int64 (N,) or (B, N) of which a row does not start from 0, or from one to the next falls or skips."""
    blocks = blocks.reshape(-1, blocks.shape[-1])
    steps = blocks.diff(dim=-1)
    wrong = (blocks[:, 0] != 0) | ((steps != 0) & (steps != 1)).any(-1)
    if wrong.any():
        row = blocks[wrong][0].tolist()
        raise ValueError(
            f"blocks={_shorten(row)} must start from 0 and, from each rank to the next, stay or grow by 1; "
            "renumber the blocks without gaps"
        )


def _shorten(values: list[int], most: int = 12) -> str:
    return str(values) if len(values) <= most else f"{str(values[:most])[:-1]}, ...]"
