"""Laws of the stream viewer's and the race's kernel side."""

import pytest

from armdlab import Corrector, Lab, load
from armdlab.traces import Trace
from armdlab.widgets.runs import start_run, verdict
from armdlab.widgets.stream_viewer import Race, StreamViewer


@pytest.fixture(scope="module")
def lab():
    return load("tales")


@pytest.fixture
def viewer(lab):
    viewer = StreamViewer(lab)
    viewer.sent = []
    viewer.send = viewer.sent.append
    return viewer


def ask(viewer, **content):
    viewer._asked(None, content, None)
    return viewer.sent.pop()


ASKED = {"prompt": "It was a", "streams": 4, "temperature": 1.0, "order": "streams", "seed": 3}


def test_it_opens_on_a_recorded_run_and_loads_no_model():
    viewer = StreamViewer()
    trace = Trace.from_dict(viewer.trace)
    assert trace.steps
    assert trace.steps[0].made[0].others
    assert viewer._labs == {"tales": None}
    assert "0x" not in repr(viewer)
    assert "A run of" in viewer.picture().alt


def test_a_race_opens_on_a_recorded_one_and_loads_no_model():
    race = Race()
    assert {found["name"] for found in race.result} == set(race.names) == {"tales", "tales_ar", "tales_mdlm"}
    for found in race.result:
        trace = Trace.from_dict(found["trace"])
        assert trace.steps
        assert (len(trace.steps), trace.steps[-1].elapsed) == (found["steps"], found["seconds"])
        assert found["verdict"] == verdict(found["text"])
    assert race.recorded
    assert not any(race._labs.values())


def pulled(viewer, run, asked):
    """All frames of a run, asked for as the view asks."""
    said = ask(viewer, want="run", run=run, asked=asked, budget_ms=0)
    assert said["status"] == "running"
    assert len(said["given"]) == len(said["lanes"])
    frames = said["frames"]
    assert len(frames) == 1, "the first step comes with the first answer"
    while said["status"] == "running":
        said = ask(viewer, want="steps", run=run, budget_ms=20)
        frames += said["frames"]
    assert said == {"frames": said["frames"], "status": "finished", "ask": None, "run": run}
    return frames


def test_pulled_steps_are_the_run_that_a_cell_makes(viewer):
    frames = pulled(viewer, "a:1", ASKED)
    seen = Trace.from_dict(viewer.trace)
    assert frames == viewer.trace["steps"]
    assert ask(viewer, want="others", run="a:1")["status"] == "done"
    looked_up = Trace.from_dict(viewer.trace)
    assert all(made.others for step in looked_up.steps for made in step.made)
    assert looked_up.text == seen.text == viewer.run_now(**ASKED).text
    assert viewer.message == ""


def test_corrected_streams_are_read_again_in_their_last_steps(viewer, lab):
    n_changed = 0
    for seed in range(6):
        asked = {**ASKED, "streams": 8, "seed": seed}
        trace, plain = (viewer.run_now(**(asked | more)) for more in ({"order": "corrected streams"}, {}))
        assert (trace.settings["order"], plain.settings["order"]) == ("corrected streams", "streams")
        n = len(plain.steps)
        assert len(trace.steps) > n
        assert trace.changed[n] == set()  # the first reading changes nothing
        assert trace.after(n) == plain.after(n)
        assert all(made.others for step in trace.steps for made in step.made)
        told = lab.write(ASKED["prompt"], streams=8, seed=seed, correct=Corrector(above=5.0))
        assert trace.text.startswith(told)  # which is cut at its end
        n_changed += trace.text != plain.text
    assert n_changed
    frames = pulled(viewer, "a:1", {**ASKED, "order": "corrected streams"})
    assert frames == viewer.trace["steps"]


def test_a_run_is_compared_with_the_one_before(viewer):
    pulled(viewer, "a:1", ASKED)
    assert viewer.compared == ""
    pulled(viewer, "a:2", ASKED)
    assert viewer.compared.startswith("Against the run before: the same text; steps ")
    pulled(viewer, "a:3", {**ASKED, "prompt": "Once", "seed": 4})
    assert viewer.compared.startswith("Against the run before: the texts part at position ")


def test_stop_keeps_what_was_seen_and_old_runs_are_not_answered(viewer):
    frames = ask(viewer, want="run", run="a:1", asked=ASKED, budget_ms=0)["frames"]
    frames += [frame for _ in range(3) for frame in ask(viewer, want="steps", run="a:1", budget_ms=0)["frames"]]
    assert len(frames) == 4
    assert ask(viewer, want="stop", run="a:1", shown=3)["status"] == "stopped"
    assert viewer.trace["steps"] == frames[:3], "what was made after the reader stopped is dropped"
    assert ask(viewer, want="others", run="a:1")["status"] == "done"
    made = [made for step in viewer.trace["steps"] for made in step["made"]]
    assert all(one["others"] for one in made)
    assert [one["piece"] for one in made] == [one["piece"] for frame in frames[:3] for one in frame["made"]]
    assert ask(viewer, want="steps", run="a:1", budget_ms=20) == {"status": "old", "ask": None, "run": "a:1"}
    ask(viewer, want="run", run="a:2", asked=ASKED, budget_ms=0)
    assert ask(viewer, want="steps", run="a:1", budget_ms=20)["status"] == "old"


def test_what_fails_in_mid_run_ends_it_and_its_sentence_outlives_what_was_asked_in_the_same_breath(viewer):
    def broken():
        yield from ()
        raise FloatingPointError("the logits are nan; load the model again")

    ask(viewer, want="run", run="a:1", asked=ASKED, budget_ms=0)
    viewer._steps = broken()
    assert ask(viewer, want="steps", run="a:1") == {"status": "failed", "ask": None, "run": "a:1"}
    assert ask(viewer, want="steps", run="a:1")["status"] == "old"
    assert viewer.message == "the logits are nan; load the model again"
    pulled(viewer, "a:2", ASKED)
    assert viewer.message == ""


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"prompt": "x " * 10_000}, "and the model can hold 160; shorten it"),
        ({"streams": 0}, "streams=0 must be from 1 to 1"),
        ({"streams": 2.5}, "streams=2.5 must be a whole number; choose one"),
        ({"seed": ""}, "seed='' must be a whole number; choose one"),
        ({"temperature": -1}, "temperature=-1 must be a number from 0"),
        ({"temperature": ""}, "temperature='' must be a number from 0"),
        ({"order": "up"}, "order='up' is unknown; choose streams, corrected streams, left to right, random"),
        ({"model": "none"}, "model='none' is not here; choose tales"),
    ],
)
def test_a_mistake_becomes_a_sentence_and_leaves_the_view_usable(viewer, asked, sentence):
    assert ask(viewer, want="run", run="a:1", asked={**ASKED, **asked})["status"] == "failed"
    assert sentence in viewer.message
    assert "Traceback" in viewer.last_error
    assert ask(viewer, want="run", run="a:2", asked=ASKED, budget_ms=0)["status"] == "running"
    assert viewer.message == ""


@pytest.mark.parametrize("order", ["streams", "left to right", "random"])
def test_every_order_writes_a_whole_text(lab, order):
    run = start_run(lab, {**ASKED, "order": order, "streams": 7})
    for _ in run:
        pass
    whole = run.trace.after(len(run.trace.steps))
    end = run.ids.index(lab.tokenizer.end_of_text) if lab.tokenizer.end_of_text in run.ids else len(run.ids)
    assert all(piece is not None for piece in whole[:end])


@pytest.mark.parametrize("prompt", ["", "It was a sunny morning, and a brave goose"])
@pytest.mark.parametrize("streams", [1, 8])
def test_masked_diffusion_has_as_many_calls_as_the_streams_that_it_races_behind_any_prompt(lab, prompt, streams):
    asked = {**ASKED, "prompt": prompt, "streams": streams}
    armd, mdlm = start_run(lab, asked), start_run(load("tales_mdlm"), asked)
    length = armd.how["length"]
    new = length - len(lab.tokenizer.encode(prompt))
    assert mdlm.how["length"] == armd.how["length"]
    calls = new if streams == 1 else streams + length // streams - 1 - bool(prompt)  # the prompt holds the first head
    drawn = load("tales_mdlm").denoising_order(
        calls, length=len(mdlm.ids), n_known=len(mdlm.ids) - new, seed=ASKED["seed"]
    )
    assert mdlm.how["order"] == drawn
    assert sum(lane >= 0 for lane in armd.lanes) == new
    assert len(list(armd)) <= calls  # fewer where the text ends before


def test_a_run_is_labelled_as_it_goes_and_shortened_for_streams_alone(lab):
    asked, longest = {**ASKED, "prompt": "", "streams": 7}, lab.model.config.max_length
    said = {order: start_run(lab, {**asked, "order": order}).settings for order in ("left to right", "random")}
    assert all(found["order"] == order and "streams" not in found for order, found in said.items())
    assert all(found["length"] == longest for found in said.values())
    in_streams, ar, mdlm = (start_run(one, asked).settings for one in (lab, load("tales_ar"), load("tales_mdlm")))
    assert in_streams["streams"] == 7
    assert [found["order"] for found in (in_streams, ar, mdlm)] == ["streams", "left to right", "masked diffusion"]
    assert in_streams["length"] == ar["length"] == mdlm["length"] < longest  # in a race all write as long a text
    assert "streams" not in ar | mdlm
    assert "end" not in in_streams | ar | mdlm
    assert start_run(lab, {**asked, "prompt": "It was a"}).settings["length"] == longest  # streams may differ by one


def test_a_race_gives_every_runner_the_same_length_and_a_verdict(lab):
    race = Race({"tales": lab, "tales_ar": load("tales_ar"), "tales_mdlm": load("tales_mdlm")}, streams=8)
    found = {result["name"]: result for result in race.run_now(prompt="It was a", seed=2)}
    assert set(found) == {"tales", "tales_ar", "tales_mdlm"}
    assert found["tales"]["steps"] < found["tales_ar"]["steps"]
    assert all(result["verdict"] and result["seconds"] > 0 for result in found.values())
    assert "tales" in race.picture().alt
    assert not race.recorded
    for result in race.result:
        assert Trace.from_dict(result["trace"]).text.startswith("It was a")
    assert repr(race) == "Race(tales, tales_ar, tales_mdlm; 8 streams)"


def test_the_verdict_is_the_grammars():
    from armdlab import tales

    assert verdict(tales.sample(5).text) == "a tale, and consistent"
    assert verdict("Once upon a GPU") == "no tale: the grammar cannot have written it"


def test_a_lab_is_taken_as_it_is(lab):
    assert isinstance(lab, Lab)
    assert StreamViewer(lab).names == ["tales"]
