"""Laws of the baselines: masked diffusion and block diffusion on ARMD's layers."""

import itertools
import math
import re
from dataclasses import fields

import pytest
import torch
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import orders, random_tokens, tiny

from armdlab import AR, ARMD, ARMDConfig, GenerationOrder, decode_steps, generate
from armdlab.baselines import MDLM, BlockDiffusion
from armdlab.budgets import BUDGETS
from armdlab.cli import app
from armdlab.evaluation import any_order, bound, bounds_of_rows, likelihood
from armdlab.networks import MODELS, SIZES, fresh
from armdlab.objectives import Masking, diffusion_bound, nll
from armdlab.recipes import Recipe
from armdlab.rows import Text
from armdlab.samples import write_tales
from armdlab.sampling import seeded
from armdlab.tale_evaluation import tale_report
from armdlab.tales import load_grammar, tales
from armdlab.tokenization import Tokenizer

N = 8
STREAM = Text(torch.arange(3, 10 * N + 3) % 7, n_characters=100)


def block_model(block_size, **sizes):
    """A random block diffusion model of which every input matters."""

    def build(config):
        model = BlockDiffusion(config, block_size)
        with torch.no_grad():
            model.mask.mul_(50.0)
        return model

    return tiny(build, **sizes)


@st.composite
def block_orders(draw):
    """A block size, and any order that finishes one block of that size after another."""
    size = draw(st.integers(1, N))
    parts, first_position, first_block = [], 0, 0
    while first_position < N:
        n = min(size, N - first_position)
        part = draw(orders(length=n).filter(lambda order: not order.is_batched))
        parts.append((part.positions + first_position, part.blocks + first_block))
        first_position, first_block = first_position + n, first_block + part.n_blocks
    return size, GenerationOrder(*(torch.cat(column) for column in zip(*parts, strict=True)))


# --------------------------------------------------------------------------------------------- what it may see


@given(block_orders(), st.integers(0, N - 1))
@settings(max_examples=60)
def test_changing_a_token_leaves_its_own_and_every_earlier_block_bit_identical(case, position):
    size, order = case
    model = block_model(size)
    tokens = random_tokens(model, 1, N)
    changed = tokens.clone()
    changed[0, position] = (changed[0, position] + 1) % model.config.vocab_size
    with torch.no_grad():
        before, after = model(tokens, order), model(changed, order)
    blocks = order.blocks_in_text_order
    may_differ = blocks > blocks[position]
    assert torch.equal(before[:, ~may_differ], after[:, ~may_differ])
    if may_differ.any():
        assert not torch.equal(before[:, may_differ], after[:, may_differ])


@given(block_orders())
def test_probabilities_of_all_texts_of_a_small_world_sum_to_one(case):
    size, order = case
    order = GenerationOrder(order.positions[order.positions < 4], torch.arange(4))  # keeps the blocks, token by token
    model = block_model(size, vocab_size=3)
    world = torch.tensor(list(itertools.product(range(3), repeat=4)))
    with torch.no_grad():
        total = nll(model, world, order, "none").double().sum(-1).neg().exp().sum()
    assert abs(float(total) - 1.0) < 1e-6


@pytest.mark.parametrize("size", [1, 2, 3])
def test_one_call_on_two_copies_is_many_calls_that_each_see_one_block(size):
    """A slow reference that is obviously right: for each block a pass over what comes before and it."""
    model = block_model(size)
    tokens = random_tokens(model, 2, N)
    is_masked = torch.rand(2, N) < 0.5
    with torch.no_grad():
        at_once = model(tokens, is_masked=is_masked)
        for start in range(0, N, size):
            stop = min(start + size, N)
            alone = model(tokens[:, :stop], is_masked=is_masked[:, :stop])
            torch.testing.assert_close(at_once[:, start:stop], alone[:, start:], atol=1e-5, rtol=1e-4)


def test_block_diffusion_of_one_block_is_masked_diffusion():
    mdlm, block = tiny(MDLM), block_model(None)
    block.load_state_dict(mdlm.state_dict())
    tokens, is_masked = random_tokens(mdlm, 2, N), torch.rand(2, N) < 0.5
    with torch.no_grad():
        assert torch.equal(mdlm(tokens, is_masked=is_masked), block(tokens, is_masked=is_masked))


def test_an_order_that_leaves_a_block_unfinished_is_refused():
    sentence = "leaves a block of 4 tokens before it is finished, which block diffusion cannot follow"
    for order in (GenerationOrder.strided(N, 2), GenerationOrder([0, 1, 2, 4, 3, 5, 6, 7], torch.arange(N))):
        with pytest.raises(ValueError, match=sentence):
            block_model(4)(random_tokens(tiny(AR), 1, N), order)
    with pytest.raises(ValueError, match=re.escape("block_size=0 must be a whole number of at least 1")):
        block_model(0)


# ---------------------------------------------------------------------------------------- bound and exact figure


def enumerated_bound(model, text):
    """The bound, summed over every set of masked tokens with its exact weight: sum over M of (|M|-1)!(n-|M|)!/n!."""
    n, total = text.shape[1], 0.0
    for is_masked in itertools.product((False, True), repeat=n):
        k = sum(is_masked)
        if not k:
            continue
        masked = torch.tensor([is_masked])
        log_p = model(text, is_masked=masked).double().log_softmax(-1).gather(-1, text[..., None])[..., 0]
        # integral over t of 1/t * t^k (1 - t)^(n - k): the chance of M at time t, and the weight of the schedule
        weight = math.factorial(k - 1) * math.factorial(n - k) / math.factorial(n)
        total -= weight * float(log_p[masked].sum())
    return total


def all_orders(n):
    return [GenerationOrder(list(p), list(range(n))) for p in itertools.permutations(range(n))]


@torch.no_grad()
def test_the_bound_is_the_mean_exact_nll_over_all_orders_by_enumeration():
    model = tiny(MDLM, vocab_size=3)
    text = torch.tensor([[2, 0, 1, 1]])
    exact = [float(nll(model, text, order, "none").double().sum()) for order in all_orders(4)]
    assert enumerated_bound(model, text) == pytest.approx(sum(exact) / 24, abs=1e-5)
    assert max(exact) - min(exact) > 0.1  # the orders differ, so the mean says something


@torch.no_grad()
@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_samples_of_the_bound_have_the_enumerated_mean(size):
    model = block_model(size, vocab_size=3)
    text = torch.tensor([[2, 0, 1, 1]])
    if size == 4:
        truth = enumerated_bound(model, text)
    else:
        inside = [
            order
            for order in all_orders(4)
            if (order.positions // size).tolist() == sorted((order.positions // size).tolist())
        ]
        truth = sum(float(nll(model, text, order, "none").double().sum()) for order in inside) / len(inside)
    generator = torch.Generator().manual_seed(1)
    drawn = torch.stack(
        [diffusion_bound(model, text.expand(64, -1), generator=generator, reduction="sum") / 64 for _ in range(200)]
    ).double()
    error = float(drawn.std()) / math.sqrt(len(drawn))
    assert abs(float(drawn.mean()) - truth) < 4 * error + 1e-5
    assert error < 0.02 * truth


@torch.no_grad()
def test_log_mean_exp_over_orders_is_the_exact_probability_and_below_the_bound():
    model = tiny(MDLM, vocab_size=3, max_length=4)
    world = torch.tensor(list(itertools.product(range(3), repeat=4)))
    by_order = torch.stack([-nll(model, world, order, "none").double().sum(-1) for order in all_orders(4)])
    exact = math.log(24) - by_order.logsumexp(0)
    assert float(exact.neg().exp().sum()) == pytest.approx(1, abs=1e-6)
    text = Text(world.flatten(), 4 * len(world))
    found = any_order(model, text, 4, n_orders=300, batch_size=81)
    assert found.nats_per_token == pytest.approx(float(exact.mean()) / 4, rel=0.01)
    assert found.mean_of_logs == pytest.approx(float(-by_order.mean()) / 4, rel=0.01)
    assert found.nats_per_token < found.mean_of_logs == found.bound.nats_per_token
    at_most = bound(model, text, 4, samples=100, batch_size=81)
    assert at_most.nats_per_token == pytest.approx(found.mean_of_logs, rel=0.02)


def test_figures_say_whether_they_are_a_bound():
    model, text = tiny(MDLM), Text(torch.randint(7, (40,)), 90)
    said = str(bound(model, text, 8, samples=3, name="a text"))
    assert re.fullmatch(
        r"perplexity at most [\d.]+ \([\d.]+ \+- [\d.]+ nats or [\d.]+ bits a token; bound by 3 maskings a row, mean "
        r"over random orders \(seed 0\); a text, 40 tokens in rows of 8, float32\)",
        said,
    )
    said = str(any_order(model, text, 8, n_orders=2, n_rows=3))
    assert "exact in the limit, log-mean-exp over 2 random orders a row, random orders (seed 0); held-out" in said
    assert "24 tokens in rows of 8" in said
    beside = any_order(model, text, 8, n_orders=2, n_rows=3).bound
    assert "bound by 2 maskings a row, all steps of random orders (seed 0); held-out text, 24 tokens" in str(beside)
    assert beside.standard_error > 0
    inside = str(bound(block_model(3), text, 8, samples=1))
    assert "mean over random orders inside blocks of 3, left to right (seed 0)" in inside
    with pytest.raises(ValueError, match=r"^samples=0 must be at least 1; 8 is a good start$"):
        bound(model, text, 8, samples=0)
    with pytest.raises(ValueError, match=r"^n_rows=0 must be at least 1, or None for all$"):
        any_order(model, text, 8, n_rows=0)
    with pytest.raises(ValueError, match=r"^n_orders=0 must be at least 1; 8 is a good start$"):
        any_order(model, text, 8, n_orders=0)


@torch.no_grad()
def test_every_figure_of_a_text_is_over_all_its_tokens_the_shorter_last_row_included():
    """So that AR, ARMD, MDLM and block diffusion are compared on the very same tokens."""
    text = Text(STREAM.ids[: 2 * N + 5], n_characters=100)
    diffusion, armd = tiny(MDLM).eval(), tiny(ARMD).eval()
    figures = [bound(model, text, N, samples=2) for model in (diffusion, block_model(3))]
    figures += [any_order(armd, text, N, n_orders=2), likelihood(armd, text, N)]
    figures += [likelihood(armd, text, N, shuffled=count) for count in (3, 7, N)]
    assert [figure.n_tokens for figure in figures] == [21] * 7
    whole, rest = text.ids[: 2 * N].view(2, N), text.ids[None, 2 * N :]
    parts = [float(bounds_of_rows(diffusion, rows, samples=2).sum()) for rows in (whole, rest)]
    assert figures[0].nats_per_token == pytest.approx(sum(parts) / 21)
    shorter_than_a_row = bound(diffusion, Text(rest[0], 0), N, samples=2)
    assert (shorter_than_a_row.n_tokens, shorter_than_a_row.nats_per_token) == (5, pytest.approx(parts[1] / 5))
    nats = [
        nll(armd, rows, GenerationOrder.random(rows.shape[1], batch_size=len(rows), generator=seeded(0)), "sum")
        for rows in (whole, rest)
    ]
    assert figures[-1].nats_per_token == pytest.approx(float(sum(nats)) / 21)


@pytest.mark.parametrize(
    "score",
    [
        lambda size: bound(block_model(None), STREAM, N, samples=2, batch_size=size),
        lambda size: bound(block_model(3), STREAM, N, samples=2, batch_size=size),
        lambda size: any_order(tiny(ARMD), STREAM, N, n_orders=2, batch_size=size),
        lambda size: likelihood(tiny(ARMD), STREAM, N, shuffled=5, batch_size=size),
    ],
)
def test_chance_in_a_figure_does_not_depend_on_how_many_rows_are_scored_together(score):
    found = [score(size) for size in (1, 4, 16)]
    for other in found[1:]:
        assert other.nats_per_token == pytest.approx(found[0].nats_per_token, rel=1e-6)
        assert other.standard_error == pytest.approx(found[0].standard_error, rel=1e-4)


def test_keys_of_a_masking_keep_their_precision_far_into_a_long_row():
    """In float32 two positions of a far block often draw one key, and the sort then favours the lower of them."""
    blocks = 2**20
    first = Masking.draw(1, 2 * blocks, 2, torch.Generator().manual_seed(0)).is_masked.view(blocks, 2)[blocks // 2 :]
    alone = first[first.sum(-1) == 1]
    assert float(alone[:, 0].double().mean()) == pytest.approx(0.5, abs=4 * 0.5 / math.sqrt(len(alone)))


def test_a_state_of_masking_and_an_order_are_not_both_given():
    model = block_model(4)
    tokens, order = random_tokens(model, 2, N), GenerationOrder.left_to_right(N)
    sentence = f"order={order} and is_masked are both given, and each says what a token may see; leave one out"
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        model(tokens, order, is_masked=torch.ones_like(tokens, dtype=torch.bool))


def test_a_batch_shares_out_the_numbers_of_masked_tokens():
    """Low discrepancy: over as many rows as a block has tokens, every number of masked tokens comes exactly once."""
    seen = []

    class Spy(MDLM):
        def forward(self, tokens, order=None, *, is_masked=None):
            seen.append(is_masked.sum(-1))
            return super().forward(tokens, is_masked=is_masked)

    model = tiny(Spy)
    for seed in range(20):
        diffusion_bound(model, random_tokens(model, N, N), generator=torch.Generator().manual_seed(seed))
    assert all(sorted(counts.tolist()) == list(range(1, N + 1)) for counts in seen)
    assert len({tuple(counts.tolist()) for counts in seen}) > 1  # which row gets which number is chance


# ------------------------------------------------------------------------------------------------------ sampling


@given(block_orders(), st.integers(0, 3))
@settings(max_examples=60)
def test_cached_decoding_gives_the_probabilities_of_full_passes(case, n_given):
    size, order = case
    model = block_model(size)
    known = torch.full((2, N), -1)
    known[:, :n_given] = random_tokens(model, 2, n_given)
    text = generate(model, length=N, order=order, known=known, seed=3)
    with torch.no_grad():
        expected = -nll(model, text, order, "none").double()
    for step in decode_steps(model, length=N, order=order, known=known, seed=3):
        positions = step.positions.expand(2, -1)
        torch.testing.assert_close(step.log_probs, expected.gather(1, positions), atol=1e-5, rtol=0)
        assert torch.equal(step.tokens, text.gather(1, positions))
    assert torch.equal(text[:, :n_given], known[:, :n_given])


def test_ancestral_sampling_draws_from_the_mixture_over_masking_processes():
    model = tiny(MDLM, vocab_size=2, max_length=3)
    world = torch.tensor(list(itertools.product(range(2), repeat=3)))
    steps, total = 2, torch.zeros(8, dtype=torch.float64)
    for times in itertools.product(range(1, steps + 1), repeat=3):
        order = GenerationOrder.from_masking_times(list(times))
        with torch.no_grad():
            total += nll(model, world, order, "none").double().sum(-1).neg().exp() / steps**3
    assert float(total.sum()) == pytest.approx(1, abs=1e-6)
    counts, generator = torch.zeros(8), torch.Generator().manual_seed(0)
    for i in range(400):
        order = GenerationOrder.masking_process(3, steps, batch_size=20, generator=generator)
        text = generate(model, length=3, order=order, batch_size=20, seed=i)
        counts += torch.bincount((text * torch.tensor([4, 2, 1])).sum(-1), minlength=8)
    expected = 8000 * total
    chi_square = float(((counts - expected).square() / expected).sum())
    assert chi_square < 24.3  # 7 degrees of freedom, one in a thousand


def test_a_masking_process_reveals_each_token_at_any_step_and_skips_empty_ones():
    generator, length, steps = torch.Generator().manual_seed(0), 16, 8
    order = GenerationOrder.masking_process(length, steps, batch_size=3, generator=generator)
    assert order.positions.shape == (3, length)
    assert order.n_blocks <= steps
    n_blocks = [GenerationOrder.masking_process(length, 1000, generator=generator).n_blocks for _ in range(200)]
    assert max(n_blocks) == length
    assert min(n_blocks) >= length - 3
    inside = GenerationOrder.masking_process(length, steps, block_size=4, generator=generator)
    assert (inside.positions // 4).tolist() == sorted((inside.positions // 4).tolist())
    first = torch.stack(
        [GenerationOrder.masking_process(length, steps, generator=generator).positions[0] for _ in range(1600)]
    )
    counts = torch.bincount(first, minlength=length)
    assert (counts - 100).abs().max() < 45  # 4.6 standard deviations


# -------------------------------------------------------------------------------------------------------- parity


OPTIONS = {option.name: option.default for option in typer.main.get_command(app).commands["train"].params}
SAID = {field.name: OPTIONS[field.name] for field in fields(Recipe) if field.name in OPTIONS}
RECIPES = {"the command line": Recipe(**SAID | {"steps": 1}), "long rows": Recipe(length=2048)}
RECIPES["tales"] = Recipe(length=160, vocab_size=2217, n_layer=6)
RECIPES |= {f"{budget.name} {name}": recipe for budget in BUDGETS.values() for name, recipe in budget.recipes.items()}
SIZED = {  # each size is counted once
    tuple(getattr(recipe, size) for size in ("length", "vocab_size", *SIZES)): name for name, recipe in RECIPES.items()
}


@pytest.mark.parametrize("name", SIZED.values())
def test_parameter_counts_are_within_one_per_cent_of_armds(name):
    recipe = RECIPES[name]
    vocab_size = 50_257 if isinstance(recipe.vocab_size, str) else recipe.vocab_size
    config = ARMDConfig(vocab_size, recipe.length, **{size: getattr(recipe, size) for size in SIZES})
    with torch.device("meta"):
        counts = {name: fresh(name, config, block_size=16, seed=0).n_parameters for name in MODELS}
    assert all(abs(count / counts["armd"] - 1) < 0.01 for count in counts.values()), counts


def test_a_block_size_survives_the_disk(tmp_path):
    model = block_model(3)
    model.save_pretrained(tmp_path)
    again = BlockDiffusion.from_pretrained(tmp_path)
    assert again.block_size == 3
    tokens, is_masked = random_tokens(model, 1, N), torch.rand(1, N) < 0.5
    with torch.no_grad():
        assert torch.equal(model(tokens, is_masked=is_masked), again(tokens, is_masked=is_masked))
    (tmp_path / "config.json").write_text((tmp_path / "config.json").read_text().replace("block_size", "blok"))
    with pytest.raises(ValueError, match="holds unknown settings \\['blok'\\]"):
        BlockDiffusion.from_pretrained(tmp_path)


def test_a_recipe_names_one_of_four_models():
    assert {name: cls.__name__ for name, cls in MODELS.items()} == {
        "armd": "ARMD",
        "ar": "AR",
        "mdlm": "MDLM",
        "block": "BlockDiffusion",
    }
    with pytest.raises(ValueError, match=r"^model='gpt' is unknown; choose armd, ar, mdlm, block$"):
        Recipe("gpt")


# ------------------------------------------------------------------------------------------- masked diffusion on tales


@pytest.fixture(scope="module")
def told():
    grammar = load_grammar()
    texts = list(tales(40, 5, grammar))
    tokenizer = Tokenizer.train(texts, 400)
    length = max(len(tokenizer.encode(text)) for text in texts) + 7
    return texts, tokenizer, length


def test_masked_diffusion_is_reported_by_its_bound_and_by_denoising_steps(told):
    texts, tokenizer, length = told
    torch.manual_seed(0)
    model = MDLM(ARMDConfig(tokenizer.vocab_size, length, n_layer=1, n_head=2, d_model=16))
    splits = {"train": {"text": texts[:30]}, "validation": {"text": texts[30:]}}
    report = tale_report(model, tokenizer, splits, steps=(4, 2), n_tales=4, n_samples=3, length=length)
    assert [column.writer for column in report.written] == ["4 denoising steps", "2 denoising steps", "the source"]
    assert report.excess[0] is report.excess[1]  # the bound has no number of steps
    assert report.excess[0].order == "bound, random orders"
    assert 0 < report.excess[0].padding_nats < report.excess[0].nll
    # an untrained model pays about ln V for each token of a row, padding included
    assert report.excess[0].nll == pytest.approx(length * math.log(tokenizer.vocab_size), rel=0.1)
    with pytest.raises(ValueError, match=r"^steps=\(\) for MDLM: masked diffusion needs some, nothing else has any$"):
        tale_report(model, tokenizer, splits, n_tales=2, n_samples=2)


def test_samples_of_masked_diffusion_fill_their_rows_whatever_the_steps(told):
    _, tokenizer, length = told
    torch.manual_seed(0)
    model = MDLM(ARMDConfig(tokenizer.vocab_size, length, n_layer=1, n_head=2, d_model=16))
    written = write_tales(model, tokenizer, 3, steps=5, length=length, seed=1)
    assert written == write_tales(model, tokenizer, 3, steps=5, length=length, seed=1)
    assert len(set(written)) == 3
