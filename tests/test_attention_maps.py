"""Laws of attention maps: they are the attention that the fused kernel computed, and nothing else."""

import re

import pytest
import torch
from hypothesis import given
from strategies import orders, random_tokens, tiny

from armdlab import ARMD, GenerationOrder
from armdlab.attention_maps import attention_maps
from armdlab.baselines import AR
from armdlab.decoding import decode_steps
from armdlab.engine import Engine
from armdlab.masks import may_see


def brought(model, tokens, order):
    """What attention brought to the targets in each layer, as the model itself computed it: (N, D)."""
    seen = []
    hooks = [
        layer.attention_out.register_forward_pre_hook(lambda _, rows: seen.append(rows[0][0, -order.length :]))
        for layer in model.layers
    ]
    with torch.no_grad():
        model(tokens, order)
    for hook in hooks:
        hook.remove()
    return seen


@given(orders(max_length=8))
def test_weights_times_values_are_what_the_kernel_brought(order):
    model = tiny(ARMD)
    tokens = random_tokens(model, 1, order.length)
    maps = attention_maps(model, tokens, order)
    for seen, found in zip(brought(model, tokens, order), maps, strict=True):
        mine = (found.weights @ found.values).movedim(0, 1).flatten(1)  # (H, N, d) -> (N, D)
        assert (mine - seen).abs().max() <= 1e-6 * max(1.0, seen.abs().max())


@given(orders(max_length=8))
def test_every_row_sums_to_one_and_what_is_forbidden_is_exactly_zero(order):
    model = tiny(ARMD, n_layer=4, n_two_stream=3)
    maps = attention_maps(model, random_tokens(model, 1, order.length), order)
    assert [found.reads for found in maps] == ["X", "X", "X", "G"]
    before = torch.cat([torch.tensor([-1]), order.blocks[:-1]])
    for found in maps:
        columns = before if found.reads == "X" else order.blocks
        allowed = may_see(order.blocks, columns, strictly=found.reads == "X")
        torch.testing.assert_close(found.weights.sum(-1), torch.ones_like(found.weights[..., 0]))
        assert (found.weights[:, ~allowed] == 0).all()
        assert (found.weights[:, allowed] > 0).all()


@pytest.mark.parametrize("n_two_stream", [1, 2, 3])
def test_a_row_is_what_the_target_reads_at_the_step_that_makes_it(n_two_stream, monkeypatch):
    """The last two-stream layer of a decoding run hands G's queries to the kernel exactly as one pass does."""
    model, order = tiny(ARMD, n_two_stream=n_two_stream), GenerationOrder.strided(8, 2)
    tokens = random_tokens(model, 1, 8)
    maps = attention_maps(model, tokens, order)
    seen = []
    engine = Engine.of(model)
    layer = engine.layers[n_two_stream - 1]
    product = layer.attention_out
    layer.attention_out = lambda rows: (seen.append(rows[0]), product(rows))[1]
    chosen = iter(order.steps())
    monkeypatch.setattr(
        "armdlab.decoding.Sampler.__call__",
        lambda self, logits, given=None: (tokens[:, next(chosen)], torch.zeros(1, logits.shape[1])),
    )
    list(decode_steps(engine, length=8, order=order))
    found = maps[n_two_stream - 1]
    mine = (found.weights @ found.values).movedim(0, 1).flatten(1)
    torch.testing.assert_close(torch.cat(seen), mine, rtol=1e-4, atol=1e-5)


def test_what_has_no_targets_is_refused():
    order = GenerationOrder.left_to_right(4)
    with pytest.raises(ValueError, match=r"^model=AR has no stream of targets to look into; give an ARMD$"):
        attention_maps(tiny(AR), torch.zeros(1, 4, dtype=torch.long), order)
    sentence = (
        "tokens has shape (2, 4) and order is GenerationOrder(length=4, n_blocks=4); give one text (1, N) and "
        "one order (N,)"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        attention_maps(tiny(ARMD), torch.zeros(2, 4, dtype=torch.long), order)
