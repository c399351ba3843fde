"""Laws of the acceptance view: it shows the run that `generate` makes, and the rule decides each draft."""

import re
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch

from armdlab import ARMD, ARMDConfig, decode_steps, generate, load
from armdlab.engine import Engine
from armdlab.orders import UNKNOWN, GenerationOrder
from armdlab.sampling import Sampler
from armdlab.speculative import verified_steps
from armdlab.widgets.acceptance_view import AcceptanceView, n_made, told


@pytest.fixture(scope="module")
def lab():
    return load("tales")


@pytest.fixture
def view(lab):
    view = AcceptanceView(lab)
    view.sent = []
    view.send = view.sent.append
    return view


def ask(view, **content):
    view._asked(None, content, None)
    return view.sent.pop()


def written(run):
    """Pieces of a run in text order, None where nothing was made."""
    pieces = [None] * run["length"]
    for call in run["calls"]:
        for token in call["drafts"][: call["passed"]] + [call["drawn"]] * (call["drawn"] is not None):
            assert pieces[token["at"]] is None, "a token is made once"
            pieces[token["at"]] = token["piece"]
    return pieces


def follows_the_rule(call):
    """Kept are exactly the drafts with u q < p, up to the first that fails."""
    passes = [draft["u"] * draft["q"] < draft["p"] for draft in call["drafts"]]
    first = passes.index(False) if False in passes else len(passes)
    is_refused = first < len(passes)
    in_its_place = is_refused and call["drawn"]["at"] == call["drafts"][first]["at"]
    return call["passed"] == first and is_refused == in_its_place


@pytest.mark.parametrize("seed", range(3))
def test_watching_tells_the_rule_that_decided_and_the_tokens_that_came_of_it(seed):
    """On a wild small model, where drafts often fail, and in a batch."""
    model = ARMD(ARMDConfig(vocab_size=7, max_length=24, n_layer=2, n_head=2, d_model=16)).eval()
    with torch.no_grad():
        model.embedding.weight.mul_(100.0)
        model.head.weight.mul_(20.0)
    known, seen = torch.full((3, 24), UNKNOWN), []
    order, choose = GenerationOrder.strided(24, 4), Sampler(seed=seed)
    text, passed = known.clone(), []
    for step in verified_steps(Engine.of(model), known, order, choose, None, 4, seen.append):
        step.write_into(text)
    assert torch.equal(text, generate(model, length=24, streams=4, verify=True, batch_size=3, seed=seed))
    for found in seen:
        n = found.drafts.shape[1]
        passes = (found.u * found.q < found.p) & found.is_inside[:, :n]
        assert torch.equal(passes.int().cumprod(-1).sum(-1, keepdim=True), found.n_passed)
        kept = torch.arange(n) < found.n_passed
        assert torch.equal(found.tokens[:, :n][kept], found.drafts[kept])
        assert (found.tokens[:, :n] != found.drafts).sum(-1).le(1).all(), "one at most is drawn anew"
        passed += found.n_passed.flatten().tolist()
    assert seen[0].drafts.shape == (3, 0), "the first call has nothing to judge"
    assert min(passed) < 3 <= max(passed), "some failed and some passed"


def test_what_goes_on_from_a_refused_draft_is_given_up(view):
    """It saw a token that is gone: kept, it would be refused too, and what was drafted behind it in turn."""
    calls = view.run_now(streams=4, seed=1)["calls"]
    positions, refusals = GenerationOrder.strided(160, 4).positions.tolist(), 0
    for call, following in pairwise(calls[1:-8]):  # the last windows reach the end
        rank = positions.index(call["drawn"]["at"])
        assert [draft["at"] for draft in following["drafts"]] == positions[rank + 1 : rank + 4]
        refusals += call["passed"] < 3
    assert refusals
    assert len(calls) < 1.2 * (4 + 160 / 4 - 1), "verified streams take about as many calls as plain ones"


@pytest.mark.parametrize(("streams", "seed"), [(1, 0), (4, 0), (8, 3)])
def test_a_run_is_the_text_that_generate_writes_from_the_same_seed(view, lab, streams, seed):
    run = view.run_now(streams=streams, seed=seed)
    end, length = lab.tokenizer.end_of_text, lab.model.config.max_length
    how = {"length": length, "streams": streams, "verify": True, "end": end, "seed": seed}
    expected = [lab.tokenizer.decode([v]) for v in generate(lab.engine, **how)[0].tolist()]
    found = written(run)
    assert [piece or lab.tokenizer.decode([end]) for piece in found] == expected
    assert len(run["calls"]) == len(list(decode_steps(lab.engine, **how)))
    assert all(follows_the_rule(call) for call in run["calls"])
    assert max(map(n_made, run["calls"])) <= streams
    assert n_made(run["calls"][0]) == 1
    made = sum(piece is not None for piece in found)
    assert repr(view) == (f"AcceptanceView({streams} streams, seed {seed}; {made} tokens in {len(run['calls'])} calls)")


def test_behind_a_refused_draft_the_next_call_judges_new_ones_drawn_from_the_judges_answers(view):
    calls = view.run_now(streams=8, seed=3)["calls"]
    alike = other = 0
    for call, following in pairwise(calls):
        left = call["drafts"][n_made(call) :]
        assert len(left) <= len(following["drafts"])
        for old, new in zip(left, following["drafts"], strict=False):
            assert old["at"] == new["at"]
            if old["piece"] == new["piece"]:
                assert new["q"] == old["p"]
            alike, other = alike + (old["piece"] == new["piece"]), other + (old["piece"] != new["piece"])
    assert alike
    assert other


def test_it_opens_on_a_recorded_run_and_loads_no_model():
    view = AcceptanceView()
    assert view._lab is None
    assert all(follows_the_rule(call) for call in view.verified["calls"])
    assert sum(map(n_made, view.verified["calls"])) == sum(piece is not None for piece in written(view.verified))
    assert re.match(
        r"Windows of drafts, call by call: \d+ kept, \d+ drawn anew, \d+ drawn as one more\. .*call \d+: ",
        view.picture().alt,
    )


def test_pulled_calls_are_the_run_and_stop_keeps_those_that_were_seen(view):
    said = ask(view, want="run", run="a:1", asked={"streams": 4, "seed": 5}, budget_ms=0)
    assert said["begun"] == {"length": 160, "streams": 4, "seed": 5}
    calls = said["calls"]
    assert len(calls) == 1
    for _ in range(4):
        calls = calls + ask(view, want="steps", run="a:1", budget_ms=0)["calls"]
    assert ask(view, want="stop", run="a:1", shown=3)["status"] == "stopped"
    assert view.verified["calls"] == calls[:3]
    assert "call 3: " in view.picture().alt
    assert ask(view, want="steps", run="a:1", budget_ms=0)["status"] == "old"
    assert view.run_now(streams=4, seed=5)["calls"][:5] == calls


def test_hostile_pieces_are_told_as_they_are(view, lab):
    """The view sets them as text (tests/test_view.py); a figure takes no dollars for mathematics."""
    run = view.verified
    run["calls"][len(run["calls"]) // 2]["drafts"][0]["piece"] = piece = "<img src=x onerror=alert(1)> $x_{$"
    view.verified = {**run}
    assert piece in str(view.verified)
    assert view.picture().png.startswith(b"\x89PNG")


def test_what_lies_behind_the_end_is_no_draft():
    lab = SimpleNamespace(tokenizer=SimpleNamespace(decode=lambda ids: f"<{ids[0]}>"))
    row, half = torch.tensor([[3, 4, 5, 6]]), torch.full((1, 3), 0.5)
    judgement = SimpleNamespace(positions=row, drafts=row[:, :3], tokens=row, q=half, p=half, u=half)
    judgement.is_inside, judgement.n_passed = row < 5, torch.tensor([[2]])
    call = told(lab, judgement)
    assert [draft["piece"] for draft in call["drafts"]] == ["<3>", "<4>"]
    assert (call["passed"], call["drawn"], n_made(call)) == (2, None, 2)
    judgement.is_inside = row < 6
    judgement.n_passed = torch.tensor([[3]])
    assert told(lab, judgement)["drawn"] is None, "all passed, and the text is full"


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"streams": 3}, "streams=3 does not divide length=160; try 2 or 4"),
        ({"streams": 0}, "streams=0 must be a whole number of at least 1"),
        ({"streams": ""}, "streams='' must be a whole number; choose one"),
        ({"streams": 20}, "streams=20 are too many to be read side by side; choose 1 to 16"),
        ({"seed": -1}, "seed=-1 must be from 0 to 4294967295; choose another"),
        ({"seed": 1.5}, "seed=1.5 must be a whole number; choose one"),
    ],
)
def test_a_mistake_becomes_a_sentence_and_leaves_the_view_usable(view, asked, sentence):
    before = view.verified
    said = ask(view, want="run", run="a:1", asked={"streams": 4, "seed": 1, **asked}, budget_ms=0)
    assert said == {"status": "failed", "run": "a:1", "ask": None}
    assert view.message == sentence
    assert view.verified == before
    assert ask(view, want="run", run="a:2", asked={"streams": 4, "seed": 1}, budget_ms=0)["status"] == "running"
    assert view.message == ""


def test_a_model_that_cannot_judge_is_refused():
    sentence = "lab holds the model AR, which cannot judge drafts; give one with an ARMD"
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        AcceptanceView(load("tales_ar"))
