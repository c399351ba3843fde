"""Laws of filling gaps: what is known comes first, orders are exact, and the surest gap goes first."""

import itertools
import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import random_tokens, tiny

from armdlab import ARMD, GenerationOrder, generate
from armdlab.infilling import WAYS, filling_nll, filling_order, order_of_steps, surest_first
from armdlab.objectives import nll

KNOWN = torch.tensor([True, False, False, True, False, True, False])
GAPS = [1, 2, 4, 6]


def test_left_to_right_in_streams_is_the_order_of_infilling():
    for streams in (1, 2, 3, 4):
        assert filling_order(KNOWN, streams=streams) == GenerationOrder.infilling(KNOWN, streams)


@given(st.sampled_from(WAYS), st.integers(1, 4), st.integers(0, 99))
def test_every_way_reads_what_is_known_first_and_fills_each_gap_once(way, streams, seed):
    order = filling_order(KNOWN, way, streams, seed=seed, listed=[4, 1, 6, 2])
    assert order.positions[:3].tolist() == [0, 3, 5]
    assert sorted(order.positions[3:].tolist()) == GAPS
    assert order.blocks.tolist() == GenerationOrder.infilling(KNOWN, streams).blocks.tolist()


def test_the_ways_differ_as_their_names_say():
    assert filling_order(KNOWN, "right to left").positions[3:].tolist() == GAPS[::-1]
    assert filling_order(KNOWN, "as listed", listed=[4, 1, 6, 2]).positions[3:].tolist() == [4, 1, 6, 2]
    drawn = {tuple(filling_order(KNOWN, "random", seed=seed).positions.tolist()) for seed in range(20)}
    assert len(drawn) > 5
    assert filling_order(KNOWN, "random", seed=3) == filling_order(KNOWN, "random", seed=3)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"way": "up"}, "way='up' is unknown; choose left to right, right to left, random, as listed"),
        (
            {"way": "as listed", "listed": [1, 2]},
            "listed=[1, 2] must hold each position of a gap once: [1, 2, 4, 6]",
        ),
        ({"streams": 5}, "streams=5 is more than the 4 positions to generate; use fewer"),
    ],
)
def test_an_order_that_cannot_be_is_refused(arguments, sentence):
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        filling_order(KNOWN, **arguments)


@pytest.mark.parametrize("way", ["left to right", "right to left", "random"])
@pytest.mark.parametrize("streams", [1, 2])
def test_fillings_of_a_gap_have_chances_that_sum_to_one_in_every_order(way, streams):
    model, known = tiny(ARMD, vocab_size=4, max_length=5), torch.tensor([True, False, True, False, False])
    text = random_tokens(model, 1, 5).repeat(4**3, 1)
    text[:, ~known] = torch.tensor(list(itertools.product(range(4), repeat=3)))
    with torch.no_grad():
        prices = filling_nll(model, text, known, filling_order(known, way, streams, seed=1))
    assert (prices[:, known] == 0).all()
    torch.testing.assert_close(prices.double().sum(-1).neg().exp().sum(), torch.tensor(1.0, dtype=torch.float64))


def test_a_filling_is_refused_where_a_gap_comes_before_what_is_known():
    model = tiny(ARMD)
    with pytest.raises(ValueError, match=r"fills a gap before it has read what is known; let all of that come first$"):
        filling_nll(model, random_tokens(model, 1, 7), KNOWN, GenerationOrder.left_to_right(7))
    with pytest.raises(
        ValueError, match="fills a gap before it has read what is known"
    ):  # a block sees nothing of itself
        filling_nll(model, random_tokens(model, 1, 2), torch.tensor([True, False]), GenerationOrder([0, 1], [0, 0]))


@pytest.mark.parametrize("streams", [1, 2, 4])
def test_surest_first_has_exact_log_probabilities_and_keeps_what_is_known(streams):
    model = tiny(ARMD)
    text = random_tokens(model, 1, 7)[0]
    filled, made = text.masked_fill(~KNOWN, -1), []
    given_ = filled.clone()
    for step in surest_first(model, given_, streams=streams, seed=5):
        step.write_into(filled[None])
        made.append(step)
    assert torch.equal(filled[KNOWN], text[KNOWN])
    assert [len(step.positions) for step in made] == [streams] * (4 // streams)
    order = order_of_steps(KNOWN, [step.positions.tolist() for step in made])
    with torch.no_grad():
        priced = nll(model, filled[None], order, "none")[0]
    for step in made:
        torch.testing.assert_close(-step.log_probs[0].float(), priced[step.positions], atol=1e-5, rtol=1e-5)


def test_chances_of_surest_first_sum_to_one_over_all_fillings():
    """Its order depends on what it draws, and it is still one distribution."""
    model, known = tiny(ARMD, vocab_size=4, max_length=5, seed=2), torch.tensor([True, False, True, False, False])
    text, total, orders = random_tokens(model, 1, 5)[0], 0.0, set()
    for filling in itertools.product(range(4), repeat=3):
        words = text.clone()
        words[~known] = torch.tensor(filling)
        steps = list(surest_first(model, text.masked_fill(~known, -1), words=words))
        total += float(torch.stack([step.log_probs.sum() for step in steps]).sum().exp())
        orders.add(tuple(step.positions.item() for step in steps))
    assert abs(total - 1) < 1e-5
    assert len(orders) > 1, "no filling changed the order: the law was not tried"


def test_surest_first_takes_the_surest_gap():
    model = tiny(ARMD)
    text = random_tokens(model, 1, 7)[0]
    first = next(surest_first(model, text.masked_fill(~KNOWN, -1), seed=0)).positions.item()
    together = order_of_steps(KNOWN, [GAPS])
    with torch.no_grad():
        top = model(text[None], together)[0].softmax(-1).amax(-1)
    assert first == max(GAPS, key=lambda p: float(top[p]))


def test_surest_first_repeats_by_its_seed_and_refuses_too_many_streams():
    model = tiny(ARMD)
    text = random_tokens(model, 1, 7)[0].masked_fill(~KNOWN, -1)
    runs = [[step.tokens.tolist() for step in surest_first(model, text, seed=seed)] for seed in (1, 1, 2, 3, 4)]
    assert runs[0] == runs[1]
    assert any(run != runs[0] for run in runs[2:])
    with pytest.raises(ValueError, match=r"^streams=5 must be from 1 to 4, the number of positions to fill$"):
        surest_first(model, text, streams=5)


def test_generate_fills_along_an_order_of_ours():
    model = tiny(ARMD)
    text = random_tokens(model, 1, 7)[0]
    order = filling_order(KNOWN, "right to left")
    filled = generate(model, length=7, known=text.masked_fill(~KNOWN, -1), order=order, seed=0)[0]
    assert torch.equal(filled[KNOWN], text[KNOWN])


def test_what_is_filled_surest_first_is_not_disturbed_by_dropout():
    model, tokens = tiny(ARMD, dropout=0.5).train(), torch.tensor([3, -1, -1, 1, -1, -1])
    while_training = list(surest_first(model, tokens, streams=2, seed=0))
    assert model.training
    for step, other in zip(while_training, surest_first(model.eval(), tokens, streams=2, seed=0), strict=True):
        assert torch.equal(step.tokens, other.tokens)
        assert torch.equal(step.log_probs, other.log_probs)
