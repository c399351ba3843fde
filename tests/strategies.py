"""What hypothesis draws: every family of orders, and small models that are never trivial."""

import torch
from hypothesis import strategies as st

from armdlab import ARMDConfig, GenerationOrder
from armdlab.model import Transformer


@st.composite
def orders(draw, length=None, max_length=12, batch_size=None):
    """An order of any family; with `batch_size`, of a family whose rows may differ half of the time."""
    n = length or draw(st.integers(1, max_length))
    seed = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    rows = batch_size if batch_size and draw(st.booleans()) else None
    family = draw(
        st.sampled_from(
            ["left_to_right", "random", "shuffled", "strided", "behind", "masking", "blockwise", "infilling"]
        )
    )
    if family == "left_to_right":
        return GenerationOrder.left_to_right(n)
    if family == "random":
        return GenerationOrder.random(n, batch_size=rows, generator=seed)
    if family == "shuffled":
        return GenerationOrder.shuffled(n, draw(st.integers(0, n)), batch_size=rows, generator=seed)
    if family == "strided":
        return GenerationOrder.strided(n, draw(st.sampled_from([s for s in range(1, n + 1) if n % s == 0])))
    if family == "behind":
        streams = draw(st.sampled_from([s for s in range(1, n + 1) if n % s == 0]))
        return GenerationOrder.strided(n, streams).behind(torch.arange(n) < draw(st.integers(0, n)))
    if family == "blockwise":
        return GenerationOrder.blockwise(n, draw(st.integers(1, n)))
    shape = (n,) if rows is None else (rows, n)
    if family == "masking":
        return GenerationOrder.from_masking_times(torch.randint(1, draw(st.integers(1, n)) + 1, shape, generator=seed))
    known = torch.rand(shape, generator=seed) < 0.5
    unknown = int((~known).sum(-1).min())
    return GenerationOrder.infilling(known, draw(st.integers(1, max(1, min(unknown, 4)))))


def tiny(cls, *, vocab_size=7, max_length=12, seed=0, **sizes) -> Transformer:
    """A random model in float32 whose weights are large enough that every input matters."""
    torch.manual_seed(seed)
    config = ARMDConfig(vocab_size, max_length, **{"n_layer": 3, "n_head": 2, "d_model": 16, "d_position": 8, **sizes})
    model = cls(config).eval()
    with torch.no_grad():
        for parameter in model.layers.parameters():
            parameter.mul_(6.0 if parameter.dim() == 2 else 1.0)
        model.embedding.weight.mul_(50.0)
        model.head.weight.mul_(6.0)
    return model


def random_tokens(model, rows, length, seed=0):
    """int64 (rows, length) ids that the model knows."""
    return torch.randint(model.config.vocab_size, (rows, length), generator=torch.Generator().manual_seed(seed))


def order_around(is_known, streams):
    """What decoding follows: streams behind a prompt keep the places they have without one; gaps they divide."""
    n_known = int(is_known.sum())
    if is_known[:n_known].all():
        return GenerationOrder.infilling(torch.zeros_like(is_known), streams).behind(is_known)
    return GenerationOrder.infilling(is_known, streams)
