"""Laws of the network: strictly causal, equivariant, normalised, and the same in every form of its equations."""

import itertools
import math
import re
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import orders, random_tokens, tiny

import armdlab.model
from armdlab import AR, ARMD, ARMDConfig, GenerationOrder
from armdlab.baselines import LeakyMask, LeakyQuery, ShiftedQuery
from armdlab.engine import Engine
from armdlab.masks import ALL_VISIBLE, PLAIN_CAUSAL, Mask, Masks, strictly_causal_mask
from armdlab.model import aggregate, attend
from armdlab.objectives import nll
from armdlab.positions import sinusoids, waves

N, B = 8, 2


@torch.no_grad()
def leak_by_value(model, order):
    """Largest change of a logit that strict causality forbids, over perturbations of every token."""
    tokens = random_tokens(model, B, order.length)
    blocks = order.blocks_in_text_order.expand(B, -1)
    before, worst = model(tokens, order), 0.0
    for p in range(order.length):
        perturbed = tokens.clone()
        perturbed[:, p] = (perturbed[:, p] + 1) % model.config.vocab_size
        change = (model(perturbed, order) - before).abs().amax(-1)
        worst = max(worst, float(change[blocks <= blocks[:, p : p + 1]].max()))
    return worst


def leak_by_gradient(model, order):
    """Largest gradient that flows to a token from a logit of its own or an earlier block."""
    tokens = random_tokens(model, 1, order.length)
    order = GenerationOrder(order.positions.reshape(-1, order.length)[0], order.blocks.reshape(-1, order.length)[0])
    embedded = {}
    hook = model.embedding.register_forward_hook(lambda _m, _i, out: embedded.setdefault("rows", out.requires_grad_()))
    logits = model(tokens, order)
    hook.remove()
    ranked, worst = order.to_generation_order(logits), 0.0
    for n in range(order.length):
        (gradient,) = torch.autograd.grad(ranked[0, n].square().sum(), embedded["rows"], retain_graph=True)
        hidden_from_n = (order.blocks >= order.blocks[n])[: gradient.shape[1]]  # rows of the embedding are ranks
        worst = max([worst, *gradient[0, hidden_from_n].abs().flatten().tolist()])
    return worst


@given(orders(length=N, batch_size=B), st.integers(1, 3))
@settings(max_examples=60)
def test_changing_a_token_leaves_every_logit_of_its_own_and_earlier_blocks_bit_identical(order, n_two_stream):
    assert leak_by_value(tiny(ARMD, n_two_stream=n_two_stream), order) == 0.0


@given(orders(length=N))
@settings(max_examples=20)
def test_no_gradient_flows_from_a_logit_to_tokens_of_its_own_or_later_blocks(order):
    assert leak_by_gradient(tiny(ARMD), order) == 0.0


@pytest.mark.parametrize("leaky", [LeakyQuery, LeakyMask])
@pytest.mark.parametrize(
    "order",
    [
        GenerationOrder.left_to_right(N),
        GenerationOrder.random(N, generator=torch.Generator().manual_seed(3)),
        GenerationOrder.strided(N, 2),
        GenerationOrder.blockwise(N, 3),
    ],
    ids=repr,
)
def test_the_laws_of_causality_catch_both_planted_leaks(leaky, order):
    assert leak_by_value(tiny(leaky), order) > 1e-3
    assert leak_by_gradient(tiny(leaky), order) > 1e-6


@given(orders(length=N, batch_size=B))
def test_every_token_of_an_earlier_block_matters(order):
    """The mirror of causality: a mask that hid too much would pass every law of leaks."""
    model, tokens = tiny(ARMD), random_tokens(tiny(ARMD), B, N)
    blocks = order.blocks_in_text_order.expand(B, -1)
    before = model(tokens, order)
    for p in range(N):
        perturbed = tokens.clone()
        perturbed[:, p] = (perturbed[:, p] + 1) % model.config.vocab_size
        change = (model(perturbed, order) - before).abs().amax(-1)
        assert (change[blocks > blocks[:, p : p + 1]] > 0).all()


@given(orders(length=N, batch_size=B), st.integers(0, 2**31))
def test_logits_do_not_depend_on_the_storage_order_inside_a_block(order, seed):
    """The first block is the evidence set where everything else follows it: its order does not matter either."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(order.positions.shape, generator=generator)
    stored = (order.blocks + 0.9 * noise).argsort(-1)  # shuffles ranks inside their blocks only
    other = GenerationOrder(order.positions.gather(-1, stored), order.blocks)
    model, tokens = tiny(ARMD), random_tokens(tiny(ARMD), B, N)
    torch.testing.assert_close(model(tokens, other), model(tokens, order), atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "order",
    [
        GenerationOrder.left_to_right(4),
        GenerationOrder([2, 0, 3, 1], [0, 1, 2, 3]),
        GenerationOrder.strided(4, 2),
        GenerationOrder.blockwise(4, 3),
        GenerationOrder([0, 1, 2, 3], [0, 0, 0, 0]),
        GenerationOrder.from_masking_times([1, 3, 1, 2]),
        GenerationOrder.infilling([False, True, False, False], 2),
    ],
    ids=repr,
)
@torch.no_grad()
def test_probabilities_of_all_texts_of_a_small_world_sum_to_one(order):
    model = tiny(ARMD, vocab_size=3)
    world = torch.tensor(list(itertools.product(range(3), repeat=4)))
    total = nll(model, world, order, "none").double().sum(-1).neg().exp().sum()
    assert abs(float(total) - 1.0) < 1e-6


def test_prefix_aggregation_is_equation_6_written_out():
    model = tiny(ARMD)
    order = GenerationOrder.strided(N, 2)
    made = order.to_generation_order(random_tokens(model, 1, N))
    x, x_at = model.embed(made[:, :-1], order.positions[:-1])
    g, _ = model.first_targets(x, x_at, order.positions + 1, Masks.one_pass(order))
    is_seen, pe = strictly_causal_mask(order), model.position_embeddings()
    for n in range(N):
        expected = (pe[order.positions[n] + 1] @ pe[0]) * model.bos
        for i in range(N):
            if is_seen[n, i]:
                weight = pe[order.positions[n] + 1] @ pe[order.positions[i] + 1]
                expected = expected + weight * model.embedding.weight[made[0, i]]
        torch.testing.assert_close(g[0, n], model.prefix_norm(expected), atol=1e-5, rtol=1e-5)


@given(orders(length=N))
def test_matrix_and_recurrent_prefix_aggregation_agree(order):
    """The recurrent form reads one block at a time and keeps only the state."""
    model = tiny(ARMD)
    made = order.to_generation_order(random_tokens(model, B, N))
    x, x_at = model.embed(made[:, :-1], order.positions[:-1])
    at_once, _ = model.first_targets(x, x_at, order.positions + 1, Masks.one_pass(order))
    engine = Engine.of(model)
    cache, fed = engine.new_cache(B, N), 0
    for start, stop in itertools.pairwise([*(order.blocks.diff(prepend=torch.tensor([-1])).nonzero().flatten()), N]):
        new = slice(fed, start + 1)  # BOS and the ranks of earlier blocks
        targets_at = order.positions[start:stop] + 1
        in_turn = engine.first_targets(x[:, new], x_at[new], targets_at, ALL_VISIBLE, cache, None)
        fed = start + 1
        torch.testing.assert_close(in_turn, at_once[:, start:stop], atol=1e-5, rtol=1e-5)
    assert cache.prefix.shape == (B, model.config.d_position, model.config.d_model)


@given(orders(length=N, batch_size=B), st.integers(1, N))
@settings(max_examples=60)
def test_prefix_aggregation_in_chunks_is_the_matrix_form(order, size):
    model, tokens = tiny(ARMD).double(), random_tokens(tiny(ARMD), B, N)

    def logits_and_gradient():
        logits = model(tokens, order)
        return logits, *torch.autograd.grad(logits.square().sum(), [model.amplitudes, model.embedding.weight])

    expected = logits_and_gradient()
    with mock.patch.object(armdlab.model, "CHUNK", size):
        torch.testing.assert_close(logits_and_gradient(), expected, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("name", ["left_to_right", "strided", "batched", "masking"])
def test_prefix_aggregation_never_holds_a_matrix_of_all_pairs(name):
    """Nor keeps its parts for the backward pass: what is saved there is counted."""
    length, width, saved = 2048, 8, []
    seed = torch.Generator().manual_seed(0)
    order = {
        "left_to_right": GenerationOrder.left_to_right(length),
        "strided": GenerationOrder.strided(length, 16),
        "batched": GenerationOrder.random(length, batch_size=1, generator=seed),
        "masking": GenerationOrder.from_masking_times(torch.randint(1, 8, (length,), generator=seed)),
    }[name]
    pe, x = torch.randn(length, width, requires_grad=True), torch.randn(1, length, width)
    mask = Masks.one_pass(order).target_to_evidence
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: saved.append(tensor) or tensor, lambda kept: kept):
        aggregate(pe, pe, x, mask)
    n_floats = sum(tensor.numel() for tensor in saved if tensor.is_floating_point())
    assert max(tensor.numel() for tensor in saved if tensor.is_floating_point()) < length**2 / 4
    assert n_floats < 0.6 * length**2


@pytest.mark.parametrize("length", [63, 255, 1023])
def test_position_kernel_starts_local_and_is_the_same_everywhere(length):
    pe = ARMD(ARMDConfig(7, length, n_layer=1, n_head=2, d_model=16)).position_embeddings().detach().double()
    kernel = pe @ pe.T / (pe[0] @ pe[0])
    by_distance = kernel[0]
    for d in range(length + 1):
        torch.testing.assert_close(kernel.diagonal(d), by_distance[d].expand(length + 1 - d), atol=1e-5, rtol=0)
    assert by_distance[1] > 0.9
    assert by_distance[10:].abs().max() < 0.25
    usual = sinusoids(length + 1, 64, 10_000.0)
    far = usual @ usual.T / (usual[0] @ usual[0])
    assert far[0, :64].min() > 0.4  # the usual base does not fall off at all


@pytest.mark.parametrize("width", [8, 64])
def test_waves_come_back_after_twice_their_width_and_not_before(width):
    pe = waves(2 * width + 1, width).double()
    kernel = pe @ pe[0] / (width / 2)
    assert kernel[0] == pytest.approx(1)
    assert kernel[2 * width] == pytest.approx(-1, abs=1e-4)
    assert kernel[4 : 2 * width - 3].abs().max() < 0.35


def test_position_embeddings_weigh_half_a_number_for_each_of_their_dimensions_however_long_the_text():
    sizes = {"n_layer": 1, "n_head": 2, "d_model": 16, "d_position": 32}
    short, long = (ARMD(ARMDConfig(7, length, **sizes)) for length in (16, 512))
    assert short.n_parameters == long.n_parameters == AR(short.config).n_parameters + 16 + 16  # and a norm


def test_both_streams_share_keys_and_values_so_targets_of_one_pass_equal_targets_of_two():
    """G^l reads X^l: a model of one two-stream layer must see X^0 only, whatever the order of evidence."""
    model = tiny(ARMD, n_layer=1)
    tokens = random_tokens(model, B, N)
    known = torch.arange(N) < 5
    one_by_one = GenerationOrder.infilling(known)
    at_once = GenerationOrder(one_by_one.positions, [0, 0, 0, 0, 0, 1, 2, 3])
    torch.testing.assert_close(model(tokens, one_by_one)[:, 5:], model(tokens, at_once)[:, 5:], atol=2e-5, rtol=1e-5)


def test_last_two_stream_layer_computes_no_queries_for_x():
    model, seen = tiny(ARMD, n_layer=4, n_two_stream=2), []
    for layer in model.layers:
        layer.query.register_forward_hook(lambda _m, inputs, _o: seen.append(inputs[0].shape[1]))
    model(random_tokens(model, B, N), GenerationOrder.left_to_right(N))
    assert seen == [2 * N, N, N, N]


@given(st.integers(0, 2**31))
@settings(max_examples=10)
def test_shifted_query_collapses_into_an_autoregressive_transformer(seed):
    shifted, ar = tiny(ShiftedQuery), tiny(AR)
    ar.load_state_dict(shifted.state_dict(), strict=False)
    tokens = random_tokens(shifted, B, N, seed)
    torch.testing.assert_close(shifted(tokens), ar(tokens), atol=1e-4, rtol=1e-4)


def test_shifted_query_is_not_equivariant_and_armd_is():
    tokens = random_tokens(tiny(ARMD), B, N)
    order = GenerationOrder.blockwise(N, 4)
    other = GenerationOrder([1, 0, 3, 2, 5, 4, 7, 6], order.blocks)
    difference = {
        cls: (tiny(cls)(tokens, other) - tiny(cls)(tokens, order)).abs().max() for cls in (ARMD, ShiftedQuery)
    }
    assert difference[ARMD] < 1e-4
    assert difference[ShiftedQuery] > 1e-1


def test_ar_transformer_equals_a_plain_causal_loop():
    """The slow reference: predict each token from a pass over the tokens before it and nothing else."""
    model, tokens = tiny(AR), random_tokens(tiny(AR), B, N)
    at_once = model(tokens)
    for n in range(1, N + 1):
        torch.testing.assert_close(model(tokens[:, :n])[:, -1], at_once[:, n - 1], atol=1e-5, rtol=1e-5)


def test_armd_without_permutation_scores_prefixes_alike():
    model, tokens = tiny(ARMD), random_tokens(tiny(ARMD), B, N)
    at_once = model(tokens)
    for n in range(1, N + 1):
        torch.testing.assert_close(model(tokens[:, :n])[:, -1], at_once[:, n - 1], atol=1e-5, rtol=1e-5)


def test_rows_of_a_batch_are_scored_under_their_own_orders():
    model, tokens = tiny(ARMD), random_tokens(tiny(ARMD), 3, N)
    rows = [GenerationOrder.strided(N, 2), GenerationOrder.random(N), GenerationOrder.blockwise(N, 3)]
    together = model(tokens, GenerationOrder.stack(rows))
    for row, order in enumerate(rows):
        alone = model(tokens[row : row + 1], order)
        torch.testing.assert_close(together[row : row + 1], alone, atol=1e-5, rtol=1e-5)


def test_what_is_made_first_and_alone_knows_of_its_place_the_sign_of_a_kernel_and_no_more():
    model, tokens = tiny(ARMD, d_position=10), random_tokens(tiny(ARMD), 1, N)
    with torch.no_grad():
        model.bos.normal_(std=100.0)  # so that the norm's epsilon plays no part
        model.amplitudes.copy_(torch.eye(5)[-1])  # one short wave: some kernels of either sign
    pe = model.position_embeddings().detach()
    kernel = pe[1 : N + 1] @ pe[0]
    made_first = {True: [], False: []}
    for place in range(N):
        others = [p for p in range(N) if p != place]
        order = GenerationOrder(torch.tensor([place, *others]), torch.arange(N))
        made_first[bool(kernel[place] > 0)].append(model(tokens, order)[0, place])
    for logits in made_first.values():
        torch.testing.assert_close(torch.stack(logits), logits[0].expand(len(logits), -1), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(made_first[True][0], made_first[False][0], atol=1e-2)


def test_tied_head_is_the_embedding_and_baselines_are_of_equal_size():
    config = ARMDConfig(1024, 256, n_layer=6, n_head=4, d_model=256, tie_weights=True)
    model = ARMD(config)
    assert model.head.weight is model.embedding.weight
    assert abs(AR(config).n_parameters / model.n_parameters - 1) < 0.01


def test_masks_of_the_fast_path_and_of_the_general_path_give_the_same_logits():
    model, order = tiny(ARMD), GenerationOrder.random(N)
    made = order.to_generation_order(random_tokens(model, B, N))
    ranks = torch.arange(N)
    explicit = Masks.between(torch.cat([torch.tensor([-1]), ranks[:-1]]), ranks)
    fast, general = (
        model.hidden(made[:, :-1], order.positions[:-1], order.positions, masks) for masks in (PLAIN_CAUSAL, explicit)
    )
    torch.testing.assert_close(fast, general, atol=1e-5, rtol=1e-5)


def test_model_runs_on_another_device_with_the_order_left_on_the_cpu():
    model = ARMD(ARMDConfig(7, N, n_layer=2, n_head=2, d_model=16)).to("meta")
    for order in (GenerationOrder.strided(N, 2), GenerationOrder.random(N, batch_size=2)):
        assert model(torch.zeros(2, N, dtype=torch.long, device="meta"), order).shape == (2, N, 7)


def test_loss_of_an_untrained_model_is_near_that_of_chance():
    model = ARMD(ARMDConfig(64, 32, n_layer=2, n_head=2, d_model=32))
    loss = nll(model, random_tokens(model, 8, 32), GenerationOrder.strided(32, 4))
    assert abs(float(loss.detach()) - math.log(64)) < 0.1


@pytest.mark.parametrize(
    ("sizes", "sentence"),
    [
        ({"n_layer": 0}, "n_layer=0 must be a whole number of at least 1"),
        ({"n_two_stream": 0}, "n_two_stream=0 must be a whole number of at least 1"),
        ({"n_two_stream": 7}, "n_two_stream=7 is more than n_layer=6; choose 1 to 6"),
        ({"n_head": 3}, "n_head=3 does not cut d_model=256 into heads of even width; try d_model=258"),
        ({"d_position": 7}, "d_position=7 must be even: sinusoids come as pairs of sin and cos"),
        ({"dropout": 1.0}, "dropout=1.0 must be at least 0 and below 1"),
        ({"position_base": 1.0}, "position_base=1.0 must be greater than 1"),
    ],
)
def test_sizes_that_no_model_can_have_are_refused(sizes, sentence):
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        ARMDConfig(100, 16, **sizes)


@pytest.mark.parametrize(
    ("tokens", "order", "sentence"),
    [
        (
            torch.full((1, 4), 9),
            None,
            "tokens holds ids from 9 to 9; this model knows 0 to 6: encode the text with the tokenizer that was saved "
            "beside the model",
        ),
        (
            torch.zeros(1, 13, dtype=torch.long),
            None,
            "tokens is torch.int64 of shape (1, 13); give int64 (B, N) with N from 1 to max_length=12",
        ),
        (
            torch.zeros(1, 4),
            None,
            "tokens is torch.float32 of shape (1, 4); give int64 (B, N) with N from 1 to max_length=12",
        ),
        (
            torch.zeros(2, 4, dtype=torch.long),
            GenerationOrder.left_to_right(5),
            "order has positions (5,) but tokens are (2, 4); give one order (N,) for all rows, or one (B, N) for each",
        ),
    ],
)
def test_tokens_and_orders_that_do_not_fit_are_refused(tokens, order, sentence):
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        tiny(ARMD)(tokens, order)


def test_ar_refuses_an_order_that_it_cannot_follow():
    sentence = (
        "order=GenerationOrder(length=8, n_blocks=5) is not left to right, the only one that AR can follow; use ARMD"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        tiny(AR)(random_tokens(tiny(AR), 1, N), GenerationOrder.strided(N, 2))


@pytest.mark.parametrize("kind", ["everything", "triangle", "matrix", "a matrix a row"])
def test_training_in_bfloat16_attends_as_the_fused_kernel_does(kind):
    draw = torch.Generator().manual_seed(0)
    queries, keys, values = (torch.randn(3, 2, 8, 4, generator=draw, requires_grad=True) for _ in range(3))
    allowed = torch.rand(3, 8, 8, generator=draw) < 0.5
    allowed |= torch.eye(8, dtype=torch.bool)  # no row without a key
    masks = {"everything": Mask(), "triangle": Mask(is_causal=True), "matrix": Mask(allowed[0])}
    mask = masks.get(kind, Mask(allowed))
    exact = attend(queries, keys, values, mask)
    found = attend(*(part.bfloat16() for part in (queries, keys, values)), mask)
    assert found.dtype == torch.bfloat16
    assert torch.allclose(found.float(), exact, atol=0.03)
    toward = torch.randn(exact.shape, generator=draw)
    for ours, theirs in zip(
        torch.autograd.grad(found.float(), (queries, keys, values), toward),
        torch.autograd.grad(exact, (queries, keys, values), toward),
        strict=True,
    ):
        assert torch.allclose(ours, theirs, atol=0.06)
