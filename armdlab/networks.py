"""Which network does a run begin with: one of fresh weights, or one that was trained before?"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F

from armdlab.baselines import AR, MDLM, BlockDiffusion, TableARMD
from armdlab.counts import seed_for_torch
from armdlab.model import ARMD, ARMDConfig, Transformer
from armdlab.positions import frequencies
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


def with_waves(network: Transformer) -> Transformer:
    """The network itself; for one with a table of position embeddings, an ARMD with the waves that come nearest to it.

    What they cannot follow is a kernel that differs from place to place: that has to be learnt back.

    Args:
        network: a trained one; it is left as it is.
    """
    if not isinstance(network, TableARMD):
        return network
    found = ARMD(replace(network.config, d_position=None))
    kept = {name: value for name, value in network.state_dict().items() if name != "position"}
    found.load_state_dict(kept, strict=False)
    unit = F.normalize(network.position.detach().double(), dim=-1)
    length, N, alike = network.position.detach().norm(dim=-1).mean(), len(unit), unit @ unit.T
    kernel = torch.stack([alike.diagonal(d).mean() for d in range(N)])  # in the mean over places, by distance
    each = torch.outer(torch.arange(N), frequencies(found.config.d_position).double()).cos()
    power = torch.linalg.lstsq(each, kernel).solution.clamp(min=1e-4)  # from 0 none could grow
    with torch.no_grad():
        found.amplitudes.copy_(length * power.sqrt())
    return found.train(network.training)


def deepened(network: Transformer, n_layer: int) -> Transformer:
    """A deeper network that predicts the same, but for rounding: new layers stand between the old, and add nothing yet.

    Each is a copy of the layer before it whose two matrices that write to the rows are zero. They learn at once, and
    with them the copy's queries and keys find something to work for.

    Args:
        network: a trained one; it is left as it is.
        n_layer: layers of the new network, spread evenly over both halves: the first has two streams in ARMD.

    Raises:
        ValueError: if the network has more layers already.

    Source: Wu et al., LLaMA Pro: Progressive LLaMA with Block Expansion, ACL 2024 (arXiv 2401.02415).
    """
    config = network.config
    if n_layer < config.n_layer:
        raise ValueError(
            f"n_layer={n_layer} is less than the {config.n_layer} of the network to deepen; give as many or more"
        )
    first, second = (0, config.n_two_stream), (config.n_two_stream, config.n_layer)
    n_first = n_layer * config.n_two_stream // config.n_layer
    deep = copy.deepcopy(network)
    deep.config = replace(config, n_layer=n_layer, n_two_stream=n_first)
    layers = []
    for (start, stop), n in ((first, n_first), (second, n_layer - n_first)):
        sources = [start + i * (stop - start) // n for i in range(n)]
        for source, before in zip(sources, [None, *sources], strict=False):
            layer = copy.deepcopy(network.layers[source])
            if source == before:
                torch.nn.init.zeros_(layer.attention_out.weight)
                torch.nn.init.zeros_(layer.feed_forward_out.weight)
            layers.append(layer)
    deep.layers = torch.nn.ModuleList(layers)
    return deep


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
