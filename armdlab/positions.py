"""How does a network know where a token stands, and how far from another? (RoPE in attention; PE of ARMD, eq. 6)"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class Rotary(nn.Module):
    """Rotary position embedding at true text positions (Su et al., 2021)."""

    def __init__(self, d_head: int, n_positions: int, base: float) -> None:
        super().__init__()
        frequencies = base ** -(torch.arange(0, d_head, 2) / d_head)
        angles = torch.outer(torch.arange(n_positions), frequencies)  # (n_positions, d_head / 2)
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def at(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines (1 or B, 1, n, D/H/2) for int64 positions (n,) or (B, n)."""
        cos, sin = self.cos[positions], self.sin[positions]
        if positions.dim() == 1:
            cos, sin = cos.unsqueeze(0), sin.unsqueeze(0)
        return cos.unsqueeze(1), sin.unsqueeze(1)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair (x_k, x_{k + d/2}) of (B, H, n, d) by its angle."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1).to(x.dtype)


def waves(n_positions: int, width: int) -> Tensor:
    """Sines, then cosines, of `width` / 2 frequencies at every position: (n_positions, `width`).

    The frequencies w_k are evenly spaced up to pi / 2: a sum of cos(w_k d) can then fall to nothing and stay there, and
    first comes back, with the other sign, at d = 2 `width` tokens. Spread by powers of a base, as rotary embeddings
    have them, they never all cancel. Shorter waves than 4 tokens did not help (tests/benchmarks/README.md).
    """
    angles = torch.outer(torch.arange(n_positions), frequencies(width))
    return torch.cat([angles.sin(), angles.cos()], -1)


def frequencies(width: int) -> Tensor:
    """w_k of `waves`, in radians a token: (`width` / 2,)."""
    n_waves = width // 2
    return (torch.arange(n_waves) + 0.5) * (math.pi / 2 / n_waves)


def local_amplitudes(width: int, base: float) -> Tensor:
    """Amplitudes (`width` / 2,) that position embeddings start with: those of the usual sinusoids, of a short base.

    Those are as dense at frequency w as 1 / w, from 1 / `base` to 1; here a_k^2 is, and <PE_n, PE_i> falls off within
    some `base` tokens. What lies outside starts small, but can grow. The norm behind it hides how long PE_n is, but not
    how fast Adam turns it: the shorter, the faster. Length 0.3 learnt best among 0.1, 0.3, 1 and 3, on two corpora.
    """
    w = frequencies(width)
    is_in_band = (w >= 1 / base) & (w <= 1)
    amplitudes = torch.where(is_in_band, 1 / w, 1e-3).sqrt()
    return 0.3 * amplitudes / amplitudes.norm()


def sinusoids(n_positions: int, width: int, base: float) -> Tensor:
    """The usual sinusoids (n_positions, width), of length 0.3: wavelengths from 2 pi to 2 pi `base`, by powers of it.

    A table of position embeddings starts from them (`baselines.TableARMD`).
    """
    n_waves = width // 2
    spread = base ** -(torch.arange(n_waves) / max(n_waves - 1, 1))
    angles = torch.outer(torch.arange(n_positions), spread)
    return 0.3 * torch.cat([angles.sin(), angles.cos()], -1) / math.sqrt(n_waves)
