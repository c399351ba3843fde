"""Laws of the two further ways to write in parallel: verified (exact), and gated by confidence."""

import itertools
import math
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import order_around, random_tokens, tiny

from armdlab import AR, ARMD, GenerationOrder, decode_steps, generate
from armdlab.baselines import MDLM, LeakyQuery
from armdlab.engine import Engine
from armdlab.gated import Gate
from armdlab.masks import Mask, Masks
from armdlab.objectives import nll
from armdlab.sampling import Sampler

N = 8


def opinionated(**size):
    """An ARMD whose tokens depend on each other so much that independent drafts are often wrong."""
    model = tiny(ARMD, **size)
    with torch.no_grad():
        model.embedding.weight.mul_(30)
        model.head.weight.mul_(12)
    return model


def one_by_one(order):
    return GenerationOrder(order.positions, torch.arange(order.length))


def what_steps_said(steps, shape):
    """Log-probabilities (B, N), 0 at what was given; and which tokens were made. None is made twice."""
    log_probs, made = torch.zeros(shape, dtype=torch.float64), torch.zeros(shape)
    for step in steps:
        row, column = (step.positions.expand_as(step.tokens) != -1).nonzero(as_tuple=True)
        at = step.positions.expand_as(step.tokens)[row, column]
        log_probs[row, at] = step.log_probs[row, column]
        made[row, at] += 1
    assert made.max() <= 1
    return log_probs, made.bool()


# ------------------------------------------------------------------------------------------------------ verified


def chi_square(counts, probabilities):
    """Pearson's statistic over the outcomes that are expected at least five times, the others together."""
    expected = counts.sum() * probabilities
    often = expected >= 5
    observed = torch.cat([counts[often], counts[~often].sum().unsqueeze(0)])
    expected = torch.cat([expected[often], expected[~often].sum().clamp(min=1e-9).unsqueeze(0)])
    return float(((observed - expected).square() / expected).sum()), len(expected) - 1


def world_and_samples(model, length, streams, n_batches, batch_size, *, is_plain=False, **how):
    V = model.config.vocab_size
    world = torch.tensor(list(itertools.product(range(V), repeat=length)))
    order = GenerationOrder.strided(length, streams)
    order = order if is_plain else one_by_one(order)
    with torch.no_grad():
        exact = -nll(model, world, order, "none").double().sum(-1)
    counts, n_calls, powers = torch.zeros(len(world)), 0, V ** torch.arange(length - 1, -1, -1)
    for seed in range(n_batches):
        steps = list(decode_steps(model, length=length, streams=streams, batch_size=batch_size, seed=seed, **how))
        text = torch.full((batch_size, length), -1)
        for step in steps:
            step.write_into(text)
        counts += torch.bincount((text * powers).sum(-1), minlength=len(world))
        n_calls += len(steps)
    return exact.exp(), counts, n_calls / n_batches


@pytest.mark.parametrize(("length", "streams", "vocab_size"), [(4, 2, 3), (4, 4, 3), (6, 3, 2), (8, 4, 2)])
def test_verified_texts_have_exactly_the_sequential_distribution(length, streams, vocab_size):
    model = opinionated(vocab_size=vocab_size, max_length=length)
    exact, counts, _ = world_and_samples(model, length, streams, 10, 4000, verify=True)
    assert float(exact.sum()) == pytest.approx(1, abs=1e-5)
    statistic, freedom = chi_square(counts, exact)
    assert statistic < freedom + 4 * math.sqrt(2 * freedom)


def test_the_same_test_finds_that_plain_streams_have_another_distribution():
    model = opinionated(vocab_size=3, max_length=4)
    exact, counts, _ = world_and_samples(model, 4, 2, 10, 4000)
    statistic, freedom = chi_square(counts, exact)
    assert statistic > freedom + 20 * math.sqrt(2 * freedom)


def test_temperature_and_truncation_hold_for_verified_texts_too():
    model = opinionated(vocab_size=4, max_length=4)
    how = {"temperature": 0.7, "top_k": 3, "seed": 1, "batch_size": 4000, "length": 4}
    order = one_by_one(GenerationOrder.strided(4, 2))
    powers = 4 ** torch.arange(4)
    in_turn = torch.bincount((generate(model, order=order, **how) * powers).sum(-1), minlength=256)
    verified = torch.bincount((generate(model, streams=2, verify=True, **how) * powers).sum(-1), minlength=256)
    often = in_turn + verified >= 10
    statistic = ((in_turn - verified).square() / (in_turn + verified).clamp(min=1))[often].sum()
    freedom = int(often.sum())
    assert statistic < freedom + 4 * math.sqrt(2 * freedom)
    cold = {"length": 8, "temperature": 0, "prompt": [1, 2]}
    model = opinionated()
    known_first = one_by_one(GenerationOrder.strided(8, 2).behind(torch.arange(8) < 2))
    expected = generate(model, order=known_first, **cold)
    assert torch.equal(generate(model, streams=2, verify=True, **cold), expected)


@given(st.integers(1, 4), st.integers(1, 3), st.lists(st.booleans(), min_size=N, max_size=N), st.integers(0, 99))
@settings(max_examples=60)
def test_what_verified_steps_say_is_the_sequential_probability(streams, batch_size, is_known, seed):
    model, is_known = opinionated(), torch.tensor(is_known)
    known = random_tokens(model, batch_size, N).masked_fill(~is_known, -1)
    streams = max(1, min(streams, int((~is_known).sum())))
    if not is_known.any() and N % streams:
        streams = 2
    how = {"length": N, "known": known, "streams": streams, "verify": True, "seed": seed}
    text, steps = generate(model, **how), list(decode_steps(model, **how))
    log_probs, made = what_steps_said(steps, text.shape)
    assert torch.equal(made, (~is_known).expand_as(made))
    assert torch.equal(text[:, is_known], known[:, is_known])
    if steps:
        order = one_by_one(order_around(is_known, streams))
        full = -nll(model, text, order, "none").double().detach()
        assert ((log_probs - full)[made].abs() <= 1e-4 * full[made].abs().clamp(min=1)).all()


@given(st.integers(1, 3), st.lists(st.booleans(), min_size=3 * N, max_size=3 * N), st.integers(0, 99))
@settings(max_examples=60)
def test_so_it_is_where_what_is_known_stands_anywhere_in_an_order_of_ones_own(batch_size, is_known, seed):
    """A token that is known is a draft like others, which passes; it must be read as what it is."""
    model, is_known = opinionated(), torch.tensor(is_known).view(3, N)[:batch_size]
    known = random_tokens(model, batch_size, N).masked_fill(~is_known, -1)
    chance = torch.Generator().manual_seed(seed)
    order = GenerationOrder(torch.randperm(N, generator=chance), torch.arange(N) // 3)
    how = {"length": N, "known": known, "order": order, "verify": True, "seed": seed}
    text, steps = generate(model, **how), list(decode_steps(model, **how))
    log_probs, made = what_steps_said(steps, text.shape)
    assert torch.equal(made, ~is_known)
    assert torch.equal(text[is_known], known[is_known])
    full = -nll(model, text, one_by_one(order), "none").double().detach()
    assert ((log_probs - full)[made].abs() <= 1e-4 * full[made].abs().clamp(min=1)).all()


def test_verification_makes_at_least_one_token_a_call_and_a_window_where_drafts_are_good():
    steps = list(decode_steps(tiny(ARMD, max_length=64), length=64, streams=8, verify=True, seed=4))
    sizes = [len(step.positions) for step in steps]
    assert sizes[0] == 1, "the first call has nothing to judge"
    assert max(sizes) == 8
    assert len(sizes) <= 13
    steps = list(decode_steps(opinionated(max_length=64), length=64, streams=8, verify=True, seed=0))
    assert 8 < len(steps) <= 64
    assert sum(step.tokens.shape[1] for step in steps) == 64


def test_an_order_of_ones_own_is_verified_in_windows_of_its_largest_block():
    model, order = opinionated(), GenerationOrder.blockwise(N, 4)
    text = generate(model, length=N, order=order, verify=True, temperature=0)
    assert torch.equal(text, generate(model, length=N, temperature=0))


# ------------------------------------------------------------------------------------------------ verified heads


@pytest.mark.parametrize(("length", "streams", "vocab_size"), [(6, 3, 3), (8, 4, 2), (10, 5, 2)])
def test_verified_heads_leave_the_distribution_of_plain_streams(length, streams, vocab_size):
    model = opinionated(vocab_size=vocab_size, max_length=length)
    exact, counts, _ = world_and_samples(model, length, streams, 10, 4000, is_plain=True, verify="heads")
    assert float(exact.sum()) == pytest.approx(1, abs=1e-5)
    statistic, freedom = chi_square(counts, exact)
    assert statistic < freedom + 4 * math.sqrt(2 * freedom)


@given(st.integers(3, 5), st.integers(1, 3), st.integers(0, 5), st.integers(0, 99))
@settings(max_examples=40)
def test_what_verified_heads_say_is_the_probability_in_plain_streams(streams, batch_size, n_known, seed):
    model = opinionated(max_length=20)
    n = 4 * streams
    prompt = random_tokens(model, batch_size, n)[:, :n_known]
    how = {"length": n, "prompt": prompt, "streams": streams, "verify": "heads", "seed": seed}
    text, steps = generate(model, **how), list(decode_steps(model, **how))
    log_probs, made = what_steps_said(steps, text.shape)
    is_known = torch.arange(n) < n_known
    order = GenerationOrder.strided(n, streams).behind(is_known)
    full = -nll(model, text, order, "none").double().detach()
    assert torch.equal(made, (~is_known).expand_as(made))
    assert ((log_probs - full)[made].abs() <= 1e-4 * full[made].abs().clamp(min=1)).all()


def test_verified_heads_take_fewer_calls_and_nothing_else_is_verified():
    how = {"length": 64, "streams": 16, "seed": 0}
    plain, checked = (
        list(decode_steps(tiny(ARMD, max_length=64), **how, **more)) for more in ({}, {"verify": "heads"})
    )
    assert [len(step.positions) for step in plain] == [1] * 16 + [16] * 3
    assert [len(step.positions) for step in checked][-3:] == [16] * 3
    assert len(checked) < 12
    for one in ({"streams": 1}, {"streams": 2}):  # no heads to speak of: plain to the letter
        how = {"length": N, "seed": 0, **one}
        assert torch.equal(generate(opinionated(), verify="heads", **how), generate(opinionated(), **how))


# --------------------------------------------------------------------------------------------------------- gated


@pytest.mark.parametrize("given_at", [[], [0, 1, 2], [0, 3, 6]], ids=["nothing", "a prompt", "gaps"])
@pytest.mark.parametrize("gate", [Gate(min_probability=0.3), Gate(max_entropy=0.8), Gate(0.2, 1.5)])
def test_gated_steps_say_what_full_passes_over_all_tries_say(gate, given_at, monkeypatch):
    """No cache: each row of G that was ever tried, beside each token of X, under masks that say what it saw."""
    model, tries = opinionated(), []
    passes = Gate.passes

    def spy(self, logits, log_probs, is_waiting):
        commits = passes(self, logits, log_probs, is_waiting)
        tries.append((is_waiting[0].clone(), commits[0].clone()))
        return commits

    monkeypatch.setattr(Gate, "passes", spy)
    known = torch.full((N,), -1)
    known[given_at] = torch.tensor([1, 2, 3])[: len(given_at)]
    how = {"length": N, "known": known, "streams": 4, "gate": gate, "seed": 3}
    steps, text = list(decode_steps(model, **how)), generate(model, **how)
    tries = tries[: len(steps)]
    n_known, order = len(given_at), order_around(known != -1, 4)
    blocks = [step.tolist() for step in order.steps()][n_known:]

    x_at, x_time = list(given_at), list(range(-n_known, 0))  # what is given is read one by one, before step 0
    g_at, g_time, g_stays, g_after = list(given_at), list(range(-n_known, 0)), [True] * n_known, [False] * n_known
    for now, (is_waiting, commits) in enumerate(tries):
        block = next(block for block in blocks if not {*block} <= {*x_at})  # the first that is not whole
        assert is_waiting.tolist() == [p not in x_at for p in block] + [False] * (len(is_waiting) - len(block))
        for position, tried, stays in zip(block, is_waiting, commits, strict=False):
            if tried:
                g_at.append(position)
                g_time.append(now)
                g_stays.append(bool(stays))
                g_after.append(bool(stays))
        x_at += [p for p, stays in zip(block, commits, strict=False) if stays]
        x_time += [now] * (len(x_at) - len(x_time))
    x_time, g_time, g_stays = torch.tensor([-99, *x_time]), torch.tensor(g_time), torch.tensor(g_stays)
    masks = Masks(
        Mask(x_time <= x_time.unsqueeze(-1)),
        Mask(x_time < g_time.unsqueeze(-1)),
        Mask(((g_time < g_time.unsqueeze(-1)) & g_stays) | (g_time == g_time.unsqueeze(-1))),
    )
    at = torch.tensor(x_at)
    with torch.no_grad():
        hidden = model.hidden(text[:, at], at, torch.tensor(g_at), masks)
        log_p = model.head(hidden).double().log_softmax(-1)[0]
    said, _ = what_steps_said(steps, text.shape)
    for row, (position, counts) in enumerate(zip(g_at, g_after, strict=True)):
        if counts:
            assert float(log_p[row, text[0, position]]) == pytest.approx(float(said[0, position]), abs=1e-4)
    assert sum(g_after) == N - n_known


def test_a_gate_that_asks_nothing_much_is_plain_parallel_and_one_that_asks_all_is_one_by_one():
    model = tiny(ARMD)
    free = list(decode_steps(model, length=N, streams=4, gate=Gate(min_probability=0)))
    strict = list(decode_steps(model, length=N, streams=4, gate=Gate(min_probability=1)))
    assert [len(step.positions) for step in free] == [1, 1, 1, 1, 4]  # heads one by one, as everywhere
    assert [len(step.positions) for step in strict] == [1] * N


def test_gated_rows_commit_and_end_on_their_own():
    model = opinionated()
    how = {"length": N, "streams": 4, "gate": Gate(min_probability=0.4), "batch_size": 3, "seed": 2}
    steps, text = list(decode_steps(model, **how)), generate(model, **how)
    _, made = what_steps_said(steps, text.shape)
    assert made.all()
    assert all(step.positions.shape == step.tokens.shape == step.log_probs.shape for step in steps)
    assert any((step.positions == -1).any() for step in steps), "a row waited while another went on"
    ended = torch.full((3, N), -1)
    for step in decode_steps(model, **how, end=1):
        step.write_into(ended)
    assert len((ended == -1).sum(-1).unique()) == 3, "each row ends at a place of its own"
    assert all((row[: row.tolist().index(1)] != -1).all() for row in ended)


# ------------------------------------------------------------------------------------------------- end of text


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"streams": 2},
        {"streams": 2, "verify": True},
        {"streams": 4, "verify": "heads"},
        {"streams": 2, "gate": Gate(0.5)},
    ],
)
def test_a_row_that_has_ended_leaves_the_batch(how, monkeypatch):
    model, rows, run_layer = tiny(ARMD, max_length=32, vocab_size=4), [], Engine.run_layer

    def spy(self, depth, x, *others):
        rows.append(len(x))
        return run_layer(self, depth, x, *others)

    monkeypatch.setattr(Engine, "run_layer", spy)
    text = generate(model, length=32, end=2, batch_size=5, seed=4, **how)
    assert rows[0] == 5
    assert rows[-1] < 5, "rows leave as they end"
    steps = list(decode_steps(model, length=32, end=2, batch_size=5, seed=4, **how))
    again = torch.full((5, 32), -1)
    for step in steps:
        step.write_into(again)
    assert torch.equal(torch.where(again == -1, 2, again), text)
    for row in again:  # up to its end a text is whole
        ended = (row == 2).nonzero().flatten().tolist()
        assert (row[: ended[0] if ended else 32] != -1).all()


def test_one_text_is_the_same_up_to_its_end_and_takes_fewer_calls():
    model = opinionated(max_length=32, vocab_size=4)
    whole = generate(model, length=32, seed=4)[0]
    end = int((whole == 2).nonzero()[0])
    steps = list(decode_steps(model, length=32, seed=4, end=2))
    assert len(steps) == end + 1 < 32
    assert torch.equal(generate(model, length=32, seed=4, end=2)[0, : end + 1], whole[: end + 1])


def test_an_end_that_was_given_ends_nothing():
    model = opinionated(vocab_size=4)
    text = generate(model, length=N, prompt=[2, 2], end=2, seed=0)
    assert (text[0, 2:] != -1).all()
    assert len(list(decode_steps(model, length=N, prompt=[2, 2], end=2, seed=0))) >= 1


# ------------------------------------------------------------------------------------------------------- packing


@pytest.mark.parametrize(("precision", "close"), [("auto", 1e-5), ("float32", 1e-5), ("half", 0.05)])
@pytest.mark.parametrize("has_tiles", [True, False])
def test_weights_that_fit_half_precision_lose_nothing_by_it(precision, close, has_tiles, monkeypatch):
    """Half precision that is asked for is bfloat16 on a CPU that multiplies tiles of it, and exact on others."""
    monkeypatch.setattr("armdlab.packing.multiplies_tiles", lambda: has_tiles)
    model = tiny(ARMD, max_length=32).half().float()
    engine = Engine.of(model, precision)
    assert engine.dtype == (torch.bfloat16 if precision == "half" and has_tiles else torch.float32)
    text = generate(engine, length=32, streams=4, seed=0)
    full = -nll(model, text, GenerationOrder.strided(32, 4), "none").double().detach()
    said, _ = what_steps_said(decode_steps(engine, length=32, streams=4, seed=0), text.shape)
    assert (said - full).abs().max() <= (1e-5 if engine.dtype == torch.float32 else close)


def test_a_precision_that_is_unknown_is_refused():
    with pytest.raises(ValueError, match=r"^precision='int3' is unknown; choose auto, float32 or half$"):
        Engine.of(tiny(ARMD), "int3")


def test_every_layout_of_weights_computes_the_same(monkeypatch):
    model, said = tiny(ARMD, max_length=32).half().float(), []
    for layout in ("plain", "blocked", "half"):
        if layout == "half" and torch.backends.quantized.engine not in ("x86", "fbgemm"):
            continue
        monkeypatch.setattr("armdlab.engine.best_layout", lambda *_, **__: layout)  # noqa: B023
        engine = Engine.of(model)
        assert engine.head.layout == layout
        said.append(what_steps_said(decode_steps(engine, length=32, streams=4, seed=0), (1, 32))[0])
    assert max((one - said[0]).abs().max() for one in said) <= 1e-5


@pytest.mark.parametrize("cls", [ARMD, AR, MDLM])
def test_an_engine_goes_on_when_its_model_gives_up_its_weights(cls):
    model = tiny(cls)
    expected = generate(model, length=N, seed=0)
    engine = Engine.of(model)
    model.to("meta")
    assert torch.equal(generate(engine, length=N, seed=0), expected)


def test_an_engine_knows_when_its_model_was_trained_on():
    model = tiny(ARMD)
    engine = Engine.of(model)
    assert engine.is_current
    with torch.no_grad():
        model.head.weight.add_(1)
    assert not engine.is_current


def test_a_class_that_changes_the_network_is_decoded_by_full_passes_of_its_own():
    class Mine(ARMD):
        def two_streams(self, x, x_at, g, g_at, masks):
            return super().two_streams(x, x_at, g, g_at, masks) * 2 + 1

    model = tiny(Mine)
    assert not Engine.follows(model)
    text = generate(model, length=N, streams=2, prompt=[1, 2], seed=0)
    said, made = what_steps_said(decode_steps(model, length=N, streams=2, prompt=[1, 2], seed=0), text.shape)
    order = GenerationOrder.strided(N, 2).behind(torch.arange(N) < 2)
    full = -nll(model, text, order, "none").double().detach()
    assert (said - full)[made].abs().max() <= 1e-6
    with pytest.raises(TypeError, match=r"^Mine changes how its network computes, and no engine follows it; "):
        Engine.of(model)


def test_a_class_that_changes_its_logits_alone_is_decoded_by_itself_too():
    class Only3(ARMD):
        def forward(self, tokens, order=None, **how):
            logits = super().forward(tokens, order, **how)
            return logits.new_full(logits.shape, -50.0).index_fill(-1, torch.tensor([3]), 50.0)

    assert (generate(tiny(Only3), length=N, seed=0) == 3).all()


def test_rows_with_orders_of_their_own_leave_a_class_of_ones_own_one_by_one():
    """Those that stay go on as they would have: with their own tokens, along their own orders."""

    class Mine(ARMD):
        def embed(self, *args, **how):
            return super().embed(*args, **how)

    known = torch.full((4, N), -1)
    known[torch.arange(4), torch.arange(4)] = 1
    both = [generate(tiny(cls), length=N, known=known, seed=0, end=3) for cls in (ARMD, Mine)]
    assert torch.equal(*both)
    for texts in both:
        ends = (texts == 3).int().argmax(-1)
        assert (texts[torch.arange(4), torch.arange(4)] == 1).all()
        assert len(set(ends[(texts == 3).any(-1)].tolist())) > 1  # they end at different places, so some left first


# ------------------------------------------------------------------------------------------------------ messages


@pytest.mark.parametrize(
    ("model", "how", "sentence"),
    [
        (AR, {"verify": True}, "verify=True needs a model that scores any order in one pass, an ARMD; AR cannot"),
        (ARMD, {"verify": "all"}, "verify='all' is unknown; choose False, True or \"heads\""),
        (ARMD, {"verify": 1}, 'verify=1 is unknown; choose False, True or "heads"'),
        (MDLM, {"verify": "heads"}, "verify='heads' needs a model that scores any order in one pass, an ARMD; MDLM"),
        (MDLM, {"gate": Gate(0.5)}, "needs a model that scores any order in one pass, an ARMD; MDLM cannot"),
        (LeakyQuery, {"verify": True}, "LeakyQuery cannot"),
        (ARMD, {"verify": True, "gate": Gate(0.5)}, "are two ways of decoding; give one of them"),
        (
            ARMD,
            {"gate": Gate(0.5), "order": GenerationOrder.random(N)},
            "finds its own order among streams; leave order=",
        ),
        (
            ARMD,
            {"gate": Gate(0.5), "streams": 2, "known": [[-1, 1] + [-1] * (N - 2), [-1] * (N - 1) + [1]]},
            "needs rows that know the same positions; decode rows that do not by themselves",
        ),
        (ARMD, {"end": 99}, "end=99 is no token of this model; choose 0 to 6, or None"),
    ],
)
def test_ways_that_do_not_suit_are_refused_with_a_sentence(model, how, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        decode_steps(tiny(model), length=N, **how)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({}, "Gate() asks nothing; give min_probability (0 to 1), max_entropy (nats), or both"),
        ({"min_probability": 1.5}, "min_probability=1.5 must be between 0 and 1"),
        ({"max_entropy": -1.0}, "max_entropy=-1.0 must be at least 0 nats"),
    ],
)
def test_a_gate_says_what_it_takes(arguments, sentence):
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        Gate(**arguments)


def test_a_draw_never_takes_what_has_no_weight():
    choose = Sampler(seed=0)
    weights = torch.tensor([0.0, 0.3, 0.0, 0.7, 0.0], dtype=torch.float64).expand(20_000, -1)
    drawn = torch.bincount(choose.draw(weights), minlength=5)
    assert drawn[[0, 2, 4]].sum() == 0
    assert float(drawn[1]) / 20_000 == pytest.approx(0.3, abs=0.02)


@pytest.mark.parametrize(("dtype", "close"), [(torch.float64, 1e-6), (torch.bfloat16, 0.5), (torch.float16, 0.1)])
def test_models_of_other_precisions_decode_in_their_own(dtype, close):
    model = tiny(ARMD, max_length=32).to(dtype)
    text = generate(model, length=32, streams=4, seed=0)
    said, _ = what_steps_said(decode_steps(model, length=32, streams=4, seed=0), text.shape)
    full = -nll(model, text, GenerationOrder.strided(32, 4), "none").double().detach()
    assert (said - full).abs().max() <= close
