"""Laws of the networks that a run begins with: a deeper one knows what the old one knew, and can learn more."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from armdlab import ARMD, ARMDConfig, GenerationOrder
from armdlab.baselines import TableARMD
from armdlab.networks import MODELS, deepened, with_waves
from armdlab.recipes import Recipe, Session

N = 8


def trained(kind, *, n_layer, n_two_stream=None):
    """A network whose weights are all far from zero, as after training."""
    config = ARMDConfig(11, N, n_layer=n_layer, n_head=2, d_model=16, n_two_stream=n_two_stream, d_position=4)
    torch.manual_seed(0)
    network = MODELS[kind](config, 4) if kind == "block" else MODELS[kind](config)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return network.eval()


def logits(network):
    tokens = torch.arange(2 * N).view(2, N) % 11
    is_one_stream = not isinstance(network, ARMD) and hasattr(network, "block_size")
    return network(tokens, is_masked=tokens % 3 == 0) if is_one_stream else network(tokens)


@pytest.mark.parametrize("kind", MODELS)
def test_a_deeper_network_predicts_the_same(kind):
    network = trained(kind, n_layer=3)
    before = {name: weight.clone() for name, weight in network.state_dict().items()}
    deep = deepened(network, 8)
    assert len(deep.layers) == deep.config.n_layer == 8
    assert type(deep) is type(network)
    with torch.no_grad():
        torch.testing.assert_close(logits(deep), logits(network))
    assert network.config.n_layer == 3
    assert all(torch.equal(weight, before[name]) for name, weight in network.state_dict().items())


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_any_depth_and_share_of_two_stream_layers_can_be_deepened(data):
    L = data.draw(st.integers(1, 4))
    network = trained("armd", n_layer=L, n_two_stream=data.draw(st.integers(1, L)))
    deep = deepened(network, data.draw(st.integers(L, 9)))
    order = GenerationOrder.strided(N, data.draw(st.sampled_from([1, 2, 4])))
    tokens = torch.arange(N).view(1, N)
    with torch.no_grad():
        torch.testing.assert_close(deep(tokens, order), network(tokens, order))
    assert deep.config.n_two_stream * L <= deep.config.n_layer * network.config.n_two_stream


@pytest.mark.parametrize("kind", MODELS)
def test_each_new_layer_learns_from_the_first_step_on(kind):
    deep = deepened(trained(kind, n_layer=2), 6).train()
    adds_nothing = [not layer.attention_out.weight.any() for layer in deep.layers]
    assert adds_nothing == [False, True, True] * 2
    logits(deep).square().mean().backward()
    for layer in deep.layers:
        assert layer.attention_out.weight.grad.any()
        assert layer.feed_forward_out.weight.grad.any()


def test_a_network_is_not_made_shallower():
    sentence = "n_layer=2 is less than the 3 of the network to deepen; give as many or more"
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        deepened(trained("ar", n_layer=3), 2)


def test_waves_follow_a_table_of_the_same_kernel_everywhere():
    """A table that waves made is found again, turned and scaled as it may be."""
    config = ARMDConfig(11, 63, n_layer=2, n_head=2, d_model=16)
    torch.manual_seed(0)
    waved, tabled = ARMD(config).eval(), TableARMD(config).eval()
    turn = torch.linalg.qr(torch.randn(config.d_position, config.d_position)).Q
    tabled.load_state_dict({k: v for k, v in waved.state_dict().items() if k != "amplitudes"}, strict=False)
    with torch.no_grad():
        tabled.position.copy_(3 * waved.position_embeddings() @ turn)
    found = with_waves(tabled).eval()
    assert type(found) is ARMD
    torch.testing.assert_close(found.amplitudes, 3 * waved.amplitudes, atol=0.05, rtol=0.05)
    tokens = torch.arange(63).view(1, 63) % 11
    with torch.no_grad():
        expected = tabled(tokens)
        assert (found(tokens) - expected).abs().max() < 0.1 * expected.std()
    assert hasattr(tabled, "position")


def test_only_a_table_is_replaced():
    network = trained("armd", n_layer=1)
    assert with_waves(network) is network


def test_a_run_may_start_from_a_model_with_a_table(tmp_path):
    """As from the tales that the lab ships."""
    recipe = Recipe(corpus="tales:2000", start="tales", length=160, steps=2, batch_size=2, bf16=False)
    session = Session.begin(recipe, tmp_path / "run")
    assert type(session.model) is ARMD
    for _ in session.training.run():
        pass
    session.save()
    assert Session.resume(tmp_path / "run").recipe.d_position == session.model.config.d_position
