"""Laws of traces: what was recorded is what was decoded, keeps through every format, and needs no model."""

import io
import json
import math
import re
import weakref

import pytest
import torch
from PIL import Image
from strategies import tiny

from armdlab import AR, ARMD, Corrector, Gate, GenerationOrder, decode_steps, generate, load
from armdlab.baselines import MDLM
from armdlab.objectives import nll
from armdlab.traces import Made, Recorder, Step, Trace, given_pieces, record

N = 8


class Letters:
    """Id -> a piece of text; one of them is hostile."""

    def decode(self, ids):
        return "".join("ab </script>|c|\u2028|é|œ|g".replace(" ", "|").split("|")[i] for i in ids)


def recorded(cls=ARMD, **how):
    return record(tiny(cls), Letters(), {"model": "tiny"}, length=N, seed=1, **how)


@pytest.mark.parametrize(
    "how",
    [{}, {"streams": 4}, {"streams": 4, "verify": True}, {"streams": 4, "gate": Gate(0.3)}, {"prompt": [1, 2]}],
)
def test_a_trace_is_the_run_that_generate_makes(how):
    trace, text = recorded(**how), generate(tiny(ARMD), length=N, seed=1, **how)[0].tolist()
    assert trace.text == Letters().decode(text)
    assert sum(len(step.made) for step in trace.steps) == N - len(how.get("prompt", []))
    assert trace.after(0) == [Letters().decode([i]) for i in how.get("prompt", [])] + [None] * (
        N - len(how.get("prompt", []))
    )
    assert Trace.from_json(trace.to_json()) == trace
    elapsed = [step.elapsed for step in trace.steps]
    assert elapsed == sorted(elapsed)


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"streams": 4},
        {"streams": 2, "verify": True},
        {"streams": 4, "verify": "heads"},
        {"known": [1, -1, -1, 4] + [-1] * 4},
        {"streams": 4, "correct": Corrector(0.01, beside=3)},
    ],
)
def test_alternatives_are_what_each_token_was_drawn_from(how):
    trace, n_found = recorded(**how), 0
    for step in trace.steps:
        for made in step.made:
            probabilities = [p for _, p in made.others]
            assert probabilities == sorted(probabilities, reverse=True)
            assert len(probabilities) == 5
            mine = dict(made.others).get(made.piece)
            if mine is not None:
                n_found += 1
                assert mine == pytest.approx(torch.tensor(made.log_prob).exp().item(), abs=1e-5)
    assert n_found > 4  # most of what is made is among the five likeliest of seven


def test_a_text_that_is_read_again_is_a_trace_whose_last_word_counts():
    how = {"streams": 4, "correct": Corrector(0.01, beside=3)}
    texts, n_changed = set(), 0
    for seed in range(20):
        trace = record(tiny(ARMD), Letters(), length=N, seed=seed, **how)
        text = generate(tiny(ARMD), length=N, seed=seed, **how)
        assert trace.text == Letters().decode(text[0].tolist())
        n_written = len(generated_in(seed))
        assert n_written == 5
        again = trace.steps[n_written:]
        assert [made.position for made in again[0].made] == list(range(N))  # every token has a price in each reading
        assert trace.changed[n_written] == set()  # the first one changes nothing
        n_changed += sum(map(len, trace.changed[n_written:]))
        assert set().union(*trace.changed[:n_written]) == set(range(N))
        in_turn = -float(nll(tiny(ARMD), text, GenerationOrder.left_to_right(N), "sum").detach())
        assert trace.log_prob == pytest.approx(in_turn, abs=1e-4)
        assert Trace.from_json(trace.to_json()) == trace
        assert Image.open(io.BytesIO(trace.to_gif())).n_frames > n_written
        texts.add(trace.text)
    assert n_changed > 3
    assert len(texts) > 10


def generated_in(seed):
    """The steps of the same run, read once."""
    return list(decode_steps(tiny(ARMD), length=N, seed=seed, streams=4))


def test_a_run_that_is_cut_stands_where_it_stood():
    run = Recorder(tiny(ARMD), Letters(), length=N, seed=3, streams=4, correct=Corrector(0.01, beside=3))
    stood = [list(run.ids)] + [list(run.ids) for _ in run]
    for n in reversed(range(len(stood))):
        run.cut(n)
        assert run.ids == stood[n]
        assert len(run.with_others().steps) == n


def test_where_no_pass_gives_the_alternatives_none_are_claimed():
    for trace in (recorded(streams=4, gate=Gate(0.5)), recorded(MDLM)):
        assert all(made.others == () for step in trace.steps for made in step.made)
    assert recorded(AR).steps[0].made[0].others


def test_log_probability_and_comparison():
    one, other = recorded(), recorded(streams=4)
    text = generate(tiny(ARMD), length=N, seed=1)
    assert one.log_prob == pytest.approx(
        -float(nll(tiny(ARMD), text, GenerationOrder.left_to_right(N), "sum").detach()), abs=1e-4
    )
    assert one.compare(one)["first_difference"] is None
    found = one.compare(other)
    assert found["steps"] == (8, 5)
    assert found["first_difference"] == next(
        i for i, (a, b) in enumerate(zip(one.after(8), other.after(5), strict=True)) if a != b
    )


@pytest.mark.parametrize(
    "text", ["It was a", "🦊 👩‍👩‍👧 🇺🇦", "שלום مرحبا \u202eabc", "e\u0301\u0301 Z\u0351", "\ufffd x"]
)
def test_given_pieces_are_the_text_whatever_letters_it_has(text):
    tokenizer = load("tales").tokenizer
    ids = tokenizer.encode(text)
    pieces = given_pieces(tokenizer, [*ids, -1, *ids])
    assert "".join(pieces[: len(ids)]) == "".join(pieces[len(ids) + 1 :]) == text
    assert pieces[len(ids)] is None


def test_lanes_cut_what_is_made_into_streams():
    assert recorded(streams=4).lanes == (0, 0, 1, 1, 2, 2, 3, 3)
    assert recorded(prompt=[1, 2, 3], streams=2).lanes == (-1, -1, -1, 0, 1, 1, 1, 1)
    assert recorded(prompt=[1, 2, 3], streams=3).lanes == (-1, -1, -1, 1, 1, 1, 2, 2)
    assert recorded(known=[1, -1, -1, -1, -1, 1, -1, -1], streams=3).lanes == (-1, 0, 0, 1, 1, -1, 2, 2)


def test_a_page_holds_the_run_and_no_text_can_break_out_of_it(tmp_path):
    trace = Trace(
        {"model": "</script><script>alert(1)"}, (None,), (0,), (Step(0.1, (Made(0, "</script>\u2028", -0.1),)),)
    )
    page = trace.to_html()
    assert page.count("</script>") == 1
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")
    assert "innerHTML" not in page
    data = re.search(r"const trace = (.*);\n", page)[1]
    assert Trace.from_json(data) == trace
    trace.save(tmp_path / "run.html")
    assert (tmp_path / "run.html").read_text(encoding="utf-8") == page


def test_a_gif_has_a_frame_for_each_step_and_one_before(tmp_path):
    trace = recorded(streams=2)
    trace.save(tmp_path / "run.gif")
    image = Image.open(io.BytesIO((tmp_path / "run.gif").read_bytes()))
    assert image.n_frames == len(trace.steps) + 1
    assert image.size[0] == 720


def test_a_gif_is_drawn_one_frame_at_a_time_and_none_is_higher_than_its_text(monkeypatch):
    """Pillow keeps a byte a pixel of each frame; whole pages in colour would need a gigabyte for one tale."""
    drawn, most, sizes, new = [], [], set(), Image.new

    def spied(mode, size, *how):
        image = new(mode, size, *how)
        if mode == "RGB":
            drawn.append(weakref.ref(image))
            most.append(sum(ref() is not None for ref in drawn))
            sizes.add(image.size)
        return image

    monkeypatch.setattr(Image, "new", spied)
    n = 60
    steps = tuple(Step(0.1 * i, (Made(i, "word ", -1.0),)) for i in range(n))
    gif = Image.open(io.BytesIO(Trace({}, (None,) * n, (0,) * n, steps).to_gif()))
    assert gif.n_frames == n + 1
    assert len(most) == n + 1
    assert max(most) <= 2
    assert sizes == {gif.size}
    assert gif.size[1] < 200


def test_what_decode_steps_walks_along_can_be_recorded_also_where_nothing_is_left_to_make():
    trace = recorded(known=[1] * N, streams=2)
    assert trace.steps == ()
    assert trace.lanes == (-1,) * N


@pytest.mark.parametrize("start", [record, Recorder])
def test_a_run_without_a_length_is_refused_as_decoding_refuses_it(start):
    with pytest.raises(TypeError, match="missing 1 required keyword-only argument: 'length'"):
        start(tiny(ARMD), Letters())


def broken(**parts):
    found = Trace({}, (None,), (0,), ()).to_dict()
    return json.dumps(found | parts)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "this is no trace: JSON ends or breaks at character 1; record the run anew"),
        ("[]", "this is no trace of version 1 (it says None); record it anew"),
        ('{"version": 9}', "this is no trace of version 1 (it says 9); record it anew"),
        ('{"version": 1}', "this trace lacks 'steps'; record the run anew"),
        (
            broken(settings="ab"),
            "this trace holds what no trace does: dictionary update sequence element #0 has length 1; 2 is required; "
            "record the run anew",
        ),
        (
            broken(lanes=["x"]),
            "this trace holds what no trace does: invalid literal for int() with base 10: 'x'; record the run anew",
        ),
        (
            broken(lanes=[0, 0]),
            "this trace holds what no trace does: lanes has 2 entries but given has 1; one for each position; "
            "record the run anew",
        ),
        (broken(steps=7), "this trace holds what no trace does: 'int' object is not iterable; record the run anew"),
    ],
)
def test_what_is_no_trace_is_refused(text, sentence):
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        Trace.from_json(text)


def test_a_trace_that_no_run_could_leave_is_refused():
    step = Step(0.0, (Made(0, "a", -1.0),))
    with pytest.raises(ValueError, match=r"^step 0 makes position 0 twice$"):
        Trace({}, (None,), (0,), (Step(0.0, step.made * 2),))
    with pytest.raises(ValueError, match=r"^step 0 makes position 0, where there is nothing to make$"):
        Trace({}, ("x",), (-1,), (step,))
    with pytest.raises(ValueError, match=r"^lanes has 2 entries but given has 1; one for each position$"):
        Trace({}, (None,), (0, 0), ())
    with pytest.raises(ValueError, match=r"^n_steps=9 must be from 0 to 8, the steps of this trace$"):
        recorded().after(9)
    with pytest.raises(ValueError, match=r"^path=run.txt ends in .txt; choose one of .json, .html, .gif$"):
        recorded().save("run.txt")
    with pytest.raises(ValueError, match=r"^2 rows cannot be recorded together; record one text at a time$"):
        Recorder(tiny(ARMD), Letters(), length=N, batch_size=2)
    with pytest.raises(ValueError, match="record one text at a time"):
        Recorder(tiny(ARMD), Letters(), length=N, prompt=[[1, 2], [3, 4]])


def test_json_is_strict():
    json.loads(recorded().to_json(), parse_constant=lambda word: pytest.fail(word))


def test_a_model_in_training_is_recorded_with_the_alternatives_that_it_drew_from():
    model = tiny(ARMD, dropout=0.5).train()
    trace = record(model, Letters(), length=N, seed=1)
    assert model.training
    for made in (made for step in trace.steps for made in step.made):
        named = dict(made.others)
        assert named.get(made.piece, math.exp(made.log_prob)) == pytest.approx(math.exp(made.log_prob), abs=1e-6)
