"""Laws of rows that end before others: what they knew stays, and those that go on do not feel that they left."""

import pytest
import torch
from strategies import tiny

from armdlab import ARMD, GenerationOrder, decode_steps, generate
from armdlab.baselines import MDLM, BlockDiffusion

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
