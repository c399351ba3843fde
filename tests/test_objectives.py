"""Laws of the losses."""

import itertools
import re

import pytest
import torch
from strategies import random_tokens, tiny

from armdlab import ARMD, GenerationOrder
from armdlab.objectives import chance_of_said, diffusion_bound, diffusion_nll, nll, weighted_nll

V, MASK = 3, 3


class SetDenoiser:
    """A slow reference that is obviously a masked diffusion model: one table of logits for each masked text.

    Called with a masked text it is the denoiser of eq. (1); called with tokens and an order it scores each block from
    its own masked text, as eq. (2) demands.
    """

    def __init__(self, length):
        self.tables = torch.randn((V + 1) ** length, length, V, dtype=torch.float64)
        self.place = (V + 1) ** torch.arange(length)

    def __call__(self, tokens, order=None):
        if order is None:
            return self.tables[(tokens * self.place).sum(-1)]
        blocks = order.blocks_in_text_order.expand(tokens.shape)
        logits = torch.empty(*tokens.shape, V, dtype=torch.float64)
        for block in range(order.n_blocks):
            masked = tokens.masked_fill(blocks >= block, MASK)
            logits[blocks == block] = self(masked)[blocks == block]
        return logits


def masking_processes(length, alpha):
    """Every outcome of masking, int64 (T^N, N), and its probability."""
    T = len(alpha) - 1
    times = torch.tensor(list(itertools.product(range(1, T + 1), repeat=length)))
    chance = alpha[:-1] - alpha[1:]  # of being masked at t = 1 .. T
    return times, chance[times - 1].prod(-1)


@pytest.mark.parametrize("length", [1, 2, 3, 4])
@pytest.mark.parametrize("alpha", [[1.0, 0.0], [1.0, 0.3, 0.0], [1.0, 0.8, 0.25, 0.0], [1.0, 1.0, 0.5, 0.0]], ids=str)
def test_equations_1_and_2_are_equal_in_expectation_over_every_masking_process(length, alpha):
    alpha = torch.tensor(alpha, dtype=torch.float64)
    denoiser, text = SetDenoiser(length), torch.randint(V, (1, length))
    times, chance = masking_processes(length, alpha)
    tokens = text.expand(len(times), -1)

    by_step = diffusion_nll(denoiser, tokens, times, alpha, MASK)
    logits = denoiser(tokens, GenerationOrder.from_masking_times(times))
    by_block = -logits.log_softmax(-1).gather(-1, tokens.unsqueeze(-1)).squeeze(-1).sum(-1)

    assert abs(float(chance.sum()) - 1) < 1e-12
    assert abs(float((chance * (by_step - by_block)).sum())) < 1e-12
    if length > 1 and len(alpha) > 2:  # equal in expectation, not term by term: the test is no tautology
        assert (by_step - by_block).abs().max() > 1e-3


class OneLayer:
    """ARMD of one two-stream layer reads evidence as a set, so it too is a denoiser of masked texts."""

    def __init__(self, length):
        self.model = tiny(ARMD, vocab_size=V, n_layer=1)

    def __call__(self, masked):
        rows = []
        for row in masked:
            order = GenerationOrder.infilling(row != MASK)
            blocks = order.blocks.clamp(max=int((row != MASK).sum()))  # everything masked is one block
            together = GenerationOrder(order.positions, blocks)
            rows.append(self.model(row.masked_fill(row == MASK, 0).unsqueeze(0), together)[0])
        return torch.stack(rows)


@torch.no_grad()
def test_one_pass_of_armd_costs_what_its_masked_diffusion_costs_in_expectation():
    alpha = torch.tensor([1.0, 0.6, 0.2, 0.0], dtype=torch.float64)
    denoiser, text = OneLayer(3), torch.tensor([[2, 0, 1]])
    times, chance = masking_processes(3, alpha)
    tokens = text.expand(len(times), -1)
    by_step = diffusion_nll(denoiser, tokens, times, alpha, MASK)
    by_block = nll(denoiser.model, tokens, GenerationOrder.from_masking_times(times), "none").sum(-1)
    assert abs(float((chance * (by_step - by_block)).sum())) < 1e-5


@torch.no_grad()
def test_nll_is_the_chain_rule_over_blocks():
    model, order = tiny(ARMD), GenerationOrder.strided(8, 2)
    tokens = random_tokens(model, 2, 8)
    per_token = nll(model, tokens, order, "none")
    expected, blocks = torch.zeros(2), order.blocks_in_text_order
    for block, step in enumerate(order.steps()):
        so_far = torch.where(blocks < block, tokens, random_tokens(model, 2, 8, seed=9))  # the rest is not made yet
        log_p = model(so_far, order).log_softmax(-1)
        expected -= sum(log_p[torch.arange(2), p, tokens[:, p]] for p in step)
    torch.testing.assert_close(per_token.sum(-1), expected)
    torch.testing.assert_close(nll(model, tokens, order, "sum"), per_token.sum())
    torch.testing.assert_close(nll(model, tokens, order), per_token.mean())


@torch.no_grad()
def test_gamma_weights_blocks_and_ones_change_nothing():
    model, order = tiny(ARMD), GenerationOrder.strided(8, 2)
    tokens = random_tokens(model, 2, 8)
    per_token = nll(model, tokens, order, "none")
    torch.testing.assert_close(weighted_nll(model, tokens, order, torch.ones(5)), per_token.mean())
    only_heads = torch.tensor([1.0, 1.0, 0.0, 0.0, 0.0])
    found = weighted_nll(model, tokens, order, only_heads, "none")
    torch.testing.assert_close(found.sum(-1), per_token[:, 0] + per_token[:, 4])


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (
            lambda m, t: nll(m, t, None, "mean"),
            "reduction='mean' is unknown; choose 'none', 'token_mean' or 'sum'",
        ),
        (
            lambda m, t: weighted_nll(m, t, GenerationOrder.strided(8, 2), torch.ones(8)),
            "gamma has shape (8,); give one weight for each block, (5,)",
        ),
        (
            lambda m, t: diffusion_nll(m, t, torch.ones_like(t), torch.tensor([0.5, 0.0]), MASK),
            "alpha=[0.5, 0.0] must fall from 1 (all clean) to 0 (all masked), in T >= 1 steps",
        ),
        (
            lambda m, t: diffusion_bound(m, t),
            "model=ARMD is not trained by masking and has no bound; score it by nll",
        ),
        (
            lambda m, t: diffusion_nll(m, t, torch.zeros_like(t), torch.tensor([1.0, 0.0]), MASK),
            "masking_times run from 0 to 0; alpha has steps 1 to 1",
        ),
    ],
)
def test_bad_arguments_are_refused_with_a_sentence(call, sentence):
    model = tiny(ARMD)
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        call(model, random_tokens(model, 2, 8))


@pytest.mark.parametrize(
    "order",
    [GenerationOrder.left_to_right(8), GenerationOrder.strided(8, 4), GenerationOrder.shuffled(8, 8, batch_size=3)],
    ids=["left to right", "strided", "a shuffle for each row"],
)
def test_the_chance_of_what_was_said_is_what_a_slow_loop_adds_up(order):
    torch.manual_seed(0)
    tokens, logits = torch.randint(5, (3, 8)), torch.randn(3, 8, 5)
    chances, blocks = logits.softmax(-1), order.blocks_in_text_order.expand(3, 8)
    found = chance_of_said(logits.log_softmax(-1), tokens, order, below=0.5)
    some, left_alone = 0.0, 0
    for b, i in itertools.product(range(3), range(8)):
        said = {int(tokens[b, j]) for j in range(8) if blocks[b, j] < blocks[b, i]} - {int(tokens[b, i])}
        expected = sum(float(chances[b, i, token]) for token in said) if chances[b, i].max() < 0.5 else 0.0
        assert abs(float(found[b, i]) - expected) < 1e-6
        some += expected
        left_alone += bool(said) and expected == 0
    assert some > 1
    assert left_alone > 1


def test_the_chance_of_what_was_said_pushes_down_that_and_nothing_else():
    tokens = torch.tensor([[3, 3, 1]])
    logits = torch.zeros(1, 3, 30, requires_grad=True)
    chance_of_said(logits.log_softmax(-1), tokens, GenerationOrder.left_to_right(3)).sum().backward()
    assert not logits.grad[0, :2].any()  # nothing but 3 was said, and 3 is meant
    assert logits.grad[0, 2, 3] > 0
    assert (logits.grad[0, 2, torch.arange(30) != 3] < 0).all()  # they share what is taken from 3
