"""Laws of runs that go wrong: they stop, say at which step, and what was saved before is whole and said to be."""

import itertools
import json
import re
import resource
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from armdlab import training
from armdlab.budgets import Budget
from armdlab.cli import main
from armdlab.plans import load_plan
from armdlab.recipes import Recipe, Session
from armdlab.reproduce import Runs

TEXT = "\n\n".join(
    f"The {kind} number {i} sits on the mat by the old door." for i in range(150) for kind in ("cat", "dog")
)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    path = tmp_path_factory.mktemp("faults") / "cats.txt"
    path.write_text(TEXT)
    sizes = {"length": 16, "n_layer": 2, "n_head": 2, "d_model": 32, "d_position": 64, "vocab_size": 300}
    return Recipe(corpus=f"file:{path}", steps=12, learning_rate=1e-2, dropout=0.0, block_size=4, batch_size=4, **sizes)


def test_a_perplexity_that_no_number_can_hold_is_infinite(recipe, tmp_path):
    session = Session.begin(recipe, tmp_path / "run")
    with torch.no_grad():
        session.model.head.weight.mul_(1e5)
    figure = session.figure()
    assert 710 < figure.nats_per_token < 1e6
    assert str(figure).startswith("perplexity inf (")
    session.save(figure)
    assert json.loads((tmp_path / "run" / "card.json").read_text())["validation"]["perplexity"] is None


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_step_that_leaves_a_weight_infinite_stops_the_run_before_it_is_saved(recipe, tmp_path):
    """Its loss and its gradient were finite: no text holds the token whose embedding it is."""
    session = Session.begin(recipe, tmp_path / "run")
    steps = session.watch(scores=4)
    for _ in range(5):
        next(steps)
    saved = files(tmp_path / "run")
    unused = next(i for i in range(300) if i not in session.text.ids)
    with torch.no_grad():
        session.model.embedding.weight[unused, 0] = float("inf")
    sentence = (
        "after step 6 embedding.weight holds inf; such weights are neither trained on nor saved. Try a learning rate "
        f"below 0.01. What was saved in {tmp_path / 'run'} at step 3 is whole"
    )
    with pytest.raises(FloatingPointError, match=f"^{re.escape(sentence)}$"):
        next(steps)
    with pytest.raises(FloatingPointError, match=f"^{re.escape(sentence)}$"):
        session.save()
    assert files(tmp_path / "run") == saved
    assert Session.resume(tmp_path / "run").training.step == 3


def test_a_score_that_is_no_number_is_refused_before_anything_is_saved(recipe, tmp_path):
    session = Session.begin(recipe, tmp_path / "run")
    with torch.no_grad():
        session.model.norm.weight.fill_(1e30)  # finite, and nothing that it is multiplied with is
        session.model.head.weight.mul_(1e30)
    sentence = (
        f"after step 0 the validation split of {recipe.corpus} costs nan nats a token. Try a learning rate below 0.01. "
        f"Nothing was saved in {tmp_path / 'run'} before"
    )
    with pytest.raises(FloatingPointError, match=f"^{re.escape(sentence)}$"):
        session.figure()


def test_an_infinite_gradient_of_a_finite_loss_stops_the_run_and_changes_no_weight(recipe, tmp_path):
    session = Session.begin(recipe, tmp_path / "run")
    steps = session.watch(scores=0)
    next(steps)
    session.model.norm.weight.register_hook(lambda gradient: gradient * float("inf"))
    before = [parameter.detach().clone() for parameter in session.model.parameters()]
    sentence = (
        "the gradient of step 2 is inf; nothing was learnt from it. Try a learning rate below 0.01. Nothing was saved "
        f"in {tmp_path / 'run'} before"
    )
    with pytest.raises(FloatingPointError, match=f"^{re.escape(sentence)}$"):
        next(steps)
    assert all(map(torch.equal, before, session.model.parameters()))
    assert session.training.step == 1


@pytest.fixture
def ill_at(monkeypatch):
    """Let the loss of some step, counted from 1, be no number."""

    def plant(step):
        calls = itertools.count(1)

        def nats_to_learn(*how):
            worth = float("nan") if next(calls) == step else 1.0
            return [worth * found for found in healthy(*how)]

        healthy = training.nats_to_learn
        monkeypatch.setattr(training, "nats_to_learn", nats_to_learn)

    return plant


@pytest.mark.parametrize(
    ("step", "kept"), [(8, "What was saved in {out} at step 7 is whole"), (1, "Nothing was saved in {out} before")]
)
def test_the_terminal_says_at_which_step_a_loss_was_no_number_and_what_is_kept(
    recipe, tmp_path, monkeypatch, capsys, ill_at, step, kept
):
    ill_at(step)
    out = tmp_path / "run"
    how = "--steps 12 --length 16 --n-layer 2 --n-head 2 --d-model 32 --vocab-size 300 --batch-size 4 --dropout 0"
    how += f" --precision float32 --corpus {recipe.corpus} --out {out}"
    code, said = run_main(monkeypatch, capsys, "train", *how.split())
    sentence = f"error: the loss of step {step} is nan; nothing was learnt from it. Try a learning rate below 0.002. "
    assert (code, said) == (2, sentence + kept.format(out=out))
    if step == 1:
        assert not out.exists()
    else:
        assert Session.resume(out).training.step == 7


def test_a_table_whose_run_fails_names_the_run_and_what_is_kept(recipe, tmp_path, ill_at):
    ill_at(10)
    runs = Runs(Budget("tiny", {"ar_0": replace(recipe, model="ar")}, "", (), {}, {}, "", 1, 1, 1), tmp_path, train)
    with pytest.raises(FloatingPointError, match=rf"What was saved in {tmp_path}/ar_0 at step 9 is whole$"):
        runs["ar_0"]


def train(session):
    return any(moment.step.step > 12 for moment in session.watch(scores=4))


def run_main(monkeypatch, capsys, *arguments):
    """The command line inside this process: its exit code and its last line."""
    monkeypatch.setattr("sys.argv", ["armdlab", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code, capsys.readouterr().err.splitlines()[-1]


def below(limit, *command):
    """Run Python in a process that can write no file of more than some bytes: to it, the disk is full."""
    return subprocess.run(
        [sys.executable, *map(str, command)],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        check=False,
    )


SAVING = """
import sys
from pathlib import Path
from armdlab import load
from armdlab.checkpoints import write_json
from armdlab.trained import CARD

lab = load(sys.argv[1])
for save in (
    lambda: lab.model.save_pretrained(lab.folder),
    lambda: lab.tokenizer.save(lab.folder),
    lambda: write_json(lab.folder / CARD, lab.card),
):
    try:
        save()
    except OSError as error:
        print(error)
"""


@pytest.fixture
def saved(recipe, tmp_path):
    """A run of 12 steps that was saved at step 5."""
    session = Session.begin(recipe, tmp_path / "run")
    for moment in session.watch(scores=0):
        if moment.step.step == 5:
            break
    session.save()
    return tmp_path / "run"


def test_every_file_that_a_full_disk_cannot_take_is_named_and_keeps_what_it_held(saved):
    before = files(saved)
    run = below(500, "-c", SAVING, saved)
    assert run.returncode == 0, run.stderr
    said = run.stdout.splitlines()
    for line, name in zip(said, ("model.safetensors", "tokenizer.json", "card.json"), strict=True):
        assert re.fullmatch(
            rf"{saved}/{name} could not be written \(.*File too large.*\); see that its disk has room and its folder "
            "takes files",
            line,
        ), line
    assert files(saved) == before


@pytest.mark.parametrize("full_at", ["training_state.safetensors", "card.json"])
def test_a_full_disk_ends_in_a_sentence_and_what_was_saved_goes_on(saved, full_at):
    if full_at == "card.json":  # let it be the largest
        card = json.loads((saved / "card.json").read_text())
        filling = "x" * (saved / "training_state.safetensors").stat().st_size
        (saved / "card.json").write_text(json.dumps(card | {"command": filling}))
    before, step = files(saved), 5 if full_at == "training_state.safetensors" else 6
    run = below(len(before[full_at]) - 1, "-m", "armdlab.cli", "train", "--out", saved, "--resume")
    assert run.returncode == 2, run.stderr
    assert "Traceback" not in run.stderr
    assert re.fullmatch(
        rf"error: {saved}/{full_at} could not be written \(.*File too large.*\); see that its disk has room and its "
        rf"folder takes files\. What was saved in {saved} at step {step} is whole; `armdlab train --out {saved} "
        "--resume` goes on from it",
        run.stderr.splitlines()[-1],
    ), run.stderr
    assert (files(saved) == before) == (step == 5)
    assert Session.resume(saved).training.step == step


def edit(path, **changes):
    """Change settings of a JSON file, wherever in it they stand."""

    def changed(value):
        if not isinstance(value, dict):
            return value
        return {name: changes.get(name, changed(item)) for name, item in value.items()}

    path.write_text(json.dumps(changed(json.loads(path.read_text()))))


@pytest.mark.parametrize(
    ("name", "change", "sentence"),
    [
        ("config.json", {"n_head": 4}, "n_head is 2 in card.json and 4 in config.json"),
        ("config.json", {"dropout": 0.5}, "dropout is 0.0 in card.json and 0.5 in config.json"),
        ("training.json", {"learning_rate": 0.5}, "learning_rate is 0.01 in card.json and 0.5 in training.json"),
        ("training.json", {"rho": 7}, "rho is 2 in card.json and 7 in training.json"),
        ("card.json", {"batch_size": 9}, "batch_size is 9 in card.json and 4 in training.json"),
        ("card.json", {"d_position": 32}, "d_position is 32 in card.json and 64 in config.json"),
        ("config.json", {"rope_base": 500.0}, "rope_base was 10000.0, now 500.0"),
        ("config.json", {"n_two_stream": 2}, "n_two_stream was 1, now 2"),
    ],
)
def test_a_file_that_was_edited_is_not_resumed_in_silence(saved, name, change, sentence):
    edit(saved / name, **change)
    whole = f"{saved} holds files of different runs ({sentence}); restore those that were saved together"
    if "was" in sentence:
        whole = f"{saved / 'config.json'} has changed since training.json was saved ({sentence}); restore it"
    with pytest.raises(ValueError, match=f"^{re.escape(whole)}$"):
        Session.resume(saved)


def test_weights_and_state_of_different_steps_are_not_resumed(recipe, tmp_path):
    session = Session.begin(recipe, tmp_path / "run")
    steps = session.watch(scores=12)
    next(steps)
    first = files(tmp_path / "run")
    next(steps)
    for name in ("training.json", "training_state.safetensors"):  # saving was cut off behind the weights
        (tmp_path / "run" / name).write_bytes(first[name])
    sentence = (
        f"{tmp_path / 'run'}/model.safetensors is of step 2 and training.json of step 1: saving was cut off between "
        f"them; train again, or start from its weights: `armdlab train --start {tmp_path / 'run'} --out ...`"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        Session.resume(tmp_path / "run")


def test_a_run_that_was_saved_before_files_told_their_step_and_config_still_resumes(saved):
    training_before = json.loads((saved / "training.json").read_text())
    del training_before["config"]
    (saved / "training.json").write_text(json.dumps(training_before))
    save_file(load_file(saved / "model.safetensors"), saved / "model.safetensors", metadata={"format": "pt"})
    assert Session.resume(saved).training.step == 5


@pytest.mark.parametrize("model", ["mdlm", "block"])
def test_masked_diffusion_too_is_scored_on_a_held_out_text_that_is_shorter_than_a_row(recipe, tmp_path, model):
    session = Session.begin(replace(recipe, model=model, length=2000, streams=(1,)), tmp_path / "run")
    assert session.figure().n_tokens == len(session.held_out.ids) < 2000


def test_a_corpus_that_holds_out_no_text_is_refused(recipe, tmp_path):
    for part in ("train", "validation"):
        texts = [f"{part} cat {i} sits on the mat" for i in range(60)] if part == "train" else [""]
        (tmp_path / f"{part}.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    sentence = f"corpus={tmp_path} holds out no text to score; give more text, or another corpus"
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        Session.begin(replace(recipe, corpus=str(tmp_path)), tmp_path / "run")


@pytest.mark.parametrize(
    ("written", "reason"),
    [({}, "'plan'"), ({"plan": {"steps": 3}}, "'curriculum'"), ({"plan": "no"}, "")],
)
def test_a_plan_of_another_version_is_refused_in_a_sentence(tmp_path, written, reason):
    (tmp_path / "training.json").write_text(json.dumps(written))
    with pytest.raises(ValueError, match=rf"training.json is no plan that this version knows \({reason}"):
        load_plan(tmp_path)


def test_a_plan_with_a_field_that_this_version_lacks_is_refused_in_a_sentence(saved):
    kept = json.loads((saved / "training.json").read_text())
    kept["plan"]["fame"] = 1
    (saved / "training.json").write_text(json.dumps(kept))
    with pytest.raises(ValueError, match=r"no plan that this version knows \(.*'fame'\); train again into another"):
        load_plan(saved)
