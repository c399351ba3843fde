"""Laws of decoding: the cache changes nothing, chance is what it claims to be, and what is given stays."""

import itertools
import math
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import order_around, orders, random_tokens, tiny

from armdlab import AR, ARMD, Gate, GenerationOrder, decode_steps, generate
from armdlab.capture import FixedStep, logits
from armdlab.engine import Engine
from armdlab.objectives import nll
from armdlab.sampling import Sampler

N = 8


def decode(model, **arguments):
    """Text (B, N), and the log-probability that each decoding step reported, (B, N) with 0 at what was given."""
    tokens = generate(model, seed=5, **arguments)
    log_probs, made = torch.zeros(tokens.shape, dtype=torch.float64), torch.zeros(tokens.shape)
    for step in decode_steps(model, seed=5, **arguments):
        positions = step.positions.expand_as(step.tokens)
        assert torch.equal(tokens.gather(1, positions), step.tokens), "generate is the loop over decode_steps"
        log_probs.scatter_(1, positions, step.log_probs)
        made.scatter_add_(1, positions, torch.ones_like(step.tokens, dtype=torch.float))
    assert made.max() <= 1, "no position is made twice"
    return tokens, log_probs, made.bool()


def assert_cache_changes_nothing(model, scored_by, **arguments):
    """What the steps said equals one full pass over the finished text, to 1e-5 (guarantee 3)."""
    tokens, log_probs, made = decode(model, length=scored_by.length, **arguments)
    with torch.no_grad():
        full = -nll(model, tokens, scored_by, "none").double()
    assert (log_probs - full)[made].abs().max() <= 1e-5
    return made


@given(orders(length=N, batch_size=3).filter(lambda order: order.blocks.dim() == 1), st.integers(1, 3))
@settings(max_examples=60)
def test_cached_decoding_equals_one_full_pass_for_every_order(order, n_two_stream):
    made = assert_cache_changes_nothing(tiny(ARMD, n_two_stream=n_two_stream), order, order=order, batch_size=3)
    assert made.all()


@pytest.mark.parametrize("streams", [1, 2, 4, 8])
def test_cached_strided_decoding_equals_one_full_pass_at_length(streams):
    order = GenerationOrder.strided(128, streams)
    assert_cache_changes_nothing(tiny(ARMD, max_length=128), order, streams=streams, batch_size=2)


@given(st.integers(1, N - 1), st.integers(1, N))
def test_a_prompt_stays_and_conditions_what_follows(n_prompt, streams):
    model = tiny(ARMD)
    prompt = random_tokens(model, 2, n_prompt)
    order = order_around(torch.arange(N) < n_prompt, streams)
    made = assert_cache_changes_nothing(model, order, prompt=prompt, streams=streams)
    assert made[:, :n_prompt].sum() == 0
    assert made[:, n_prompt:].all()
    assert torch.equal(generate(model, length=N, prompt=prompt, streams=streams)[:, :n_prompt], prompt)


@given(st.lists(st.booleans(), min_size=N, max_size=N).filter(lambda k: not all(k)), st.integers(1, 3), st.data())
@settings(max_examples=60)
def test_infilling_any_set_of_positions_under_any_order_equals_one_full_pass(is_known, streams, data):
    model = tiny(ARMD)
    is_known = torch.tensor(is_known)
    known = random_tokens(model, 2, N).masked_fill(~is_known, -1)
    streams = min(streams, int((~is_known).sum()))
    first = order_around(is_known, streams)
    if is_known.any():
        made = assert_cache_changes_nothing(model, first, known=known, streams=streams)
        assert torch.equal(made[0], ~is_known)
    own = data.draw(orders(length=N).filter(lambda order: order.blocks.dim() == 1))
    made = assert_cache_changes_nothing(model, own, known=known, order=own)  # what is known may come late in it
    assert torch.equal(made[0], ~is_known)


def test_rows_that_know_different_positions_decode_together():
    model = tiny(ARMD)
    known = random_tokens(model, 3, N)
    known[0, 2:], known[1, 5:], known[2, ::2] = -1, -1, -1
    tokens, log_probs, _ = decode(model, length=N, known=known)
    assert torch.equal(tokens[known != -1], known[known != -1])
    for row in range(3):
        order = GenerationOrder.infilling(known[row] != -1)
        full = -nll(model, tokens[row : row + 1], order, "none").double().detach()
        unknown = known[row] == -1
        assert (log_probs[row] - full[0])[unknown].abs().max() <= 1e-5


@pytest.mark.parametrize("cls", [ARMD, AR])
def test_every_model_decodes_left_to_right_behind_a_prompt(cls):
    model = tiny(cls)
    prompt = random_tokens(model, 2, 3)
    assert_cache_changes_nothing(model, GenerationOrder.left_to_right(N), prompt=prompt)


def test_everything_given_leaves_nothing_to_do():
    model = tiny(ARMD)
    known = random_tokens(model, 2, N)
    assert list(decode_steps(model, length=N, known=known)) == []
    assert list(decode_steps(model, length=N, known=known, gate=Gate(0.5))) == []
    assert torch.equal(generate(model, length=N, known=known), known)


def test_strided_decoding_takes_the_steps_that_the_paper_counts():
    model = tiny(ARMD)
    for streams in (1, 2, 4):
        assert len(list(decode_steps(model, length=N, streams=streams))) == streams + N // streams - 1


def test_decoding_calls_the_network_once_a_step_and_reads_a_prompt_in_the_first(monkeypatch):
    model, rows, run_layer = tiny(ARMD), [], Engine.run_layer

    def spy(self, depth, x, *others):
        if depth == 0:
            rows.append(x.shape[1])
        return run_layer(self, depth, x, *others)

    monkeypatch.setattr(Engine, "run_layer", spy)
    list(decode_steps(model, length=N, prompt=[1, 2, 3], streams=1))
    assert rows == [4 + 4, 1 + 1, 1 + 1, 1 + 1, 1 + 1]  # X: BOS and the prompt, then a token a call; G beside it


def test_same_seed_same_text_and_another_seed_another():
    model = tiny(ARMD)
    first, again, other = (generate(model, length=N, streams=2, batch_size=4, seed=s) for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    state = torch.get_rng_state()
    generate(model, length=N, seed=1)
    assert torch.equal(torch.get_rng_state(), state)  # the global stream of chance is left alone


def test_samples_follow_the_distribution_that_the_model_states():
    """Chi-square over a whole world of 27 texts, strided: 26 degrees of freedom, 99.9 % below 54.1."""
    model, order = tiny(ARMD, vocab_size=3), GenerationOrder([0, 2, 1], [0, 1, 1])
    world = torch.tensor(list(itertools.product(range(3), repeat=3)))
    with torch.no_grad():
        expected = 20_000 * nll(model, world, order, "none").double().sum(-1).neg().exp()
    samples = generate(model, length=3, order=order, batch_size=20_000, seed=0)
    counts = torch.bincount((samples * torch.tensor([9, 3, 1])).sum(-1), minlength=27)
    likely = expected > 5
    statistic = ((counts - expected) ** 2 / expected)[likely].sum()
    assert likely.sum() > 10
    assert statistic < 54.1


def test_chance_is_float64_however_coarse_the_logits():
    """Float32 Gumbel noise ends at 16.6 and cuts the tail; what the race sees must be float64 (guarantee 4)."""
    seen, sampler = [], Sampler(seed=0)
    sampler.truncate = lambda p: seen.append(p.dtype) or p
    _, log_probs = sampler(torch.zeros(2, 3, dtype=torch.bfloat16))
    assert seen == [torch.float64]
    assert log_probs.dtype == torch.float64


def test_rare_tokens_win_as_often_as_they_should():
    n, gap = 4_000_000, 13.0
    tokens, _ = Sampler(seed=0)(torch.tensor([0.0, -gap]).expand(n, 2))
    expected = n * math.exp(-gap)  # 9.04 wins
    assert abs(int(tokens.sum()) - expected) < 4 * math.sqrt(expected)


def test_temperature_sharpens_and_zero_takes_the_likeliest():
    logits = torch.tensor([[0.0, 1.0, 2.0]]).expand(40_000, 3)
    for temperature in (0.5, 1.0, 2.0):
        tokens, _ = Sampler(temperature=temperature, seed=0)(logits)
        shares = torch.bincount(tokens, minlength=3) / len(tokens)
        torch.testing.assert_close(shares, (logits[0] / temperature).softmax(-1), atol=0.01, rtol=0)
    assert (Sampler(temperature=0)(logits)[0] == 2).all()


def test_reported_probabilities_ignore_temperature_and_truncation():
    logits = torch.randn(100, 5)
    plain = logits.double().log_softmax(-1)
    for sampler in (Sampler(temperature=0.3, seed=0), Sampler(top_k=2, seed=0), Sampler(top_p=0.4, seed=0)):
        tokens, log_probs = sampler(logits)
        torch.testing.assert_close(log_probs, plain.gather(-1, tokens.unsqueeze(-1)).squeeze(-1))


def test_truncation_keeps_the_token_that_crosses_p():
    p = torch.tensor([0.1, 0.4, 0.3, 0.2], dtype=torch.float64)
    assert Sampler(top_k=2).truncate(p).tolist() == [0, 0.4, 0.3, 0]
    assert Sampler(top_p=0.4).truncate(p).tolist() == [0, 0.4, 0, 0]
    assert Sampler(top_p=0.41).truncate(p).tolist() == [0, 0.4, 0.3, 0]
    assert Sampler(top_p=1.0).truncate(p).tolist() == p.tolist()
    assert Sampler(top_k=3, top_p=0.5).truncate(p).tolist() == [0, 0.4, 0.3, 0]  # p counts what top_k left


@given(st.integers(0, 2**31), st.floats(0.05, 1.0))
def test_nucleus_is_the_smallest_set_that_reaches_p(seed, top_p):
    p = torch.randn(6, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).mul(2).softmax(-1)
    kept = Sampler(top_p=top_p).truncate(p) > 0
    assert p[kept].sum() >= top_p - 1e-12
    assert p[kept].sum() - p[kept].min() < top_p


def test_generated_text_can_be_trained_on():
    model = tiny(ARMD)
    nll(model, generate(model, length=N, seed=0)).backward()
    assert model.amplitudes.grad.abs().sum() > 0


def test_decoding_in_training_mode_is_not_disturbed_by_dropout():
    model = tiny(ARMD, dropout=0.5).train()
    decoded = generate(model, length=N, seed=0)
    assert model.training
    assert torch.equal(generate(model.eval(), length=N, seed=0), decoded)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"length": 8, "streams": 3}, "streams=3 does not divide length=8; try 2 or 4"),
        ({"length": 0}, "length=0 must be a whole number of at least 1"),
        (
            {"length": 13},
            "tokens is torch.int64 of shape (1, 13); give int64 (B, N) with N from 1 to max_length=12",
        ),
        ({"length": 4, "prompt": [1] * 5}, "prompt has 5 tokens but length=4; length counts the prompt too"),
        (
            {"length": 4, "prompt": [7]},
            "prompt or known holds ids from -1 to 7; this model knows 0 to 6, and -1 marks what to generate",
        ),
        (
            {"length": 4, "known": [1, -2, -1, 3]},
            "prompt or known holds ids from -2 to 3; this model knows 0 to 6, and -1 marks what to generate",
        ),
        ({"length": 4, "known": [1, -1]}, "known has 2 tokens but length=4; known needs one entry for each position"),
        (
            {"length": 4, "known": [1, -1, 1, 1], "prompt": [1]},
            "prompt and known are both given; put the prompt into known, with -1 at what to generate",
        ),
        ({"length": 4, "prompt": [0.5]}, "prompt is torch.float32 of shape (1,); give token ids, (n,) or (B, n)"),
        (
            {"length": 4, "prompt": "It was a"},
            "prompt='It was a' is text, and token ids are wanted; give what tokenizer.encode makes of it",
        ),
        (
            {"length": 4, "prompt": [[1, 2], [3]]},
            "prompt=[[1, 2], [3]] holds something else than whole numbers, or rows of several lengths; give token ids, "
            "(n,) or (B, n), rows of several lengths one by one",
        ),
        (
            {"length": 4, "seed": "a"},
            "seed='a' must be a whole number from -2**63 to 2**64 - 1; choose another, such as 0",
        ),
        (
            {"length": 4, "seed": 99999999999999999999},
            "seed=99999999999999999999 must be a whole number from -2**63 to 2**64 - 1; choose another, such as 0",
        ),
        (
            {"length": 4, "prompt": [[1], [2]], "batch_size": 3},
            "prompt has 2 rows but batch_size=3; leave batch_size out",
        ),
        (
            {"length": 6, "known": [[1, -1, -1, -1, -1, -1], [1, 2, -1, -1, -1, -1]], "streams": 2},
            "rows of the batch have blocks of different sizes (they know different numbers of tokens?); "
            "use streams=1, or decode rows that are cut alike together",
        ),
        (
            {"length": 4, "order": GenerationOrder.left_to_right(4), "streams": 2},
            "streams=2 and order=GenerationOrder(length=4, n_blocks=4) both say who is made when; give one of them",
        ),
        (
            {"length": 4, "order": GenerationOrder.left_to_right(5)},
            "order has positions (5,) but tokens are (1, 4); give one order (N,) for all rows, or one (B, N) for each",
        ),
        ({"length": 4, "temperature": -1.0}, "temperature=-1.0 must be a number from 0; 1 samples the model as it is"),
        ({"length": 4, "top_k": 0}, "top_k=0 must be a whole number of at least 1, or None to keep all"),
        ({"length": 4, "top_p": 1.5}, "top_p=1.5 must be above 0 and at most 1, or None to keep all"),
        ({"length": 4, "top_p": 0.0}, "top_p=0.0 must be above 0 and at most 1, or None to keep all"),
    ],
)
def test_bad_arguments_are_refused_at_the_call_with_a_sentence(arguments, sentence):
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        decode_steps(tiny(ARMD), **arguments)


@pytest.mark.parametrize("top_k", [None, 3])
def test_a_temperature_that_no_float64_can_divide_by_takes_the_likeliest_token(top_k):
    logits = torch.tensor([[-3e38, 1.0, 30.0, 3e38], [-torch.inf, 2.0, 2.5, 0.0]])
    tokens, log_probs = Sampler(1e-310, top_k=top_k, seed=0)(logits)
    assert tokens.tolist() == [3, 2]
    torch.testing.assert_close(log_probs, logits.double().log_softmax(-1).gather(-1, tokens[:, None])[:, 0])


# ---------------------------------------------------------------------------------------------------- fixed steps


@pytest.mark.parametrize("streams", [1, 4])
@pytest.mark.parametrize("how", [{}, {"end": 2}, {"prompt": [3, 1, 2, 4]}])
def test_steps_of_a_fixed_shape_write_the_same_text_as_those_that_grow(streams, how, monkeypatch):
    """Everything but the compiler: static inputs, the cache read whole under a mask, shapes that are too rare."""
    monkeypatch.setattr("armdlab.capture._compiled", lambda: logits)
    rows, fixed_call = [], FixedStep.__call__

    def spy(self, tokens, *others):
        rows.append(len(tokens))
        return fixed_call(self, tokens, *others)

    monkeypatch.setattr(FixedStep, "__call__", spy)
    model = tiny(ARMD, max_length=64)
    how = {"length": 64, "streams": streams, "batch_size": 3, "seed": 1, **how}
    how = {key: value for key, value in how.items() if key != "batch_size" or "prompt" not in how}
    plain, fixed = Engine.of(model), Engine.of(model, compiled=True)
    assert torch.equal(generate(fixed, **how), generate(plain, **how))
    assert rows, "no call had a fixed shape"
    for one, other in zip(decode_steps(fixed, **how), decode_steps(plain, **how), strict=True):
        assert (one.log_probs - other.log_probs).abs().max() <= 1e-5


def test_a_compiled_step_is_compiled_once_for_all_texts_and_lengths_of_the_cache(monkeypatch):
    """Traced whole, by a backend that runs what was traced: g++ would take a minute, and change no number."""
    traced = []

    def backend(graph, inputs):
        traced.append(graph)
        return graph.forward

    torch._dynamo.reset()
    compiled = torch.compile(logits, dynamic=False, fullgraph=True, backend=backend)
    monkeypatch.setattr("armdlab.capture._compiled", lambda: compiled)
    engine = Engine.of(tiny(ARMD, max_length=16), compiled=True)
    for seed in (0, 1):
        expected = generate(Engine.of(engine.model), length=16, seed=seed)
        assert torch.equal(generate(engine, length=16, seed=seed), expected)
    assert len(traced) == 1


def test_only_armd_is_compiled():
    with pytest.raises(ValueError, match=r"^compiled=True is for ARMD's steps, and AR has none; leave it out$"):
        Engine.of(tiny(AR), compiled=True)
