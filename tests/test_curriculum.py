"""Laws of the curriculum."""

import re
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import orders

from armdlab import GenerationOrder
from armdlab.curriculum import Curriculum, cut_blocks, known_around_spans, known_in_prompts
from armdlab.sampling import seeded

PLAN = Curriculum(length=16, i_ar=10, i_perm=40, i_strided=60, rho=8, streams=(1, 2, 4), seed=3)


@given(st.integers(0, 100), st.integers(1, 4))
def test_order_is_a_pure_function_of_its_step(step, rows):
    assert PLAN.order(step, rows) == PLAN.order(step, rows)


@pytest.mark.parametrize("family", ["shuffled", "random", "infilling", "cut", "strided"])
def test_another_seed_draws_other_orders_of_every_family_that_draws(family):
    plans = [Curriculum(16, 0, 0, 0, rho=8, streams=(1, 2, 4), seed=s, mixture=((family, 1.0),)) for s in (0, 0, 1)]
    first, again, other = ([plan.order(step, 2) for step in range(8)] for plan in plans)
    assert first == again
    assert first != other


def test_lessons_follow_each_other_left_to_right_shuffled_strided():
    assert [PLAN.phase(s) for s in (0, 9, 10, 59, 60)] == ["left to right"] * 2 + ["shuffled"] * 2 + ["strided"]
    assert PLAN.order(9, 2) == GenerationOrder.left_to_right(16)


def test_shuffled_tokens_grow_from_1_to_rho_and_stay():
    counts = [PLAN.n_shuffled(step) for step in range(60)]
    assert counts[:10] == [0] * 10
    assert (counts[10], counts[39], counts[40], counts[59]) == (1, 8, 8, 8)
    assert counts == sorted(counts)
    for step in range(10, 60):
        moved = (PLAN.order(step, 50).positions != torch.arange(16)).sum(-1)
        assert moved.max() <= counts[step]
    assert moved.max() > 4  # at rho = 8 some row really is shuffled


def test_rows_and_processes_draw_shuffles_of_their_own_but_one_number_of_streams():
    order = PLAN.order(50, 4)
    assert len(order.positions.unique(dim=0)) == 4
    assert order != PLAN.order(50, 4, process=1)
    for step in range(60, 80):
        assert PLAN.order(step, 4) == PLAN.order(step, 4, process=1)


def test_shuffles_have_nothing_to_do_with_which_family_was_drawn():
    """Whole numbers as weights will do; and no process shuffles from the stream that chose the family or the share."""
    plan = Curriculum(length=16, i_ar=0, i_perm=0, i_strided=0, rho=4, mixture=(("shuffled", 1), ("strided", 1)))
    steps = [step for step in range(1500) if plan.family(step) == "shuffled"]
    for process in range(6):
        moved = torch.stack([plan.order(step, 1, process=process).positions[0] != torch.arange(16) for step in steps])
        share = moved.double().mean(0)  # 3 of 4 chosen ones move on average, of 16: 0.19
        assert (share - 3 / 16).abs().max() < 0.07, process


def test_every_number_of_streams_is_drawn_about_equally_often():
    drawn = [PLAN.order(step, 1).n_blocks for step in range(60, 660)]
    expected = [GenerationOrder.strided(16, s).n_blocks for s in (1, 2, 4)]
    assert set(drawn) == set(expected)
    assert all(abs(drawn.count(n) - 200) < 47 for n in expected)  # four standard deviations


MIXED = Curriculum(
    length=16,
    i_ar=0,
    i_perm=0,
    i_strided=0,
    rho=4,
    streams=(2, 4),
    mixture=(("left to right", 1.0), ("shuffled", 1.0), ("strided", 2.0), ("random", 1.0), ("infilling", 3.0)),
)


def test_a_mixture_draws_each_family_by_its_weight_and_its_orders_are_of_that_family():
    families = [MIXED.family(step) for step in range(1600)]
    for family, weight in MIXED.mixture:
        expected = 1600 * weight / 8
        assert abs(families.count(family) - expected) < 4 * (expected * (1 - weight / 8)) ** 0.5, family
    for step in range(60):
        order, family = MIXED.order(step, 3), MIXED.family(step)
        assert order == MIXED.order(step, 3)
        if family == "left to right":
            assert order.is_left_to_right
        elif family == "shuffled":
            assert (order.positions != torch.arange(16)).sum(-1).max() <= 4
        elif family == "strided":
            assert order == GenerationOrder.strided(16, MIXED.n_streams(step))
        else:
            assert order.is_sequential
            assert order.is_batched
    assert MIXED.phase(0) == "mixture"
    assert MIXED.in_words(families.index("random")) == "random"


def test_another_seed_draws_other_families_and_other_shuffles_of_the_ramp():
    first, other = MIXED, replace(MIXED, seed=1)
    assert [first.family(step) for step in range(20)] != [other.family(step) for step in range(20)]
    assert PLAN.order(50, 2) != replace(PLAN, seed=4).order(50, 2)


def test_infilling_leaves_an_eighth_to_a_half_open_in_spans_and_reads_the_rest_first():
    known = known_around_spans(64, 200, seeded(1))
    n_open = (~known).sum(-1)
    assert n_open.min() >= 3  # a third of an eighth, where three spans lie upon one another
    assert n_open.max() <= 33  # half, and the rounding of three spans
    assert abs(n_open.double().mean() - 18.7) < 1.5  # 20 on average, less what lies upon another
    starts = (known[:, :-1] & ~known[:, 1:]).sum(-1) + ~known[:, 0]
    assert starts.max() == 3
    assert starts.min() == 1
    order = GenerationOrder.infilling(known)
    first = torch.gather(known, 1, order.positions)
    assert (first.int().diff(dim=-1) <= 0).all()  # all that is given, then all that is not


def test_left_to_right_alone_never_ends():
    plan = Curriculum.left_to_right(16)
    assert {plan.phase(step) for step in (0, 10**6, 10**9)} == {"left to right"}
    assert plan.order(10**9, 2).is_left_to_right


def test_streams_take_at_most_a_fifth_of_what_went_before():
    for steps in (12, 100, 720, 8640):
        plan = Curriculum.for_steps(steps, 256)
        assert abs((steps - plan.i_strided) - 0.2 * plan.i_strided) <= 1
        assert plan.streams == (1, 2, 4, 8)
        assert plan.rho == 8  # the paper's 32 of 1024


def test_streams_of_chance_of_neighbouring_steps_have_nothing_in_common():
    drawn = torch.stack([torch.rand(64, generator=seeded(0, step)) for step in range(200)])
    correlation = torch.corrcoef(drawn).fill_diagonal_(0)
    assert correlation.abs().max() < 0.6  # 19,900 pairs of 64 draws: chance stays near 0.5
    assert len({seeded(a, b).initial_seed() for a in range(30) for b in range(30)}) == 900


def test_streams_may_also_write_one_by_one_or_wait_for_each_other():
    plan = Curriculum(16, 0, 0, 0, rho=0, streams=(4,), mixture=(("one by one", 1.0), ("cut", 2.0)))
    strided = GenerationOrder.strided(16, 4)
    n_blocks = set()
    for step in range(40):
        order = plan.order(step, 3)
        assert order == plan.order(step, 3)
        if plan.family(step) == "one by one":
            assert order == strided.one_by_one()
            assert plan.in_words(step) == "4 streams, one by one"
        else:
            assert plan.in_words(step) == "4 streams, some waiting"
            assert len(order.positions) == 3
            n_blocks |= set((order.blocks.amax(-1) + 1).tolist())
    assert len(n_blocks) > 5  # from few waiting to nearly all
    assert plan.order(0, 3) != plan.order(0, 3, process=1) or plan.family(0) == "one by one"


@pytest.mark.parametrize("family", ["strided", "one by one", "cut"])
def test_some_rows_in_streams_stand_behind_a_prompt_of_their_own(family):
    plan = Curriculum(16, 0, 0, 0, rho=0, streams=(4,), mixture=((family, 1.0),), prompts=0.5)
    order = plan.order(0, 400)
    assert order == plan.order(0, 400) != plan.order(0, 400, process=1)
    read_first = (order.positions == torch.arange(16)).int().cumprod(-1).sum(-1)  # 1 without a prompt: 0, then 4
    has_prompt = read_first > 1
    assert 0.2 < has_prompt.float().mean() < 0.5  # half, but for prompts of one token
    assert set(read_first.tolist()) == {1, 2, 3, 5, 6, 7, 9}  # behind 4 tokens a head follows at 4: 5 in a row
    strided = GenerationOrder.strided(16, 4)
    for positions, blocks, n in zip(order.positions, order.blocks.expand(400, -1), read_first.tolist(), strict=True):
        known = torch.arange(16) < n
        cut = GenerationOrder(positions, blocks)
        expected = strided.behind(known)
        if family == "cut":
            ranks = expected.blocks_in_text_order[positions]
            assert (ranks.diff() >= 0).all()
            assert (blocks.diff()[ranks.diff() > 0] == 1).all()
        else:
            assert cut == (expected.one_by_one() if family == "one by one" else expected)
    assert plan.in_words(0).endswith(", some behind prompts")
    assert replace(plan, mixture=(("left to right", 1.0),)).order(0, 2) == GenerationOrder.left_to_right(16)


def test_prompts_are_up_to_half_the_text_and_more_often_short():
    lengths = known_in_prompts(64, 4000, 1.0, seeded(0)).sum(-1)
    assert (lengths.min(), lengths.max()) == (1, 32)
    assert 7 <= lengths.median() <= 10
    assert known_in_prompts(64, 100, 0.0, seeded(0)).sum() == 0
    assert known_in_prompts(1, 100, 1.0, seeded(0)).sum() == 100  # nothing is left to write, and that is no error


@given(orders(), st.floats(0, 1), st.integers(0, 99))
def test_cuts_make_some_tokens_of_a_block_wait_and_move_none_to_another(order, share, seed):
    cut = cut_blocks(order, share, batch_size=2, generator=seeded(seed))
    assert (cut.blocks.amax(-1) >= order.n_blocks - 1).all()
    was = order.blocks_in_text_order.expand(2, -1).gather(-1, cut.positions)
    assert (was.diff(dim=-1) >= 0).all()
    assert cut_blocks(order, 0.0, batch_size=1).n_blocks == order.n_blocks
    assert cut_blocks(order, 1.0, batch_size=1).is_sequential


def test_any_token_of_a_block_may_be_the_one_that_waits():
    last = cut_blocks(GenerationOrder.strided(6, 3), 0.5, batch_size=200, generator=seeded(0)).positions[:, -1]
    assert set(last.tolist()) == {1, 3, 5}
    with pytest.raises(ValueError, match=r"^share=1.5 must be from 0 \(no cuts\) to 1 \(every token alone\)$"):
        cut_blocks(GenerationOrder.strided(6, 3), 1.5, batch_size=1)


@given(st.integers(1, 5000), st.sampled_from([8, 128, 256, 1024]))
def test_any_number_of_steps_makes_a_curriculum(steps, length):
    plan = Curriculum.for_steps(steps, length)
    assert 0 <= plan.i_ar <= plan.i_perm <= plan.i_strided <= steps
    assert plan.order(steps - 1, 2).length == length


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"i_ar": 50}, "i_ar=50, i_perm=40, i_strided=60 must not be negative or fall"),
        ({"rho": 2.5}, "rho=2.5 must be a whole number"),
        ({"i_ar": 0.5}, "i_ar=0.5 must be a whole number"),
        (
            {"mixture": (("strided", float("inf")),)},
            "mixture holds 'strided' with weight inf; weigh above 0 any of left to right, shuffled, strided, one by "
            "one, cut, random, infilling",
        ),
        ({"rho": 17}, "rho=17 positions cannot be shuffled; choose 0 to length=16"),
        ({"streams": (3,)}, "streams=3 does not divide length=16; try 2 or 4"),
        (
            {"mixture": (("strided", 1.0), ("backwards", 1.0))},
            "mixture holds 'backwards' with weight 1.0; weigh above 0 any of left to right, shuffled, strided, one by "
            "one, cut, random, infilling",
        ),
        (
            {"mixture": (("strided", 0.0),)},
            "mixture holds 'strided' with weight 0.0; weigh above 0 any of left to right, shuffled, strided, one by "
            "one, cut, random, infilling",
        ),
        (
            {"mixture": ()},
            "mixture is empty; name at least one of left to right, shuffled, strided, one by one, cut, random, "
            "infilling",
        ),
        ({"prompts": 1.5}, "prompts=1.5 must be from 0 (no row) to 1 (every row in streams)"),
        ({"streams": ()}, "streams is empty; name at least one number of streams, such as (1, 2, 4)"),
    ],
)
def test_impossible_curricula_are_refused(change, sentence):
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        Curriculum(**{"length": 16, "i_ar": 10, "i_perm": 40, "i_strided": 60, "rho": 8, **change})
