"""Which network does a run begin with: one of fresh weights, or one that was trained before?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from armdlab.baselines import AR, MDLM, BlockDiffusion
from armdlab.counts import seed_for_torch
from armdlab.model import ARMD, ARMDConfig, Transformer
from armdlab.trained import Lab

MODELS = {"armd": ARMD, "ar": AR, "mdlm": MDLM, "block": BlockDiffusion}
SIZES = ("n_layer", "n_head", "d_model", "d_position", "tie_weights")


def fresh(model: str, config: ARMDConfig, *, block_size: int, seed: int) -> Transformer:
    """A network whose weights are drawn by a seed.

    Args:
        model: one of `MODELS`.
        config: its sizes.
        block_size: tokens in a block of block diffusion.
        seed: of the weights.

    Raises:
        ValueError: if the seed is none that torch takes.
    """
    torch.manual_seed(seed_for_torch(seed))
    return BlockDiffusion(config, block_size) if model == "block" else MODELS[model](config)


def redropped(network: Transformer, dropout: float) -> Transformer:
    """The same network, which drops another share of its features while it trains."""
    network.config = replace(network.config, dropout=dropout)
    for part in network.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = dropout
    return network


def brought_by(started: Lab, *, start: str, model: str, length: int) -> dict[str, Any]:
    """What a run that starts from a trained model takes over of it, by the names that a recipe has for it.

    Args:
        started: that model.
        start: where it lies.
        model: the kind that the recipe asks for.
        length: tokens in a row of the recipe, N.

    Raises:
        ValueError: if it is of another kind, or its texts are shorter than a row.
    """
    network = started.model
    if type(network) is not MODELS[model]:
        raise ValueError(f"start={start} holds {type(network).__name__}, not model={model!r}; name the same kind")
    if length > network.config.max_length:
        raise ValueError(
            f"start={start} holds a model of max_length={network.config.max_length}, shorter than "
            f"length={length}; take shorter rows"
        )
    sizes = {name: getattr(network.config, name) for name in SIZES} | {"vocab_size": started.tokenizer.vocab_size}
    return sizes | ({"block_size": network.block_size} if model == "block" else {})
