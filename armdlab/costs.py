"""What does a model pay for a batch, and what does it learn from?"""

from __future__ import annotations

import torch
from torch import Tensor

from armdlab.baselines import BlockDiffusion
from armdlab.model import Transformer
from armdlab.objectives import chance_of_said, diffusion_bound, nll
from armdlab.orders import GenerationOrder
from armdlab.rows import Rows, Text


def nats_to_learn(
    model: Transformer,
    text: Text | Rows,
    tokens: Tensor,
    order: GenerationOrder,
    chance: torch.Generator,
    unlikelihood: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """What each token of a batch costs, (B, N): its nats; and what is learnt from: soft targets, and `unlikelihood`.

    Padding is learnt where it is paid for, so what is learnt is what evaluation scores and decoding samples. Masked
    diffusion pays for all of it: its random orders leave none that no later text could see.
    """
    if isinstance(getattr(model, "module", model), BlockDiffusion):
        bound = diffusion_bound(model, tokens, generator=chance, reduction="none")
        return bound, bound
    is_soft = isinstance(text, Rows) and text.soft_targets is not None
    if is_soft or unlikelihood:
        log_chances = model(tokens, order).float().log_softmax(-1)
        nats = costs = -log_chances.gather(-1, tokens.unsqueeze(-1)).squeeze(-1)
        if is_soft:
            costs = text.soft_targets(tokens, order).expected(nats, log_chances)
        if unlikelihood:
            costs = costs + unlikelihood * chance_of_said(log_chances, tokens, order)
    else:
        nats = costs = nll(model, tokens, order, "none")
    if isinstance(text, Text):
        return nats, costs
    is_paid = text.is_paid(tokens, order)
    return nats * is_paid, costs * is_paid


def n_tokens_of_text(text: Text | Rows, tokens: Tensor) -> int:
    """What nats are divided by: tokens of text, padding left out.

    Not all that is paid for: else a text would weigh less in strided orders, where much padding is paid for that is
    certain and costs next to nothing.
    """
    return tokens.numel() if isinstance(text, Text) else int(text.is_text(tokens).sum())
