"""Laws of the training cockpit, without a browser: what it answers is what the run did."""

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch

from armdlab.figures import Picture
from armdlab.figures.lessons import lines
from armdlab.recipes import Recipe, Session
from armdlab.widgets import training_cockpit
from armdlab.widgets.training_cockpit import TrainingCockpit


@pytest.fixture
def cockpit(tmp_path):
    (tmp_path / "cats.txt").write_text("\n\n".join(f"The cat number {i} sits on the mat." for i in range(200)))
    sizes = {"length": 16, "n_layer": 2, "n_head": 2, "d_model": 32, "vocab_size": 280, "batch_size": 4}
    session = Session.begin(Recipe(corpus=f"file:{tmp_path / 'cats.txt'}", steps=24, **sizes), tmp_path / "run")
    cockpit = TrainingCockpit(session, scores=4)
    cockpit.sent = []
    cockpit.send = cockpit.sent.append
    return cockpit


def asked(cockpit, **content):
    cockpit._asked(cockpit, {"run": "a:1", **content}, [])
    return cockpit.sent[-1]


def test_answers_hold_every_step_once_and_end_at_the_end(cockpit):
    answer = asked(cockpit, want="run", budget_ms=0)
    assert answer["status"] == "running"
    steps = [frame["step"] for frame in answer["frames"]]
    while cockpit.status != "finished":
        answer = asked(cockpit, want="steps", budget_ms=20)
        assert answer["run"] == "a:1"
        steps += [frame["step"] for frame in answer["frames"]]
    assert steps == list(range(1, 25))
    assert [frame["step"] for frame in cockpit.frames] == steps  # a view that opens later sees all
    scored = [frame for frame in cockpit.frames if "nats" in frame]
    assert scored[-1]["step"] == 24
    assert scored[-1]["said"].startswith("perplexity ")
    assert cockpit.frames[-1]["order"].endswith("streams")
    assert asked(cockpit, want="steps")["status"] == "old"
    assert asked(cockpit, want="run", run="b:1") == {"frames": [], "status": "finished", "ask": None, "run": "b:1"}


def test_its_meter_shows_the_lessons_of_the_curriculum(cockpit):
    assert cockpit.plan["lessons"] == [
        {"name": "left to right", "from": 0, "to": 3},
        {"name": "shuffled", "from": 3, "to": 20},
        {"name": "strided", "from": 20, "to": 24},
    ]


def test_its_meter_names_no_lesson_that_is_not_taught(cockpit):
    recipe = replace(cockpit.session.recipe, rho=0)
    lessons = TrainingCockpit(Session.begin(recipe, cockpit.session.out.parent / "other")).plan["lessons"]
    assert [lesson["name"] for lesson in lessons] == ["left to right", "left to right", "strided"]


def test_stop_saves_and_a_new_cockpit_goes_on_from_there(cockpit):
    cockpit.run_now(8)
    answer = asked(cockpit, want="stop")
    assert (answer["status"], cockpit.status) == ("stopped", "stopped")
    answer = asked(cockpit, want="run", run="a:2", budget_ms=0)
    assert cockpit.status == "training"
    assert len(cockpit.frames) == 8  # step 9 is told by the answer alone: it has no score
    assert asked(cockpit, want="stop", run="a:2")["status"] == "stopped"
    again = TrainingCockpit(Session.resume(cockpit.session.out))
    assert again.plan["done"] == 9
    assert repr(again) == "TrainingCockpit(step 9 of 24, ready)"
    assert repr(again.run_now()) == "TrainingCockpit(step 24 of 24, finished)"


def test_a_cell_that_trains_is_not_disturbed_by_a_view_that_still_asks(cockpit):
    """Messages come on a thread of their own; a generator that two threads ask at once would break."""
    asked(cockpit, want="run", budget_ms=0)
    with ThreadPoolExecutor() as pool:
        told = [pool.submit(asked, cockpit, want="steps", budget_ms=0) for _ in range(4)]
        assert cockpit.run_now().status == "finished"
    assert all(answer.result()["status"] in ("running", "old") for answer in told)
    assert asked(cockpit, want="steps", budget_ms=0)["status"] == "old"
    assert [frame["step"] for frame in cockpit.frames] == list(range(1, 25))


def test_an_error_is_a_sentence_and_what_is_mended_goes_on(cockpit):
    weight = cockpit.session.model.head.weight
    good = weight.detach().clone()
    with torch.no_grad():
        weight[0] = float("nan")
    assert asked(cockpit, want="run")["status"] == "failed"
    assert asked(cockpit, want="steps")["status"] == "old", "what was asked in the same breath does not fail again"
    assert cockpit.message.startswith("the loss of step 1 is nan; nothing was learnt from it")
    assert cockpit.message.endswith(f"below 0.002. Nothing was saved in {cockpit.session.out} before")
    assert "FloatingPointError" in cockpit.last_error
    assert asked(cockpit, want="stop")["status"] == "failed", "weights that are no numbers are not saved"
    assert not cockpit.session.out.exists()
    with torch.no_grad():
        weight.copy_(good)
    assert len(asked(cockpit, want="run", budget_ms=0, run="a:2")["frames"]) == 1
    assert cockpit.message == ""


def test_a_long_run_keeps_few_points_and_all_scores(cockpit, monkeypatch):
    monkeypatch.setattr(training_cockpit, "MOST_POINTS", 10)
    cockpit.run_now()
    assert len(cockpit.frames) <= 14
    assert [frame["step"] for frame in cockpit.frames if "nats" in frame][-1] == 24


def test_it_opens_on_a_recorded_training_and_its_picture_says_so(cockpit):
    assert [frame["step"] for frame in cockpit.recorded["frames"]] == sorted(
        frame["step"] for frame in cockpit.recorded["frames"]
    )
    first, last = cockpit.recorded["frames"][0], cockpit.recorded["frames"][-1]
    assert last["nats"] < first["loss"], "it shows what learning looks like"
    assert cockpit.frames == []
    recorded = cockpit._repr_mimebundle_()[0]["text/html"]
    assert "Training: step 0 of 24. Recorded earlier: " in recorded
    assert f"while training from {first['loss']:.2f}" in recorded
    cockpit.run_now()
    own = cockpit._repr_mimebundle_()[0]["text/html"]
    held_out = [frame["nats"] for frame in cockpit.frames if "nats" in frame]
    assert "Training: step 24 of 24. Curves" in own
    assert f"held out from {held_out[0]:.2f} to {held_out[-1]:.2f}" in own
    assert "Perplexity, exp of nats a token, stands on the right." in own


@pytest.mark.parametrize(
    ("nats", "some"), [((6.9, 3.2), ["50", "100", "500"]), ((3.6, 3.4), ["30", "32"]), ((60.0, 2.0), [])]
)
def test_its_picture_has_an_axis_of_perplexities_beside_that_of_nats(monkeypatch, nats, some):
    monkeypatch.setattr(Picture, "of", lambda figure, alt: figure)
    curve = {"while training": [(1, nats[0]), (60, nats[1])]}
    figure = lines(curve, title="Training", x="step", y="nats a token", perplexity=True)
    figure.canvas.draw()
    left, right = figure.axes
    assert right.get_ylabel() == "perplexity"
    assert right.get_ylim() == pytest.approx(tuple(math.exp(end) for end in left.get_ylim()))
    low, high = right.get_ylim()
    written = [label.get_text() for label in right.get_yticklabels() if low <= label.get_position()[1] <= high]
    assert set(some) <= set(written)
    assert 2 < len(written) < 12
    assert len(lines(curve | {"too dear": [(1, 800.0)]}, title="", x="", y="", perplexity=True).axes) == 1


def test_an_interrupted_run_is_not_finished_and_goes_on(cockpit, monkeypatch):
    cockpit.run_now(3)

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(cockpit.session.training, "_learn", interrupted)
        assert asked(cockpit, want="run")["status"] == "failed"
        assert cockpit.message == "KeyboardInterrupt"
        with pytest.raises(KeyboardInterrupt):
            cockpit.run_now(1)
    assert cockpit.status == "ready"
    assert repr(cockpit.run_now()) == "TrainingCockpit(step 24 of 24, finished)"
