"""Laws of generation orders."""

import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import orders

from armdlab import GenerationOrder


@given(orders(batch_size=3))
def test_every_order_is_a_permutation_cut_into_gapless_blocks(order):
    n = order.length
    assert (order.positions.sort(-1).values == torch.arange(n)).all()
    assert (order.blocks[..., 0] == 0).all()
    assert set(order.blocks.diff(dim=-1).flatten().tolist()) <= {0, 1}
    assert order.n_blocks == order.blocks.max() + 1


@given(orders(batch_size=3))
def test_text_order_undoes_generation_order(order):
    values = torch.randn(3, order.length, 2)
    assert torch.equal(order.to_text_order(order.to_generation_order(values)), values)
    assert torch.equal(
        order.to_generation_order(values)[:, 0, 0],
        values[..., 0].gather(1, order.positions.expand(3, -1)[:, :1]).squeeze(1),
    )


@given(orders(batch_size=3))
def test_blocks_in_text_order_name_the_block_of_each_position(order):
    for row in range(3 if order.is_batched else 1):
        positions, blocks, by_text = (
            t[row] if t.dim() == 2 else t for t in (order.positions, order.blocks, order.blocks_in_text_order)
        )
        assert [by_text[p] for p in positions] == blocks.tolist()


def test_left_to_right_is_reading_order_one_token_a_block():
    order = GenerationOrder.left_to_right(5)
    assert order.positions.tolist() == order.blocks.tolist() == [0, 1, 2, 3, 4]
    assert order.is_sequential
    assert order.is_left_to_right
    assert not GenerationOrder([1, 0], [0, 1]).is_left_to_right
    assert not GenerationOrder([0, 1], [0, 0]).is_left_to_right


def test_random_orders_reach_all_permutations_equally_often():
    drawn = GenerationOrder.random(3, batch_size=6000, generator=torch.Generator().manual_seed(1)).positions
    _, counts = drawn.unique(dim=0, return_counts=True)
    assert len(counts) == 6
    assert (counts - 1000).abs().max() < 120  # four standard deviations of a binomial(6000, 1/6)


@given(st.integers(1, 20), st.data())
def test_shuffling_moves_only_the_chosen_count(length, data):
    count = data.draw(st.integers(0, length))
    order = GenerationOrder.shuffled(length, count, batch_size=20)
    assert (order.positions != torch.arange(length)).sum(-1).max() <= count
    assert order.is_sequential


def test_shuffled_is_uniform_over_what_the_chosen_positions_can_do():
    drawn = GenerationOrder.shuffled(3, 2, batch_size=6000, generator=torch.Generator().manual_seed(1)).positions
    found, counts = drawn.unique(dim=0, return_counts=True)
    # a swap of each of the 3 pairs with chance 1/6, and no change with chance 1/2
    expected = {(0, 1, 2): 3000, (0, 2, 1): 1000, (1, 0, 2): 1000, (2, 1, 0): 1000}
    assert {tuple(row.tolist()) for row in found} == expected.keys()
    assert all(abs(int(c) - expected[tuple(row.tolist())]) < 160 for row, c in zip(found, counts, strict=True))


@given(st.integers(1, 6), st.integers(1, 6))
def test_strided_takes_heads_one_by_one_then_one_token_of_every_stream(streams, depth):
    length = streams * depth
    order = GenerationOrder.strided(length, streams)
    heads = [s * depth for s in range(streams)]
    expected = [[h] for h in heads] + [[h + t for h in heads] for t in range(1, depth)]
    assert [step.tolist() for step in order.steps()] == expected
    assert order.n_blocks == streams + depth - 1


@given(st.lists(st.integers(1, 5), min_size=1, max_size=12))
def test_a_masking_process_read_backwards_generates_the_last_masked_first(times):
    order = GenerationOrder.from_masking_times(times)
    steps = [step.tolist() for step in order.steps()]
    expected = [[j for j, tau in enumerate(times) if tau == t] for t in sorted(set(times), reverse=True)]
    assert steps == expected


def test_masking_times_of_a_batch_give_each_row_its_own_blocks():
    order = GenerationOrder.from_masking_times(torch.tensor([[1, 1, 2], [3, 2, 1]]))
    assert order.positions.tolist() == [[2, 0, 1], [0, 1, 2]]
    assert order.blocks.tolist() == [[0, 1, 1], [0, 1, 2]]
    assert not order.is_sequential


@given(st.lists(st.booleans(), min_size=2, max_size=14), st.integers(1, 3))
def test_infilling_reads_what_is_known_first_and_balances_its_streams(known, streams):
    unknown = [p for p, is_known in enumerate(known) if not is_known]
    streams = max(1, min(streams, len(unknown)))
    order = GenerationOrder.infilling(torch.tensor(known), streams)
    given_first = [p for p, is_known in enumerate(known) if is_known]
    assert order.positions[: len(given_first)].tolist() == given_first
    steps = [step.tolist() for step in order.steps()][len(given_first) :]
    assert sorted(p for step in steps for p in step) == unknown
    assert all(len(step) == 1 for step in steps[:streams])
    assert all(len(step) <= streams for step in steps)
    deepest = -(-len(unknown) // streams)
    assert len(steps) == (streams + deepest - 1 if unknown else 0)


@given(st.data(), st.integers(1, 12))
def test_behind_what_is_given_all_others_keep_their_places(data, n):
    order = data.draw(orders(length=n, batch_size=2))
    known = torch.tensor(data.draw(st.lists(st.lists(st.booleans(), min_size=n, max_size=n), min_size=2, max_size=2)))
    behind = order.behind(known)
    for row in range(2):
        was, now = (GenerationOrder(*_row(each, row)) for each in (order, behind))
        given_first = known[row].nonzero().flatten().tolist()
        steps = [step.tolist() for step in now.steps()]
        assert steps[: len(given_first)] == [[p] for p in given_first]
        left = [[p for p in step.tolist() if p not in given_first] for step in was.steps()]
        assert steps[len(given_first) :] == [step for step in left if step]


def _row(order, row):
    return (part if part.dim() == 1 else part[row] for part in (order.positions, order.blocks))


@given(st.lists(st.booleans(), min_size=1, max_size=14))
def test_to_infill_is_to_read_what_is_known_and_go_on_from_left_to_right(known):
    assert GenerationOrder.left_to_right(len(known)).behind(known) == GenerationOrder.infilling(known)


def test_streams_behind_a_prompt_begin_where_they_begin_without_one():
    order = GenerationOrder.strided(12, 3)
    assert order.behind([False] * 12) == order
    assert [step.tolist() for step in order.behind(torch.arange(12) < 2).steps()] == [
        *([0], [1]),
        *([4], [8]),
        *([5, 9], [2, 6, 10], [3, 7, 11]),
    ]
    own = order.behind(torch.arange(12) < torch.tensor([[2], [2], [0]]))
    assert own.positions.shape == own.blocks.shape == (3, 12)
    assert order.behind(torch.arange(12) < torch.tensor([[2], [2]])).blocks.shape == (12,)  # cut alike


def test_stacked_orders_share_blocks_only_if_all_rows_do():
    a, b, c = (
        GenerationOrder.strided(4, 2),
        GenerationOrder([3, 2, 1, 0], [0, 1, 2, 2]),
        GenerationOrder.left_to_right(4),
    )
    assert GenerationOrder.stack([a, b]).blocks.shape == (4,)
    assert GenerationOrder.stack([a, c]).blocks.shape == (2, 4)


def test_an_order_moves_to_a_device_without_being_validated_again():
    order = GenerationOrder.strided(8, 2)
    assert order.ranks[4] == 1
    moved = order.to("meta")  # asking a meta tensor for its values would raise
    assert (moved.positions.device.type, moved.n_blocks, moved.is_sequential) == ("meta", 5, False)
    assert order.to("cpu") is order


def test_an_order_never_changes_though_its_makers_tensors_do():
    made = torch.tensor([0, 1, 2])
    order = GenerationOrder(made, made)
    made[0] = 2
    assert order == GenerationOrder.left_to_right(3)


def test_orders_are_equal_by_value():
    assert GenerationOrder.strided(6, 1) == GenerationOrder.left_to_right(6)
    assert GenerationOrder.strided(6, 2).one_by_one() == GenerationOrder([0, 3, 1, 4, 2, 5], range(6))
    assert GenerationOrder.strided(6, 2) != GenerationOrder.strided(6, 3)
    assert repr(GenerationOrder.strided(6, 2)) == "GenerationOrder(length=6, n_blocks=4)"
    assert repr(GenerationOrder.random(6, batch_size=2)) == "GenerationOrder(2 rows of length=6, n_blocks=6)"


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (
            lambda: GenerationOrder.strided(256, 3),
            "streams=3 does not divide length=256; try 2 or 4",
        ),
        (lambda: GenerationOrder.strided(32, 5), "streams=5 does not divide length=32; try 4 or 8"),
        (lambda: GenerationOrder.strided(4, 9), "streams=9 does not divide length=4; try 4"),
        (
            lambda: GenerationOrder([0, 2, 2], [0, 1, 2]),
            "positions=[0, 2, 2] is no permutation of 0 .. 2: [1] missing; name every position once",
        ),
        (
            lambda: GenerationOrder([0, 1, 2], [0, 2, 3]),
            "blocks=[0, 2, 3] must start from 0 and, from each rank to the next, stay or grow by 1; "
            "renumber the blocks without gaps",
        ),
        (
            lambda: GenerationOrder([0, 1], [1, 1]),
            "blocks=[1, 1] must start from 0 and, from each rank to the next, stay or grow by 1; "
            "renumber the blocks without gaps",
        ),
        (
            lambda: GenerationOrder([0, 1], [0]),
            "positions has shape (2,) and blocks has shape (1,); "
            "blocks must be (N,), or have exactly the shape of positions",
        ),
        (lambda: GenerationOrder([0.0, 1.0], [0, 1]), "positions holds torch.float32; give integers"),
        (
            lambda: GenerationOrder([], []),
            "positions holds torch.float32; give integers",
        ),
        (
            lambda: GenerationOrder(torch.empty(0, dtype=torch.long), [0]),
            "positions has shape (0,); give at least one token, as (N,) or (B, N)",
        ),
        (
            lambda: GenerationOrder([0], torch.zeros(1, 1, 1, dtype=torch.long)),
            "blocks has shape (1, 1, 1); give at least one token, as (N,) or (B, N)",
        ),
        (
            lambda: GenerationOrder.shuffled(4, 5),
            "count=5 positions cannot be shuffled; choose 0 to length=4",
        ),
        (
            lambda: GenerationOrder.shuffled(8, 2.5),
            "count=2.5 positions cannot be shuffled; choose 0 to length=8",
        ),
        (
            lambda: GenerationOrder.masking_process(6, 3, known=[True, False]),
            "known is torch.bool of shape (2,); give booleans of shape (6,)",
        ),
        (lambda: GenerationOrder.left_to_right(0), "length=0 must be a whole number of at least 1"),
        (lambda: GenerationOrder.blockwise(4, 0), "size=0 must be a whole number of at least 1"),
        (
            lambda: GenerationOrder.infilling([1, 0]),
            "known is torch.int64 of shape (2,); give booleans of shape (N,) or (B, N)",
        ),
        (
            lambda: GenerationOrder.strided(4, 2).behind([True, False]),
            "known is torch.bool of shape (2,); give booleans of shape (4,) or (B, 4)",
        ),
        (
            lambda: GenerationOrder.strided(2, 2).behind([1, 0]),
            "known is torch.int64 of shape (2,); give booleans of shape (2,) or (B, 2)",
        ),
        (
            lambda: GenerationOrder.infilling([True, False], streams=2),
            "streams=2 is more than the 1 positions to generate; use fewer",
        ),
        (
            lambda: GenerationOrder.stack([GenerationOrder.left_to_right(2), GenerationOrder.left_to_right(3)]),
            "orders have shapes [(2,), (3,)]; give at least one, all of the same shape (N,)",
        ),
        (
            lambda: list(GenerationOrder.random(3, batch_size=2).steps()),
            "positions has shape (2, 3); steps() reads one row, (N,)",
        ),
    ],
)
def test_what_is_no_order_is_refused_with_a_sentence(build, sentence):
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        build()


def test_where_nothing_is_unknown_streams_have_nothing_to_do():
    assert GenerationOrder.infilling([True, True], 1) == GenerationOrder.left_to_right(2)
    with pytest.raises(ValueError, match=r"^streams=2 is more than the 0 positions to generate; use fewer$"):
        GenerationOrder.infilling([True, True], 2)
