"""Laws of recipes: a run can be said, watched, stopped, saved whole, resumed, and refused when it makes no sense."""

import json
import re
import shutil
from dataclasses import replace

import pytest
import torch

from armdlab.recipes import Recipe, Session
from armdlab.trained import load

TEXT = "\n\n".join(
    f"The {kind} number {i} sits on the mat by the old door." for i in range(150) for kind in ("cat", "dog")
)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    path = tmp_path_factory.mktemp("recipes") / "cats.txt"
    path.write_text(TEXT)
    sizes = {"length": 16, "n_layer": 2, "n_head": 2, "d_model": 32, "vocab_size": 300, "batch_size": 4}
    return Recipe(corpus=f"file:{path}", steps=24, learning_rate=1e-2, block_size=4, **sizes)


def weights(session):
    return torch.cat([p.detach().flatten() for p in session.model.parameters()])


@pytest.mark.parametrize("model", ["armd", "ar", "mdlm", "block"])
def test_every_model_learns_by_the_same_loop_and_is_saved_with_a_card(recipe, tmp_path, model):
    session = Session.begin(replace(recipe, model=model, dropout=0.0), tmp_path / model, command="as typed")
    before = session.figure().nats_per_token
    moments = list(session.watch(scores=4))
    assert [m.step.step for m in moments] == list(range(1, 25))
    scored = [m for m in moments if m.figure is not None]
    assert {6, 12, 18, 24} <= {m.step.step for m in scored}
    assert all(m.sample for m in scored)
    assert scored[-1].figure.nats_per_token < before - 0.3
    card = json.loads((tmp_path / model / "card.json").read_text())
    assert card["steps"] == card["planned_steps"] == 24
    assert card["command"] == "as typed"
    assert card["seconds"] == pytest.approx(sum(m.step.seconds for m in moments))
    assert [entry["step"] for entry in card["history"]] == [m.step.step for m in scored]
    assert card["validation"]["nats_per_token"] == scored[-1].figure.nats_per_token
    assert card["validation"]["text"] == f"validation split of {recipe.corpus}"
    lab = load(tmp_path / model)
    assert type(lab.model) is type(session.model)
    assert torch.equal(torch.cat([p.flatten() for p in lab.model.parameters()]), weights(session))


@pytest.mark.parametrize("model", ["armd", "mdlm"])
def test_a_run_that_was_stopped_and_resumed_equals_one_that_was_not(recipe, tmp_path, model):
    recipe = replace(recipe, model=model)
    whole = Session.begin(recipe, tmp_path / "whole")
    for _ in whole.watch(scores=3):
        pass
    stopped = Session.begin(recipe, tmp_path / "stopped")
    for moment in stopped.watch(scores=3):
        if moment.step.step == 11:
            break
    stopped.save()
    resumed = Session.resume(tmp_path / "stopped")
    assert resumed.training.step == 11
    assert resumed.recipe == stopped.recipe
    for _ in resumed.watch(scores=3):
        pass
    assert torch.equal(weights(whole), weights(resumed))
    assert [e["step"] for e in resumed.card["history"]] == [e["step"] for e in whole.card["history"]]


def test_a_run_may_start_from_a_model_with_its_sizes_and_tokenizer(recipe, tmp_path):
    first = Session.begin(replace(recipe, dropout=0.0), tmp_path / "first", command="the first")
    for _ in first.watch(scores=1):
        pass
    end = first.figure().nats_per_token
    again = replace(recipe, start=str(tmp_path / "first"), n_layer=1, d_model=16, dropout=0.1, seed=5)
    second = Session.begin(again, tmp_path / "second")
    assert second.recipe.n_layer == 2
    assert second.recipe.d_model == 32
    assert second.tokenizer.fingerprint == first.tokenizer.fingerprint
    assert torch.equal(weights(second), weights(first))
    assert second.figure().nats_per_token == end
    assert second.card["started_from"]["command"] == "the first"
    steps = second.training.run()
    for _ in range(5):
        next(steps)
    second.save()
    resumed = Session.resume(tmp_path / "second")
    assert [m.p for m in resumed.model.modules() if isinstance(m, torch.nn.Dropout)] == [0.1, 0.1]
    assert [step.loss for step in resumed.training.run()] == [step.loss for step in steps]


@pytest.mark.parametrize("model", ["armd", "ar", "mdlm", "block"])
def test_a_run_may_deepen_the_model_that_it_starts_from(recipe, tmp_path, model):
    first = Session.begin(replace(recipe, model=model, dropout=0.0), tmp_path / "first")
    for _ in first.watch(scores=1):
        pass
    deeper = replace(first.recipe, start=str(tmp_path / "first"), deepen=5, seed=5)
    second = Session.begin(deeper, tmp_path / "second")
    assert second.recipe.n_layer == len(second.model.layers) == 5
    assert second.figure().nats_per_token == pytest.approx(first.figure().nats_per_token, rel=1e-6)
    steps = second.training.run()
    next(steps)
    second.save()
    resumed = Session.resume(tmp_path / "second")
    assert resumed.recipe.deepen == 5
    assert [step.loss for step in resumed.training.run()] == [step.loss for step in steps]
    assert len(load(tmp_path / "first").model.layers) == 2


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"deepen": 0}, "n_layer=0 is less than the 2 of the network to deepen; give as many or more"),
        ({"deepen": 1}, "n_layer=1 is less than the 2 of the network to deepen; give as many or more"),
        ({"model": "ar"}, "start={first} holds ARMD, not model='ar'; name the same kind"),
        ({"length": 32}, "start={first} holds a model of max_length=16, shorter than length=32; take shorter rows"),
    ],
)
def test_a_run_does_not_start_from_what_does_not_fit(recipe, tmp_path, change, sentence):
    Session.begin(recipe, tmp_path / "first").save()
    with pytest.raises(ValueError, match=f"^{re.escape(sentence.format(first=tmp_path / 'first'))}$"):
        Session.begin(replace(recipe, start=str(tmp_path / "first"), **change), tmp_path / "second")


def test_there_must_be_a_model_to_deepen(recipe):
    sentence = "deepen=5 is for a model to start from; name one by start, or set n_layer"
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        replace(recipe, deepen=5)


@pytest.mark.parametrize(("model", "kind"), [("mdlm", "MDLM"), ("block", "BlockDiffusion")])
def test_masked_diffusion_knows_nothing_of_what_was_said_before(recipe, tmp_path, model, kind):
    sentence = (
        f"unlikelihood=5.0 is for models that know what was said before, and {kind} is trained by masks; leave it out"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        Session.begin(replace(recipe, model=model, unlikelihood=5.0), tmp_path)


def test_micro_batches_learn_what_a_whole_batch_learns(recipe, tmp_path):
    whole, parts = (
        Session.begin(replace(recipe, dropout=0.0, micro_batch_size=size), tmp_path / str(size)) for size in (None, 3)
    )
    losses = [[step.loss for step in session.training.run()] for session in (whole, parts)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert (weights(whole) - weights(parts)).abs().max() < 1e-3


def test_runs_of_several_seeds_share_their_data(recipe, tmp_path):
    first, second = (Session.begin(replace(recipe, seed=seed), tmp_path / str(seed)) for seed in (0, 1))
    assert torch.equal(first.held_out.ids, second.held_out.ids)
    assert first.tokenizer.fingerprint == second.tokenizer.fingerprint
    assert not torch.equal(weights(first), weights(second))


def test_minutes_become_steps_by_a_rehearsal_that_says_what_it_found(recipe, tmp_path):
    session, said = Session.begin(recipe, tmp_path / "timed"), []
    session.rehearse((False, True), 0.02, say=said.append)
    assert re.fullmatch(r"a step takes float32 [\d.]+ s, bf16 [\d.]+ s", said[0])
    assert f"--steps {session.recipe.steps} repeats it" in said[1]
    assert session.training.plan == session.recipe.plan
    assert session.card["recipe"]["steps"] == session.recipe.steps


def test_a_loss_that_is_no_number_leaves_what_was_saved(recipe, tmp_path):
    session = Session.begin(recipe, tmp_path / "ill")
    steps = session.watch(scores=4)
    for moment in steps:
        if moment.step.step == 7:
            with torch.no_grad():
                session.model.head.weight[0, 0] = float("nan")
            break
    saved = (tmp_path / "ill" / "model.safetensors").read_bytes()
    with pytest.raises(FloatingPointError, match=r"^the loss of step 8 is nan; nothing was learnt from it\. Try a"):
        next(steps)
    assert (tmp_path / "ill" / "model.safetensors").read_bytes() == saved
    assert Session.resume(tmp_path / "ill").training.step == 6


@pytest.mark.parametrize("full_at", ["training_state.safetensors", "training.json", "model.safetensors"])
def test_a_disk_that_runs_full_while_saving_leaves_the_last_checkpoint_whole(recipe, tmp_path, monkeypatch, full_at):
    session = Session.begin(recipe, tmp_path / "full")
    steps = iter(session.watch(scores=0))
    for _ in range(3):
        next(steps)
    session.save()
    before = {path.name: path.read_bytes() for path in (tmp_path / "full").iterdir()}
    next(steps)

    def no_space(path):
        raise OSError(28, f"No space left on device: {path}")

    from armdlab import checkpoints, training

    real = checkpoints.save_file

    def save_file(tensors, path, metadata=None):
        if full_at in str(path):
            no_space(path)
        real(tensors, path, metadata=metadata)

    monkeypatch.setattr(checkpoints, "save_file", save_file)
    monkeypatch.setattr(training, "save_file", save_file)
    if full_at == "training.json":
        monkeypatch.setattr(training, "asdict", lambda _: no_space(full_at))
    with pytest.raises(OSError, match="No space left on device"):
        session.save()
    assert {path.name: path.read_bytes() for path in (tmp_path / "full").iterdir()} == before
    monkeypatch.undo()
    assert Session.resume(tmp_path / "full").training.step == 3


def test_bad_input_is_refused_in_a_sentence(recipe, tmp_path):
    session = Session.begin(recipe, tmp_path / "run")
    for _ in session.watch(scores=0):
        pass
    with pytest.raises(ValueError, match=r"holds a model already; go on with --resume, or choose another --out$"):
        Session.begin(recipe, tmp_path / "run")

    (tmp_path / "a file").touch()
    with pytest.raises(
        ValueError, match=r"cannot be made, for .*a file is no folder that takes files; choose another --"
    ):
        Session.begin(recipe, tmp_path / "a file" / "run")
    with pytest.raises(ValueError, match=r"holds a training that --resume can go on with; export into another folder$"):
        load(tmp_path / "run").export(tmp_path / "run")
    with pytest.raises(ValueError, match=r"^marks=\(0, 0\) must be three steps: \(i_AR, i_perm, i_strided\)$"):
        replace(recipe, marks=(0, 0))

    shutil.copytree(tmp_path / "run", tmp_path / "other")
    tokenizer = (tmp_path / "other" / "tokenizer.json").read_text()
    merges = json.loads(tokenizer)
    merges["model"]["merges"][0], merges["model"]["merges"][1] = (
        merges["model"]["merges"][1],
        merges["model"]["merges"][0],
    )
    (tmp_path / "other" / "tokenizer.json").write_text(json.dumps(merges))
    with pytest.raises(ValueError, match="holds another tokenizer than the one that its model was trained with"):
        Session.resume(tmp_path / "other")

    shutil.copytree(tmp_path / "run", tmp_path / "config")
    config = json.loads((tmp_path / "config" / "config.json").read_text())
    (tmp_path / "config" / "config.json").write_text(json.dumps(config | {"n_layer": 3}))
    with pytest.raises(ValueError, match=r"does not fit its config\.json: layers\.2\.attention_norm\.weight"):
        Session.resume(tmp_path / "config")

    with pytest.raises(ValueError, match=r"fewer than one row of length=40960; give more text, or shorter rows$"):
        Session.begin(replace(recipe, length=40960, streams=(1,)), tmp_path / "short")
    with pytest.raises(FileNotFoundError, match=r"^tokenizer no/such could not be read from the Hub \("):
        Session.begin(replace(recipe, vocab_size="no/such"), tmp_path / "hub")
    with pytest.raises(ValueError, match=r"^micro_batch_size=9 must be from 1 to batch_size=4, or None$"):
        Session.begin(replace(recipe, micro_batch_size=9), tmp_path / "micro")


def test_marks_and_rho_of_a_recipe_reach_the_curriculum(recipe):
    plan = replace(recipe, marks=[2, 5, 20], rho=3, streams=[2, 4]).plan
    curriculum = plan.curriculum
    assert (curriculum.i_ar, curriculum.i_perm, curriculum.i_strided, curriculum.rho) == (2, 5, 20, 3)
    assert curriculum.streams == (2, 4)
    assert replace(recipe, model="ar").plan.curriculum.phase(23) == "left to right"


def test_a_corpus_that_changed_since_the_save_is_refused(recipe, tmp_path):
    path = tmp_path / "cats.txt"
    path.write_text(TEXT)
    session = Session.begin(replace(recipe, corpus=f"file:{path}"), tmp_path / "run")
    next(iter(session.watch(scores=0)))
    session.save()
    assert Session.resume(tmp_path / "run").training.step == 1
    path.write_text(TEXT.replace("mat", "hat"))
    sentence = (
        f"{tmp_path / 'run'} was trained on another text than its corpus holds now; restore the corpus as it was, or "
        "train anew into another folder"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        Session.resume(tmp_path / "run")


def test_figures_name_the_split_that_was_held_out(recipe, tmp_path):
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for part in ("train", "test"):
        rows = [json.dumps({"text": f"{part} cat {i} sits on the mat"}) for i in range(60)]
        (corpus / f"{part}.jsonl").write_text("\n".join(rows))
    session = Session.begin(replace(recipe, corpus=str(corpus)), tmp_path / "run")
    assert session.figure().text == f"test split of {corpus}"
    session.save()
    assert Session.resume(tmp_path / "run").figure().text == f"test split of {corpus}"


def test_what_was_scored_at_a_step_is_not_scored_again(recipe, tmp_path, monkeypatch):
    session = Session.begin(recipe, tmp_path / "run")
    moments = list(session.watch(scores=1))
    with monkeypatch.context() as patch:
        patch.setattr(session, "figure", lambda: pytest.fail("scored anew"))
        assert session.last_figure() is moments[-1].figure
    other = Session.resume(tmp_path / "run")
    assert other.last_figure().nats_per_token == pytest.approx(moments[-1].figure.nats_per_token)


def test_a_card_is_valid_json_even_where_a_figure_has_no_error(recipe, tmp_path):
    session = Session.begin(recipe, tmp_path / "run")
    session.save(replace(session.figure(), standard_error=float("nan")))
    text = (tmp_path / "run" / "card.json").read_text()
    card = json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert card["validation"]["standard_error"] is None


def test_a_curriculum_without_shuffling_trains_to_its_end(recipe, tmp_path):
    session = Session.begin(replace(recipe, rho=0), tmp_path / "run")
    assert {moment.step.phase for moment in session.watch(scores=2)} == {"left to right", "strided"}


@pytest.mark.parametrize("model", ["armd", "ar", "mdlm", "block"])
def test_the_seed_of_a_recipe_is_that_of_batches_and_of_orders(recipe, model):
    plan = replace(recipe, model=model, seed=7).plan
    assert (plan.seed, plan.curriculum.seed) == (7, 7)


def test_a_corpus_to_evaluate_on_alone_trains_nothing(recipe, tmp_path):
    (tmp_path / "test.jsonl").write_text(json.dumps({"text": "the cat sits on the mat"}))
    sentence = f"corpus={tmp_path} has nothing to train on, only a split for evaluation"
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        Session.begin(replace(recipe, corpus=str(tmp_path)), tmp_path / "run")


def test_a_model_whose_card_has_no_recipe_is_not_trained_on(recipe, tmp_path):
    Session.begin(recipe, tmp_path).save()
    card = json.loads((tmp_path / "card.json").read_text())
    del card["recipe"]
    (tmp_path / "card.json").write_text(json.dumps(card))
    sentence = f"{tmp_path} holds a model without the recipe of its training; train anew into another folder"
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        Session.resume(tmp_path)
