"""Laws of rows that end before others: what they knew stays, and those that go on do not feel that they left."""

import pytest
import torch
from strategies import order_around, tiny

from armdlab import ARMD, GenerationOrder, decode_steps, generate
from armdlab.baselines import MDLM, BlockDiffusion
from armdlab.objectives import nll

N = 8


class Mine(ARMD):
    """The same network; that it might not be makes it decode by full passes."""

    def embed(self, *args, **how):
        return super().embed(*args, **how)


class InTwo(BlockDiffusion):
    def __init__(self, config):
        super().__init__(config, N // 2)


IN_TURN, IN_PAIRS = GenerationOrder.left_to_right(N), GenerationOrder.blockwise(N, 2)
EACH_ITS_OWN = GenerationOrder(torch.stack([torch.arange(N).roll(n) for n in (0, 3, 6)]), torch.arange(N))
WALKS = {
    "cached": (ARMD, {"order": IN_TURN}),
    "cached, in pairs": (ARMD, {"order": IN_PAIRS}),
    "cached, orders of their own": (ARMD, {"order": EACH_ITS_OWN}),
    "uncached": (Mine, {"order": IN_TURN}),
    "uncached, orders of their own": (Mine, {"order": EACH_ITS_OWN}),
    "masked diffusion": (MDLM, {"order": IN_TURN}),
    "block diffusion": (InTwo, {"order": IN_TURN}),
    "verified": (ARMD, {"order": IN_PAIRS, "verify": True}),
}


@pytest.mark.parametrize(("cls", "how"), WALKS.values(), ids=WALKS)
def test_what_a_row_knows_outlives_its_end(cls, how):
    model, known = tiny(cls), torch.full((3, N), -1)
    known[0, 5], known[1, 2], known[2, 7], known[2, 1] = 1, 3, 4, 2
    is_known, early = known != -1, 0
    for seed in range(40):
        text = generate(model, length=N, known=known, end=0, seed=seed, **how)
        assert torch.equal(text[is_known], known[is_known])
        steps = list(decode_steps(model, length=N, known=known, end=0, seed=seed, **how))
        early += any((step.log_probs == 0).any() for step in steps)
        again = known.clone()
        for step in steps:
            step.write_into(again)
        assert torch.equal(again.masked_fill(again == -1, 0), text)
    assert early, "no row has ended before another"


def test_rows_that_know_different_numbers_of_tokens_are_verified_together():
    model, known = tiny(ARMD), torch.full((3, N), -1)
    known[0, :1], known[1, 2:6], known[2, ::4] = 1, torch.tensor([3, 1, 4, 1]), 5
    how = {"length": N, "streams": 2, "verify": True}
    together = generate(model, known=known, temperature=0, **how)
    for row in range(3):
        assert torch.equal(together[row : row + 1], generate(model, known=known[row], temperature=0, **how))

    rows = [order_around(row != -1, 2) for row in known]
    order = GenerationOrder.stack([row.one_by_one() for row in rows])
    own = GenerationOrder.stack(rows)
    for seed in range(10):
        text, said = generate(model, known=known, seed=seed, **how), torch.zeros(3, N, dtype=torch.float64)
        for step in decode_steps(model, known=known, seed=seed, **how):
            row, column = (step.positions != -1).nonzero(as_tuple=True)
            said[row, step.positions[row, column]] = step.log_probs[row, column]
        full = -nll(model, text, order, "none").detach().double()
        torch.testing.assert_close(said, full.masked_fill(known != -1, 0), atol=1e-4, rtol=1e-4)
        assert torch.equal(text, generate(model, length=N, known=known, order=own, verify=True, seed=seed))
