"""Laws of masks."""

import torch
from hypothesis import given
from strategies import orders

from armdlab import GenerationOrder
from armdlab.masks import PLAIN_CAUSAL, Masks, causal_mask, strictly_causal_mask


def by_definition(order, row, strictly):
    """M^c and M^sc over ranks, by two loops and the paper's inequality."""
    blocks = (order.blocks[row] if order.blocks.dim() == 2 else order.blocks).tolist()
    return [[i < n if strictly else i <= n for i in blocks] for n in blocks]


@given(orders(batch_size=2))
def test_masks_say_what_equations_3_and_5_say(order):
    for strictly, mask in ((False, causal_mask(order)), (True, strictly_causal_mask(order))):
        assert mask.dtype == torch.bool
        for row in range(2):
            found = mask[row] if mask.dim() == 3 else mask
            assert found.tolist() == by_definition(order, row, strictly)


@given(orders(batch_size=2))
def test_masks_in_text_order_are_the_same_relation_with_other_names(order):
    for build in (causal_mask, strictly_causal_mask):
        by_rank, by_text = build(order), build(order, in_text_order=True)
        for row in range(2):
            positions = order.positions[row] if order.is_batched else order.positions
            ranked = by_rank[row] if by_rank.dim() == 3 else by_rank
            text = by_text[row] if by_text.dim() == 3 else by_text
            assert torch.equal(text[positions][:, positions], ranked)


@given(orders(batch_size=2))
def test_a_token_sees_its_own_block_in_one_mask_only(order):
    same_block = causal_mask(order) & ~strictly_causal_mask(order)
    assert torch.equal(same_block, same_block.mT)
    assert same_block.diagonal(dim1=-2, dim2=-1).all()


@given(orders(batch_size=2))
def test_any_order_of_single_tokens_needs_no_mask_but_the_plain_triangle(order):
    assert (Masks.one_pass(order) is PLAIN_CAUSAL) == order.is_sequential


@given(orders(length=6))
def test_plain_triangle_and_explicit_mask_are_one_relation(order):
    ranks = torch.arange(6)
    sequential = GenerationOrder(order.positions, ranks)
    explicit = Masks.between(torch.cat([torch.tensor([-1]), ranks[:-1]]), ranks)
    weights = torch.rand(6, 6)
    for name in ("evidence_to_evidence", "target_to_evidence", "target_to_target"):
        plain = getattr(Masks.one_pass(sequential), name)
        assert torch.equal(plain.apply(weights), getattr(explicit, name).apply(weights))


def test_new_rows_see_every_cached_row():
    masks = Masks.between(torch.tensor([4, 5]), torch.tensor([5, 6, 6]), n_cached_evidence=3, n_cached_targets=2)
    assert masks.target_to_evidence.allowed.int().tolist() == [[1, 1, 1, 1, 0], [1, 1, 1, 1, 1], [1, 1, 1, 1, 1]]
    assert masks.evidence_to_evidence.allowed.int().tolist() == [[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]
    assert masks.target_to_target.allowed.int().tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1], [1, 1, 1, 1, 1]]


def test_masks_live_where_their_order_lives():
    assert causal_mask(GenerationOrder.strided(8, 2).to("meta")).device.type == "meta"
