"""Laws of counts and seeds: whole numbers of any library are taken, and everything else is refused by its name."""

import re

import numpy as np
import pytest
import torch
from strategies import tiny

from armdlab import ARMD, ARMDConfig, GenerationOrder, generate, lab
from armdlab.baselines import MDLM, BlockDiffusion
from armdlab.curriculum import Curriculum
from armdlab.evaluation import any_order, bound, likelihood
from armdlab.networks import fresh
from armdlab.objectives import Masking, diffusion_bound
from armdlab.plans import Plan
from armdlab.rows import Rows, Text
from armdlab.sampling import seeded

EIGHT = np.int64(8)
TEXT = Text(torch.arange(24) % 7, 40)
ROWS = Rows(torch.tensor([3, 1, 0, 5, 4, 2, 6, 0]), torch.tensor([0, 3, 8]), 8, "padded", 0, 2, 20)
CONFIG = ARMDConfig(7, 8, n_layer=1, n_head=1, d_model=16)


def test_counts_of_numpy_are_taken_everywhere_and_kept_as_pythons():
    config = ARMDConfig(np.int64(7), EIGHT, n_layer=np.int64(2), n_head=np.int64(2), d_model=np.int64(16))
    plan = Plan(EIGHT, Curriculum.left_to_right(8), batch_size=EIGHT)
    kept = (config.vocab_size, config.max_length, config.d_model, plan.steps, plan.batch_size)
    assert all(type(value) is int for value in (*kept, BlockDiffusion(CONFIG, np.int64(2)).block_size))
    assert GenerationOrder.strided(EIGHT, np.int64(2)) == GenerationOrder.strided(8, 2)
    drawn = (GenerationOrder.shuffled(n, n, generator=seeded(s)) for n, s in ((8, 5), (EIGHT, np.int64(5))))
    assert next(drawn) == next(drawn)
    of_numpy = generate(tiny(ARMD), length=EIGHT, batch_size=np.int64(2), seed=np.int64(3))
    assert torch.equal(of_numpy, generate(tiny(ARMD), length=8, batch_size=2, seed=3))


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: Plan(2.5, Curriculum.left_to_right(8)), "steps=2.5 must be a whole number of at least 1"),
        (lambda: Plan(2, Curriculum.left_to_right(8), 2.5), "batch_size=2.5 must be a whole number of at least 1"),
        (
            lambda: Plan(2, Curriculum.left_to_right(8), micro_batch_size=2.5),
            "micro_batch_size=2.5 must be from 1 to batch_size=16, or None",
        ),
        (lambda: BlockDiffusion(CONFIG, True), "block_size=True must be a whole number of at least 1"),
        (lambda: seeded(1, "a"), "seed='a' must be a whole number; choose one, such as 0"),
        (
            lambda: fresh("armd", CONFIG, block_size=1, seed=2**64),
            f"seed={2**64} must be a whole number from -2**63 to 2**64 - 1; choose another, such as 0",
        ),
        (
            lambda: lab.start("01", seed="a"),
            "seed='a' must be a whole number from -2**63 to 2**64 - 1; choose another, such as 0",
        ),
        *(
            (call, "batch_size=0 must be a whole number of at least 1")
            for call in (
                lambda: likelihood(tiny(ARMD), TEXT, 8, batch_size=0),
                lambda: likelihood(tiny(ARMD), ROWS, 8, batch_size=0),
                lambda: bound(tiny(MDLM), TEXT, 8, batch_size=0),
                lambda: any_order(tiny(ARMD), TEXT, 8, batch_size=0),
            )
        ),
    ],
)
def test_what_is_no_count_is_refused_by_its_name(call, sentence):
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        call()


def test_a_batch_of_no_rows_has_no_masking_and_no_price():
    masking = Masking.draw(0, 8, 3, seeded(0))
    assert masking.is_masked.shape == masking.weights.shape == (0, 8)
    nothing = torch.zeros(0, 8, dtype=torch.int64)
    assert diffusion_bound(tiny(MDLM), nothing, reduction="none").shape == (0, 8)
