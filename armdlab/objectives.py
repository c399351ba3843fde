"""How many nats does a text cost, in one pass or as masked diffusion? (ARMD, equations 1 and 2)"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from armdlab.baselines import BlockDiffusion
from armdlab.model import Transformer
from armdlab.orders import GenerationOrder

Reduction = Literal["none", "token_mean", "sum"]


def nll(
    model: Transformer,
    tokens: Tensor,
    order: GenerationOrder | None = None,
    reduction: Reduction = "token_mean",
) -> Tensor:
    """Exact negative log-likelihood under an order, by the chain rule over blocks, from ONE pass.

    Within a block the tokens are independent given the earlier blocks; that is the model, not an
    approximation of it.

    Args:
        model: what predicts.
        tokens: int64 (B, N) in text order.
        order: who is made when; None for left to right.
        reduction: "none" for (B, N) in text order, "token_mean" for the mean, "sum" for the sum.

    Returns:
        Nats: (B, N), or a scalar.

    Raises:
        ValueError: if `reduction` is unknown, or as the model.
    """
    logits = model(tokens, order)
    losses = F.cross_entropy(logits.float().flatten(0, 1), tokens.flatten(), reduction="none").view_as(tokens)
    return _reduce(losses, reduction)


def chance_of_said(log_chances: Tensor, tokens: Tensor, order: GenerationOrder, *, below: float = 0.05) -> Tensor:
    """What a model leaves to tokens that the text holds already, where many may come and these do not.

    Added to the loss it teaches what nats alone do not: a friend has any of sixty names but the hero's, so a model that
    does not leave that one out pays ln(60/59) = 0.017 nats, and goes on paying (tests/benchmarks/README.md).
    Unlikelihood training penalises -ln(1 - p) of all tokens said before, wherever they do not come; ours p itself, and
    only at draws from many: elsewhere a word may well be said again, and must keep its chance.

    Args:
        log_chances: (B, N, V) in text order, the log-softmax of the logits.
        tokens: int64 (B, N) in text order.
        order: who is made when: what stands in earlier blocks has been said.
        below: positions where some token has this chance or more are no draws from many, and are left alone.

    Returns:
        Sum of their chances at each position, each kind of token counted once: (B, N) in text order.

    Source: Welleck et al., Neural Text Generation with Unlikelihood Training, 2020, section 4.1.
    """
    B, N = tokens.shape
    has_many = log_chances.detach().amax(-1) < math.log(below)
    chances = log_chances.gather(-1, tokens.unsqueeze(1).expand(B, N, N)).exp()  # of x_j at position i
    blocks = order.blocks_in_text_order.to(tokens.device).expand(B, N)
    is_said = blocks.unsqueeze(-1) > blocks.unsqueeze(-2)
    is_meant = tokens.unsqueeze(-1) == tokens.unsqueeze(-2)
    times = is_said.float() @ is_meant.float()  # that x_j has been said before i
    return has_many * (chances * (is_said & ~is_meant) / times.clamp(min=1)).sum(-1)


def weighted_nll(
    model: Transformer,
    tokens: Tensor,
    order: GenerationOrder,
    gamma: Tensor,
    reduction: Reduction = "token_mean",
) -> Tensor:
    """Nats of each token, weighted by its block (ARMD, eq. 2); the lab trains with gamma = 1 (`costs.nats_to_learn`).

    Args:
        model: what predicts.
        tokens: int64 (B, N) in text order.
        order: who is made when, and together with whom.
        gamma: float (n_blocks,), the weight gamma of each block; all ones give `nll`.
        reduction: as for `nll`; the mean is over tokens, not over weights.

    Returns:
        Weighted nats: (B, N) in text order, or a scalar.

    Raises:
        ValueError: if `gamma` has not one weight for each block.
    """
    if gamma.shape != (order.n_blocks,):
        raise ValueError(f"gamma has shape {tuple(gamma.shape)}; give one weight for each block, ({order.n_blocks},)")
    weights = gamma.to(tokens.device)[order.blocks_in_text_order.to(tokens.device)]
    return _reduce(weights * nll(model, tokens, order, "none"), reduction)


def diffusion_nll(
    denoiser: Callable[[Tensor], Tensor],
    tokens: Tensor,
    masking_times: Tensor,
    alpha: Tensor,
    mask_token: int,
) -> Tensor:
    """The discrete-time loss of masked diffusion, for one masking process: one network call for each step (eq. 1).

    At step t every masked token is scored, weighted by the chance that a token masked by t was masked exactly at t;
    `nll` under `GenerationOrder.from_masking_times` scores only those that were. Their expectations over masking
    processes are the same.

    Args:
        denoiser: maps int64 (B, N), with `mask_token` where a token is masked, to logits (B, N, V).
        tokens: int64 (B, N).
        masking_times: int64 (B, N), the step in 1 .. T at which each position becomes [mask].
        alpha: float (T + 1,), the chance that a token is still clean at t = 0 .. T, falling from 1 to 0.
        mask_token: the id that stands for [mask].

    Returns:
        Nats (B,).

    Raises:
        ValueError: if `alpha` does not fall from 1 to 0, or a masking time is outside 1 .. T.
    """
    T = len(alpha) - 1
    if T < 1 or alpha[0] != 1 or alpha[-1] != 0 or (alpha.diff() > 0).any():
        raise ValueError(f"alpha={alpha.tolist()} must fall from 1 (all clean) to 0 (all masked), in T >= 1 steps")
    if masking_times.min() < 1 or masking_times.max() > T:
        raise ValueError(
            f"masking_times run from {masking_times.min()} to {masking_times.max()}; alpha has steps 1 to {T}"
        )
    total = torch.zeros(len(tokens), device=tokens.device, dtype=alpha.dtype)
    for t in range(1, T + 1):
        if alpha[t] == alpha[t - 1]:
            continue  # nothing is masked at this step, so nothing is paid
        is_masked = masking_times <= t
        logits = denoiser(tokens.masked_fill(is_masked, mask_token))
        log_p = logits.log_softmax(-1).gather(-1, tokens.unsqueeze(-1)).squeeze(-1)
        masked_now = (alpha[t - 1] - alpha[t]) / (1 - alpha[t])  # P(tau = t | tau <= t)
        total -= masked_now * (log_p * is_masked).sum(-1)
    return total


@dataclass(frozen=True)
class Masking:
    """One state of masking for each row, as masked diffusion is trained and scored by.

    Args:
        is_masked: bool (B, N), what is [mask].
        weights: float (B, N), what the nats of a masked token count; 0 where it is not masked.
    """

    is_masked: Tensor
    weights: Tensor

    @classmethod
    def draw(cls, n_rows: int, length: int, block_size: int, generator: torch.Generator | None = None) -> Masking:
        """Draw how many tokens of each block are masked, k, and which.

        k is drawn by low discrepancy: all rows and blocks share out its range. In float64, for keys of a long row that
        collide in float32 favour low positions.

        Args:
            n_rows: number of rows B.
            length: tokens in a row, N.
            block_size: tokens of a block; the last one may be shorter.
            generator: source of chance, on the CPU; None for torch's global one.
        """
        block_of = torch.arange(length) // block_size
        sizes = torch.full((-(-length // block_size),), block_size)
        sizes[-1] = length - (len(sizes) - 1) * block_size
        n, shape = n_rows * len(sizes), (n_rows, len(sizes))
        chance = {"dtype": torch.float64, "generator": generator}
        time = (torch.rand((), **chance) + torch.arange(n, dtype=torch.float64) / n).remainder(1).view(shape)
        n_masked = (time * sizes).long().clamp(max=sizes - 1) + 1  # (B, blocks)
        by_chance = (torch.rand(n_rows, length, **chance) + block_of).argsort(-1)  # each block's positions, shuffled
        rank = by_chance.argsort(-1) - block_of * block_size  # in its block
        is_masked = rank < n_masked[:, block_of]
        return cls(is_masked, is_masked * (sizes / n_masked)[:, block_of])

    def rows(self, start: int, stop: int) -> Masking:
        """The states of some rows."""
        return Masking(self.is_masked[start:stop], self.weights[start:stop])


def diffusion_bound(
    model: BlockDiffusion,
    tokens: Tensor,
    masking: Masking | None = None,
    *,
    generator: torch.Generator | None = None,
    reduction: Reduction = "token_mean",
) -> Tensor:
    """One unbiased sample of the bound that masked diffusion learns: the negative ELBO in continuous time.

    Under the log-linear schedule the bound is an integral over t of 1/t times the nats of what is masked, each token
    with chance t (MDLM, eq. 10; BD3-LM, eq. 8, block by block). Integrating over t with the number k of masked tokens
    held gives weight 1/k, each k = 1 .. n being equally likely: the same expectation with less variance. It is also the
    mean of the exact NLL over all orders.

    Args:
        model: `MDLM` or `BlockDiffusion`.
        tokens: int64 (B, N) in text order.
        masking: what is masked; None to draw it.
        generator: source of chance where it is drawn, on the CPU; None for torch's global one.
        reduction: as for `nll`.

    Returns:
        Nats: (B, N), 0 where a token was not masked, or a scalar.

    Raises:
        ValueError: if `reduction` is unknown, or the model is no masked diffusion.
    """
    bare = getattr(model, "module", model)  # of several processes, the model is wrapped
    if not isinstance(bare, BlockDiffusion):
        raise ValueError(f"model={type(bare).__name__} is not trained by masking and has no bound; score it by nll")
    if masking is None:
        block_size = bare.block_size
        masking = Masking.draw(*tokens.shape, block_size, generator)
    logits = model(tokens, is_masked=masking.is_masked.to(tokens.device))
    losses = F.cross_entropy(logits.float().flatten(0, 1), tokens.flatten(), reduction="none").view_as(tokens)
    return _reduce(masking.weights.to(tokens.device) * losses, reduction)


def _reduce(losses: Tensor, reduction: Reduction) -> Tensor:
    if reduction == "none":
        return losses
    if reduction == "token_mean":
        return losses.mean()
    if reduction == "sum":
        return losses.sum()
    raise ValueError(f"reduction={reduction!r} is unknown; choose 'none', 'token_mean' or 'sum'")
