"""Laws of training: it learns, it can be stopped anywhere, and nothing is lost."""

import math
import re

import pytest
import torch

from armdlab import AR, ARMD, ARMDConfig, GenerationOrder
from armdlab.costs import nats_to_learn
from armdlab.curriculum import Curriculum
from armdlab.evaluation import likelihood
from armdlab.objectives import chance_of_said, nll
from armdlab.rows import Rows, Text
from armdlab.sampling import seeded
from armdlab.training import Plan, Training, load_plan, seconds_per_step

TEXT = Text(torch.arange(400) % 10, n_characters=1000)  # a text whose every next token is certain


def small(cls=ARMD, vocab_size=10, **sizes):
    torch.manual_seed(1)
    return cls(ARMDConfig(vocab_size, 16, **{"n_layer": 2, "n_head": 2, "d_model": 16, **sizes}))


def plan(steps=12, **changes):
    return Plan(steps, Curriculum.for_steps(steps, 16), **{"batch_size": 4, "learning_rate": 1e-2, **changes})


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_a_model_learns_a_text_that_can_be_learnt_in_every_order():
    model = small(d_model=32)
    training = Training(model, TEXT, plan(150, batch_size=8))
    losses = [step.loss for step in training.run()]
    assert abs(losses[0] - math.log(10)) < 0.2
    assert losses[-1] < 0.7
    for streams in (1, 2):
        assert likelihood(model, TEXT, 16, streams=streams).nats_per_token < 0.7


@pytest.mark.parametrize(("dropout", "muon"), [(0.0, None), (0.2, None), (0.0, 0.02)])
@pytest.mark.parametrize("stop", [1, 5, 9])
def test_resumed_training_equals_uninterrupted_training_bit_for_bit(tmp_path, stop, dropout, muon):
    """Stopped in each of the three lessons of the curriculum."""
    whole = small(dropout=dropout)
    losses = [step.loss for step in Training(whole, TEXT, plan(muon=muon)).run()]

    first = Training(small(dropout=dropout), TEXT, plan(muon=muon))
    for step in first.run():
        if step.step == stop:
            break
    first.save(tmp_path)
    rest = Training(small(dropout=dropout), TEXT, load_plan(tmp_path))
    rest.resume(tmp_path)
    assert [step.loss for step in rest.run()] == losses[stop:]
    assert torch.equal(weights(rest.bare_model), weights(whole))


# texts of nine tokens and their end, in rows of 16
ENDING = Rows(
    torch.arange(40) % 10, torch.arange(0, 41, 10), 16, "padded", end_of_text=9, n_documents=4, n_characters=90
)


@pytest.mark.parametrize("text", [TEXT, ENDING], ids=["running text", "texts that end"])
def test_unlikelihood_adds_the_chance_of_what_was_said_wherever_nats_are_paid(text):
    model, order = small(vocab_size=60), GenerationOrder.strided(16, 2)
    tokens = text.windows(16, 3, seeded(0))
    with torch.no_grad():
        nats, plain = nats_to_learn(model, text, tokens, order, seeded(0))
        same, more = nats_to_learn(model, text, tokens, order, seeded(0), 5.0)
        added = chance_of_said(model(tokens, order).log_softmax(-1), tokens, order)
    is_paid = torch.ones_like(added) if text is TEXT else text.is_paid(tokens, order)
    assert torch.equal(nats, plain)
    assert torch.allclose(same, nats, atol=1e-5)  # what is reported are nats
    assert torch.allclose(more - plain, 5 * added * is_paid, atol=1e-5)
    assert float((added * is_paid).sum()) > 0.1


def test_unlikelihood_weighs_as_much_of_itself_as_the_rate_is_of_its_top_down_to_a_tenth(monkeypatch):
    weights = []

    def spy(model, text, tokens, order, chance, unlikelihood):
        weights.append(unlikelihood)
        return nats_to_learn(model, text, tokens, order, chance, unlikelihood)

    monkeypatch.setattr("armdlab.training.nats_to_learn", spy)
    training = Training(small(vocab_size=60), ENDING, plan(20, unlikelihood=30.0, cool_down=0.0))
    list(training.run())
    shares = [training.plan.rate(step) / training.plan.learning_rate for step in range(20)]
    assert weights == [30.0 * max(0.1, share) for share in shares]
    assert max(weights) == 30.0
    assert min(shares) < 0.1
    assert min(weights) == 3.0


def test_a_model_that_is_trained_with_unlikelihood_leaves_less_to_what_was_said():
    """Texts in which no token comes twice, and all else is chance."""
    shuffled = torch.rand(200, 60, generator=seeded(0)).argsort(-1)[:, :8].flatten()
    text, left = Text(shuffled, n_characters=1000), []
    for weight in (0.0, 100.0):
        training = Training(small(vocab_size=60), text, plan(60, unlikelihood=weight))
        list(training.run())
        tokens, order = training.batch(0)
        with torch.no_grad():
            log_chances = training.bare_model(tokens, order).log_softmax(-1)
        left.append(float(chance_of_said(log_chances, tokens, order, below=1.1).sum()))
    assert left[1] < 0.8 * left[0]


def test_runs_of_one_seed_are_equal_and_of_two_seeds_are_not():
    runs = []
    for seed in (0, 0, 1):
        model = small()
        list(Training(model, TEXT, plan(seed=seed)).run())
        runs.append(weights(model))
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


def test_muon_turns_matrices_of_layers_and_adamw_the_rest_each_at_its_rate():
    training = Training(small(), TEXT, plan(muon=0.03))
    next(training.run())
    learnt_by = {name: type(getattr(o, "optimizer", o)).__name__ for name, o, _ in training._learnt_by()}
    assert learnt_by["layers.0.query.weight"] == "Muon"
    assert learnt_by["embedding.weight"] == learnt_by["layers.0.attention_norm.weight"] == "AdamW"
    assert learnt_by.keys() == dict(training.bare_model.named_parameters()).keys()
    rates = {group["lr"] for optimizer in training.optimizers for group in optimizer.param_groups}
    assert sorted(rate / training.plan.rate(0) for rate in rates) == pytest.approx([1, 3])


def test_adamw_remembers_second_moments_for_as_long_as_the_plan_says():
    moments = []
    for beta2 in (0.95, 0.999):
        training = Training(small(), TEXT, plan(beta2=beta2))
        next(training.run())
        moments.append(training._moments()["exp_avg_sq.head.weight"])
    assert torch.allclose(moments[0] / 0.05, moments[1] / 0.001, rtol=1e-4)  # (1 - beta2) times the squared gradient


def test_the_learning_rate_ends_at_its_share():
    assert plan(1000, cool_down=0.0).rate(999) < 1e-4
    assert plan(1000).rate(999) == pytest.approx(1e-3, rel=0.05)


def test_the_consumer_stops_a_run_by_no_longer_asking():
    training = Training(small(), TEXT, plan())
    steps = training.run()
    assert [next(steps).step for _ in range(3)] == [1, 2, 3]
    assert training.step == 3
    assert [step.step for step in training.run()] == list(range(4, 13))


def test_batches_are_stretches_of_the_text_that_depend_on_seed_and_step_alone():
    training = Training(small(), TEXT, plan())
    tokens, order = training.batch(7)
    assert tokens.shape == (4, 16)
    assert ((tokens.diff(dim=-1) % 10) == 1).all()
    again, same_order = Training(small(), TEXT, plan()).batch(7)
    assert torch.equal(tokens, again)
    assert order == same_order
    assert not torch.equal(tokens, training.batch(8)[0])


def test_learning_rate_warms_up_then_falls_as_a_cosine_to_a_tenth():
    whole = Plan(100, Curriculum.left_to_right(16), batch_size=4, learning_rate=0.01)
    rates = [whole.rate(step) for step in range(100)]
    assert rates[:5] == pytest.approx([0.002, 0.004, 0.006, 0.008, 0.01])
    assert rates[5:] == sorted(rates[5:], reverse=True)
    assert rates[52] == pytest.approx(0.0055, rel=0.02)
    assert rates[99] == pytest.approx(0.001, rel=0.01)


def test_the_learning_rate_starts_anew_where_streams_begin():
    curriculum = Curriculum(16, 10, 40, 80, rho=2)
    ours = Plan(100, curriculum, batch_size=4, learning_rate=0.01, fine_tuning=0.5)
    baseline = Plan(80, Curriculum.left_to_right(16), batch_size=4, learning_rate=0.01)
    assert [ours.rate(step) for step in range(80)] == [baseline.rate(step) for step in range(80)]
    assert ours.rate(80) == pytest.approx(0.005)
    assert ours.rate(99) == pytest.approx(0.0005, rel=0.2)


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_last_good_weights():
    training = Training(small(), TEXT, plan())
    steps = training.run()
    next(steps)
    with torch.no_grad():
        training.bare_model.norm.weight[0] = math.nan
    before = weights(training.bare_model)
    sentence = "the loss of step 2 is nan; nothing was learnt from it. Try a learning rate below 0.01"
    with pytest.raises(FloatingPointError, match=f"^{re.escape(sentence)}$"):
        next(steps)
    torch.testing.assert_close(weights(training.bare_model), before, equal_nan=True, atol=0, rtol=0)
    assert training.step == 1


def test_bf16_computes_coarsely_and_keeps_weights_in_float32():
    model = small()
    losses = [step.loss for step in Training(model, TEXT, plan(bf16=True)).run()]
    exact = [step.loss for step in Training(small(), TEXT, plan()).run()]
    assert model.bos.dtype == torch.float32
    assert losses != exact
    assert losses == pytest.approx(exact, rel=0.05)


def test_autoregressive_baseline_learns_by_the_same_loop():
    never = Curriculum(16, 10**9, 10**9, 10**9, rho=0)
    losses = [s.loss for s in Training(small(AR), TEXT, Plan(60, never, batch_size=4, learning_rate=1e-2)).run()]
    assert losses[-1] < 0.5 * losses[0]


def test_rehearsing_learns_nothing():
    model = small()
    before = weights(model)
    assert seconds_per_step(model, TEXT, plan()) > 0
    assert torch.equal(weights(model), before)
    assert all(p.grad is None for p in model.parameters())


def test_likelihood_scores_each_token_once_the_shorter_last_row_included():
    model = small().eval()
    text = Text(torch.randint(10, (41,), generator=seeded(0)), n_characters=82)
    found = likelihood(model, text, 16, batch_size=1)
    with torch.no_grad():
        total = sum(nll(model, text.ids[a:b][None], None, "sum").item() for a, b in ((0, 16), (16, 32), (32, 41)))
    assert found.n_tokens == 41
    assert found.nats_per_token == pytest.approx(total / 41)
    assert found.nats_per_character == pytest.approx(total / 82)
    assert found.perplexity == pytest.approx(math.exp(total / 41))
    assert "exact, left to right; held-out text, 41 tokens in rows of 16, float32" in str(found)
    strided = likelihood(model, text, 16, streams=2)
    with torch.no_grad():
        rows = nll(model, text.ids[:32].view(2, 16), GenerationOrder.strided(16, 2), "sum").item()
        rest = nll(model, text.ids[None, 32:], None, "sum").item()  # 9 tokens: two streams do not divide them
    assert strided.nats_per_token == pytest.approx((rows + rest) / 41)


def test_likelihood_leaves_the_model_in_the_mode_it_was_in():
    model = small(dropout=0.5).train()
    assert likelihood(model, TEXT, 16) == likelihood(model, TEXT, 16)
    assert model.training


def _resume_other_plan(folder):
    training = Training(small(), TEXT, plan())
    training.save(folder)
    Training(small(), TEXT, plan(batch_size=2)).resume(folder)


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        (
            lambda _: Training(small(), Text(torch.arange(9), 9), plan()),
            ValueError,
            "the training text has 9 tokens, fewer than one row of length=16; give more text, or shorter rows",
        ),
        (
            lambda _: Training(small(), TEXT, Plan(2, Curriculum.for_steps(2, 32))),
            ValueError,
            "rows of length=32 do not fit max_length=16; shorten them",
        ),
        (lambda _: plan(0), ValueError, "steps=0 must be a whole number of at least 1"),
        (lambda _: plan(2.5), ValueError, "steps=2.5 must be a whole number of at least 1"),
        (
            lambda _: plan(learning_rate=0.0),
            ValueError,
            "learning_rate=0.0 must be above 0 and below 1; 2e-3 is a good start",
        ),
        (
            lambda _: likelihood(small(), Text(torch.empty(0, dtype=torch.long), 0), 16),
            ValueError,
            "the text to score is empty; hold out a larger share, or give more text",
        ),
        (
            _resume_other_plan,
            ValueError,
            "{folder} was trained by another plan (batch_size was 4, now 2); resume with the same one",
        ),
        (
            lambda folder: Training(small(), TEXT, plan()).resume(folder),
            FileNotFoundError,
            "{folder}/training.json is missing; give a folder that `armdlab train --out` wrote",
        ),
    ],
)
def test_bad_input_is_refused_with_a_sentence(tmp_path, call, error, sentence):
    with pytest.raises(error, match=f"^{re.escape(sentence.format(folder=tmp_path))}$"):
        call(tmp_path)


def test_a_run_saved_before_its_first_step_resumes_from_there(tmp_path):
    Training(small(), TEXT, plan()).save(tmp_path)
    whole, resumed = Training(small(), TEXT, plan()), Training(small(), TEXT, plan())
    resumed.resume(tmp_path)
    assert [step.loss for step in resumed.run()] == [step.loss for step in whole.run()]


def test_a_torn_a_missing_or_another_steps_state_is_refused_in_a_sentence(tmp_path):
    training = Training(small(), TEXT, plan())
    next(steps := training.run())
    training.save(tmp_path)
    first = (tmp_path / "training_state.safetensors").read_bytes()
    next(steps)
    training.save(tmp_path)
    state = tmp_path / "training_state.safetensors"
    for content, error, sentence in (
        (first, ValueError, "is of step 1 and training.json of step 2: saving was cut off between them; train again"),
        (first[:50], ValueError, "is no whole safetensors file"),
        (None, FileNotFoundError, "it was exported for use, not saved to train on"),
    ):
        state.write_bytes(content) if content else state.unlink()
        with pytest.raises(error, match=re.escape(sentence)):
            Training(small(), TEXT, plan()).resume(tmp_path)


def test_gradients_that_an_interrupt_left_behind_are_not_learnt(tmp_path):
    whole, hurt = Training(small(), TEXT, plan()), Training(small(), TEXT, plan())
    for parameter in hurt.bare_model.parameters():
        parameter.grad = torch.ones_like(parameter)
    assert [step.loss for step in hurt.run()] == [step.loss for step in whole.run()]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"fine_tuning": -1.0}, "fine_tuning=-1.0 must be above 0 and at most 10"),
        ({"clip": 0.0}, "clip=0.0 must be above 0 and at most 1e+06"),
        ({"muon": 2.0}, "muon=2.0 must be above 0 and below 1; 0.02 is a good start, None leaves it out"),
        ({"beta2": 1.0}, "beta2=1.0 must be above 0 and below 1; 0.95 to 0.999 are usual"),
        ({"unlikelihood": -1.0}, "unlikelihood=-1.0 must be from 0 (none) to 1000; 100 is what was measured"),
        ({"warm_up": 9.0}, "warm_up=9.0 must be from 0 to 1"),
    ],
)
def test_a_plan_out_of_range_is_refused(change, sentence):
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        plan(**change)


def test_a_rehearsal_takes_its_batch_in_the_parts_that_training_takes():
    seen = []

    class Spy(ARMD):
        def forward(self, tokens, order=None):
            seen.append(len(tokens))
            return super().forward(tokens, order)

    assert seconds_per_step(small(Spy), TEXT, plan(micro_batch_size=3), repeats=1) > 0
    assert seen == [3, 1, 3, 1]


def test_gradients_are_cut_to_the_norm_of_the_plan():
    norms = []
    for clip in (1e-3, 1e6):
        training = Training(small(), TEXT, plan(clip=clip))
        next(training.run())
        moments = training._moments()
        first = torch.cat([moments[name].flatten() for name in sorted(moments) if name.startswith("exp_avg.")])
        norms.append(float(first.norm()) / 0.1)  # a tenth of the first gradient
    assert norms[0] == pytest.approx(1e-3, rel=1e-3)
    assert norms[1] > 0.1


@pytest.mark.parametrize("muon", [None, 0.03])
def test_weights_decay_in_matrices_only(muon):
    start, ends = dict(small().named_parameters()), []
    for weight_decay in (0.0, 0.5):
        training = Training(small(), TEXT, plan(weight_decay=weight_decay, muon=muon))
        next(training.run())
        ends.append(dict(training.bare_model.named_parameters()))
    rates = {p: group["lr"] for o in training.optimizers for group in o.param_groups for p in group["params"]}
    for name, before in start.items():
        decayed = ends[0][name] - ends[1][name]
        expected = 0.5 * rates[ends[1][name]] * before if before.dim() == 2 else torch.zeros_like(before)
        assert torch.allclose(decayed, expected, atol=1e-6), name


def test_muon_needs_a_torch_that_has_it(monkeypatch):
    monkeypatch.delattr(torch.optim, "Muon", raising=False)
    sentence = f"muon=0.02 needs torch 2.9 or newer, and this is {torch.__version__}; leave it out"
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        Training(small(), TEXT, plan(muon=0.02))
