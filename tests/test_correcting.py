"""Laws of the second reading: what is doubted, what is drawn anew, and what never changes."""

import itertools
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import tiny

import armdlab
from armdlab import AR, ARMD, Corrector, Engine, GenerationOrder, decode_steps, generate
from armdlab.baselines import LeakyQuery
from armdlab.correcting import readings, spots_order
from armdlab.objectives import nll
from armdlab.samples import validity, write_tales

N = 12


@pytest.fixture(scope="module")
def opinionated():
    """An ARMD in which each token says so much about the others that streams, which cannot see them, go wrong."""
    model = tiny(ARMD, max_length=N, vocab_size=5)
    with torch.no_grad():
        model.embedding.weight.mul_(30)
        model.head.weight.mul_(8)
    return model.eval()


def price(model, tokens, order=None):
    with torch.no_grad():
        return nll(model, tokens, order, "none")


def corrected(*args, **how):
    """The last reading, and the calls of all."""
    every = list(readings(*args, **how))
    return every[-1], sum(reading.n_calls for reading in every)


def test_a_text_that_was_written_left_to_right_stays_as_it_is(opinionated):
    how = {"length": N, "batch_size": 40, "seed": 3}
    written = generate(opinionated, **how)
    assert torch.equal(generate(opinionated, correct=Corrector(above=0.01), **how), written)
    # and so does one whose gaps were filled one by one
    how["known"] = torch.where(torch.arange(N) % 3 == 0, torch.arange(N) % 5, -1)
    assert torch.equal(generate(opinionated, correct=Corrector(above=0.01), **how), generate(opinionated, **how))


@pytest.mark.parametrize("way", [{"streams": 4}, {"streams": 4, "verify": True}, {"streams": 3, "verify": "heads"}])
def test_no_text_gets_dearer_and_streams_get_much_cheaper(opinionated, way):
    how = {"length": N, "batch_size": 200, "seed": 0} | way
    before, after = generate(opinionated, **how), generate(opinionated, correct=Corrector(), **how)
    was, now = (price(opinionated, text).sum(-1) for text in (before, after))
    assert (now <= was + 1e-4).all()
    one_by_one = price(opinionated, generate(opinionated, length=N, batch_size=200, seed=0)).sum(-1).mean()
    assert was.mean() > one_by_one + 1  # streams cost something here
    assert now.mean() - one_by_one < 0.6 * (was.mean() - one_by_one)


def test_texts_come_nearer_to_the_distribution_of_one_by_one():
    model, length, V = tiny(ARMD, max_length=6, vocab_size=3, seed=1), 6, 3
    with torch.no_grad():
        model.embedding.weight.mul_(30)
        model.head.weight.mul_(6)
    world = torch.tensor(list(itertools.product(range(V), repeat=length)))
    truth = (-price(model, world).double().sum(-1)).exp()

    def off(correct):
        """Total variation of 6,000 texts from it."""
        how = {"length": length, "streams": 3, "batch_size": 2000, "correct": correct}
        texts = torch.cat([generate(model, seed=seed, **how) for seed in range(3)])
        counts = torch.bincount((texts * V ** torch.arange(length - 1, -1, -1)).sum(-1), minlength=len(world))
        return float((counts / counts.sum() - truth).abs().sum() / 2)

    assert off(Corrector()) < 0.5 * off(None)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), n_given=st.integers(0, N - 4), end=st.sampled_from([None, 0]))
def test_what_is_given_and_what_stands_behind_the_end_is_not_touched(opinionated, seed, n_given, end):
    g = torch.Generator().manual_seed(seed)
    known = torch.full((3, N), -1)
    for row in known:  # as many in each row, at places of its own
        row[torch.randperm(N, generator=g)[:n_given]] = torch.randint(1, 5, (n_given,), generator=g)
    how = {"length": N, "known": known, "streams": 2, "verify": True, "end": end, "seed": seed}
    before, after = generate(opinionated, **how), generate(opinionated, correct=Corrector(0.1, rounds=3), **how)
    stays = known != -1
    if end is not None:
        stays |= ((before == end) & (known == -1)).cumsum(-1) > 0
    assert torch.equal(before[stays], after[stays])


def test_only_doubted_tokens_and_their_neighbours_change_and_the_record_is_true(opinionated):
    order, engine = GenerationOrder.left_to_right(N), Engine.of(opinionated)
    tokens, written = torch.full((60, N), -1), torch.zeros(60, N)
    for step in decode_steps(engine, length=N, streams=4, batch_size=60, seed=1):
        step.write_into(tokens)
        step.write_into(written, -step.log_probs.float())
    torch.testing.assert_close(written, price(opinionated, tokens, GenerationOrder.strided(N, 4)), atol=1e-4, rtol=1e-4)
    doubted = price(opinionated, tokens) - written > 1.5
    near = doubted | doubted.roll(1, 1) | doubted.roll(-1, 1)
    near[:, 0] = doubted[:, :2].any(-1)  # roll goes round the corner
    near[:, -1] = doubted[:, -2:].any(-1)
    done, n_calls = corrected(engine, tokens, written, order, Corrector(1.5, beside=1, rounds=1), seed=0)
    is_new = done.tokens != tokens
    assert is_new.any()
    assert not is_new[~near].any()
    torch.testing.assert_close(done.nats, price(opinionated, done.tokens), atol=1e-4, rtol=1e-4)
    assert n_calls > 3  # a pass that reads, calls that draw, a pass or two that read what was drawn
    # beside=0 changes doubted tokens alone
    is_new = corrected(engine, tokens, written, order, Corrector(1.5, beside=0, rounds=1), seed=0)[0].tokens != tokens
    assert is_new.any()
    assert not is_new[~doubted].any()
    # where nothing is doubted one pass says so
    calm, n_calls = corrected(engine, tokens, written, order, Corrector(1e3), seed=0)
    assert n_calls == 1
    assert torch.equal(calm.tokens, tokens)


@pytest.mark.parametrize("end", [None, 0])
def test_each_reading_is_a_step_that_says_what_stands_there_and_what_it_costs(opinionated, end):
    how = {"length": N, "streams": 4, "batch_size": 20, "seed": 1, "end": end, "correct": Corrector(0.5, rounds=3)}
    steps = list(decode_steps(opinionated, **how))
    writing, reading = ([step for step in steps if step.is_reading is kind] for kind in (False, True))
    assert [step.is_reading for step in steps] == [False] * len(writing) + [True] * len(reading)
    plain = list(decode_steps(opinionated, **{**how, "correct": None}))
    assert all(torch.equal(a.tokens, b.tokens) for a, b in zip(writing, plain, strict=True))
    text, before = torch.full((20, N), -1), generate(opinionated, **{**how, "correct": None})
    is_read = torch.ones(20, N, dtype=torch.bool)
    if end is not None:
        ends = (before == end).int()
        is_read = ends.cumsum(-1) - ends == 0
    for step in writing:
        step.write_into(text)
    assert 1 < len(reading) <= 4
    assert [step.calls == 1 for step in reading] == [True] + [False] * (len(reading) - 1)
    for step in reading:
        step.write_into(text)
        whole = text.masked_fill(text == -1, 0)
        expected = -(price(opinionated, whole) * is_read)[:, step.positions].double()
        torch.testing.assert_close(step.log_probs, expected, atol=1e-4, rtol=1e-4)
    assert torch.equal(whole, generate(opinionated, **how))
    assert torch.equal(reading[0].tokens, before[:, reading[0].positions])


def test_a_seed_repeats_a_correction_and_none_does_not(opinionated):
    how = {"length": N, "streams": 4, "batch_size": 60, "correct": Corrector()}
    assert torch.equal(generate(opinionated, seed=5, **how), generate(opinionated, seed=5, **how))
    order, engine, tokens = GenerationOrder.left_to_right(N), Engine.of(opinionated), torch.zeros(60, N).long()
    done = [corrected(engine, tokens, torch.full((60, N), -1e3), order, Corrector())[0].tokens for _ in range(2)]
    assert not torch.equal(*done)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.booleans(), min_size=9, max_size=9), min_size=1, max_size=4))
def test_spots_are_filled_in_waves_behind_all_that_stays(rows):
    is_spot = torch.tensor(rows)
    order = spots_order(is_spot)
    for row, positions, blocks in zip(is_spot, order.positions, order.blocks, strict=True):
        known = (~row).nonzero().flatten().tolist()
        assert positions.tolist()[: len(known)] == known
        waves = {}
        for position, block in zip(positions.tolist(), blocks.tolist(), strict=True):
            waves.setdefault(block, []).append(position)
        for wave in list(waves.values())[len(known) :]:
            first = [position for position in wave if not position or not row[position - 1]]
            assert not first or first == wave  # a wave of first tokens holds nothing else
            assert all(b - a > 1 for a, b in itertools.pairwise(wave))  # and one of each spot


def test_shipped_tales_in_eight_streams_hold_together_more_often():
    lab = armdlab.load("tales")
    how = {"streams": 8, "seed": 4}
    plain, better = (
        validity(write_tales(lab.engine, lab.tokenizer, 48, correct=correct, **how)).is_consistent.part
        for correct in (None, Corrector(above=5.0))
    )
    assert better >= plain + 4


def test_a_prompt_stays_and_the_text_is_read_again(opinionated):
    how = {"length": N, "prompt": [3, 1, 4], "streams": 3, "batch_size": 50, "seed": 2}
    before, after = generate(opinionated, **how), generate(opinionated, correct=Corrector(), **how)
    assert not torch.equal(before, after)
    assert (after[:, :3] == torch.tensor([3, 1, 4])).all()


def test_what_can_mean_nothing_is_refused():
    for above in (0, -1.0, float("nan"), float("inf"), "much"):
        rule = f"above={above!r} must be a number of nats above 0; 1 is a good one"
        with pytest.raises(ValueError, match=f"^{re.escape(rule)}$"):
            Corrector(above=above)
    for beside in (-1, 0.5, True):
        rule = f"beside={beside!r} must be a whole number of tokens, from 0"
        with pytest.raises(ValueError, match=f"^{re.escape(rule)}$"):
            Corrector(beside=beside)
    with pytest.raises(ValueError, match=r"^rounds=0 must be a whole number of at least 1$"):
        Corrector(rounds=0)


@pytest.mark.parametrize("kind", [AR, LeakyQuery])
def test_other_models_are_refused(kind):
    rule = f"correct={Corrector()!r} needs a model that scores any order in one pass, an ARMD; {kind.__name__} cannot"
    with pytest.raises(ValueError, match=f"^{re.escape(rule)}$"):
        generate(tiny(kind, max_length=8), length=8, correct=Corrector())


def test_an_engine_that_cannot_read_whole_texts_is_refused():
    model = tiny(ARMD, max_length=8)
    engine = Engine.of(model, compiled=True)
    with pytest.raises(ValueError, match=r"this engine runs compiled steps alone; give the model$"):
        generate(engine, length=8, streams=2, correct=Corrector())
    engine = Engine.of(model)
    model.to("meta")
    with pytest.raises(ValueError, match=r"and this engine gave its model's own weights up; give the model$"):
        generate(engine, length=8, streams=2, correct=Corrector())
