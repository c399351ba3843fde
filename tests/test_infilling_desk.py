"""Laws of the infilling desk's kernel side: exact prices, known words that stay, one run at a time, any text."""

import json
import re
from dataclasses import replace

import pytest
import torch
from strategies import tiny

from armdlab import ARMD, load, tales
from armdlab.infilling import filling_order
from armdlab.objectives import nll
from armdlab.widgets.gaps import COMMON, ORDERS, Page, whole_characters
from armdlab.widgets.infilling_desk import MOST, RECORDED, InfillingDesk

TEXT = "A brave goose named Gus had a small yellow rug."
HOSTILE = [
    "<script>alert(1)</script> <|endoftext|> &amp;",
    "🦊 👩‍👩‍👧 🇺🇦 e\u0301\u0301 Z\u0351\u036b",
    "שלום מرحبا \u202eabc \u200fx",
    "line one\r\n\n  two\tthree   ",
    "Donaudampfschifffahrtsgesellschaft \u0928\u092e\u0938\u094d\u0924\u0947",
]


@pytest.fixture(scope="module")
def lab():
    return load("tales")


@pytest.fixture
def desk(lab):
    return listening(InfillingDesk(TEXT, ["yellow", "rug"], lab=lab))


def listening(desk):
    desk.sent = []
    desk.send = desk.sent.append
    return desk


def ask(desk, **content):
    desk._asked(None, content, None)
    return desk.sent.pop()


def to_the_end(desk, run="a:1", **content):
    said, frames = ask(desk, want="run", run=run, **content), []
    while said["status"] == "running":
        said = ask(desk, want="steps", run=run, budget_ms=5)
        frames += [made for step in said["made"] for made in step]
    return said, frames


def test_it_opens_on_a_recorded_example_and_loads_no_model():
    desk = InfillingDesk()
    assert desk._lab is None
    assert desk._page is None
    assert len(desk.state["candidates"]) >= 4
    assert {"the text's own", "yours"} <= {label for one in desk.state["candidates"] for label in one["labels"]}
    assert "0x" not in repr(desk)
    assert re.fullmatch(r"InfillingDesk\(121 tokens, 4 gaps of 5 tokens, \d+ candidates\)", repr(desk))
    assert "nats" in desk.picture().alt


def test_what_was_recorded_is_kept_and_priced_by_the_model_that_is_here(lab):
    desk = listening(InfillingDesk())
    n, words = len(desk.state["candidates"]), {tuple(one["fills"]) for one in desk.state["candidates"]}
    said, _ = to_the_end(desk, asked={"order": "left to right", "seed": 91})
    assert said["status"] == "finished"
    assert words <= {tuple(one["fills"]) for one in desk.state["candidates"]}
    assert n <= len(desk.state["candidates"]) <= n + 1
    assert tales.sample(300).text == desk.state["text"]


@pytest.mark.parametrize("streams", [1, 2])
@pytest.mark.parametrize("order", ORDERS)
def test_log_probabilities_are_those_of_one_pass_under_the_order(lab, order, streams):
    desk = InfillingDesk(TEXT, ["small", "yellow", "Gus"], lab=lab)
    new = desk.run_now(order=order, streams=streams, seed=3)
    known = desk._page.known
    for candidate in [new, *desk.candidates]:
        with torch.no_grad():
            priced = nll(lab.model, torch.tensor([candidate.ids]), candidate.order, "none")[0]
        torch.testing.assert_close(-candidate.log_probs[~known].float(), priced[~known], atol=1e-4, rtol=1e-4)
        assert (candidate.log_probs[known] == 0).all()
        assert candidate.order.positions[: int(known.sum())].tolist() == known.nonzero().squeeze(-1).tolist()
        assert len(candidate.steps(desk._page)) == (3 if streams == 1 else 2 if order == "surest first" else 3)
    if order not in ("random", "surest first"):
        listed = desk._page.positions(desk._page.masked)
        way = "as listed" if order == "as clicked" else order
        assert new.order == filling_order(known, way, streams, listed=listed)


@pytest.mark.parametrize("order", ORDERS)
def test_steps_that_are_pulled_tell_the_log_probabilities_of_the_candidate(desk, order):
    said, frames = to_the_end(desk, asked={"order": order, "seed": 4})
    assert said["status"] == "finished"
    candidate = desk.candidates[said["newest"]]
    assert sorted(made["position"] for made in frames) == (~desk._page.known).nonzero().squeeze(-1).tolist()
    for made in frames:
        assert made["log_prob"] == pytest.approx(float(candidate.log_probs[made["position"]]), abs=1e-4)
    assert desk.message == ""


def test_known_words_never_change(desk):
    known, ids = desk._page.known, desk._page.ids
    for order in ORDERS:
        for seed in (1, 2):
            new = torch.tensor(desk.run_now(order=order, seed=seed, temperature=2.0).ids)
            assert torch.equal(new[known], ids[known])


def test_the_same_seed_repeats_and_gains_no_second_line(desk):
    first = desk.run_now(seed=7)
    n = len(desk.candidates)
    assert desk.run_now(seed=7).ids == first.ids
    assert len(desk.candidates) == n
    texts = {desk.run_now(seed=seed, temperature=3.0).ids for seed in range(6)}
    assert len(texts) > 3
    assert desk.candidates[0].labels[0] == "the text's own"


def test_older_candidates_stay_and_those_of_other_gaps_come_back_with_them(desk):
    desk.run_now(seed=1, temperature=3.0)
    desk.run_now(seed=2, temperature=3.0)
    listed = [one["fills"] for one in desk.state["candidates"]]
    assert len(listed) == 3
    masked = desk.state["masked"]
    ask(desk, want="page", masked=[1])
    assert desk.state["candidates"] == []
    ask(desk, want="page", masked=masked[::-1])
    assert [one["fills"] for one in desk.state["candidates"]] == listed
    ask(desk, want="clear")
    assert desk.state["candidates"] == []


@pytest.mark.parametrize("common", COMMON)
def test_candidates_are_compared_under_one_order(lab, desk, common):
    desk.run_now(order="right to left", seed=1, temperature=3.0)
    desk.run_now(order="left to right", seed=2, temperature=3.0)
    ask(desk, want="common", common=common)
    texts = torch.tensor([candidate.ids for candidate in desk.candidates])
    known = desk._page.known
    order = None if common == COMMON[0] else filling_order(known, common.removeprefix("gaps, "))
    with torch.no_grad():
        prices = nll(lab.model, texts, order, "none").double()
    total = prices.sum(-1) if order is None else prices[:, ~known].sum(-1)
    for one, price in zip(desk.state["candidates"], total.tolist(), strict=True):
        assert one["common"] == pytest.approx(-price, abs=1e-4)
    shares = {tuple(one["fills"]): one["share"] for one in desk.state["candidates"]}
    assert sum(shares.values()) == pytest.approx(1)


def test_words_of_ones_own_are_weighed_in_any_order(desk):
    for order in ORDERS:
        found = desk.run_now(order=order, own={"gap": 0, "words": "golden cup"})
        assert "yours" in found.labels
        assert found.log_prob < 0
    fills = [one["fills"] for one in desk.state["candidates"] if "yours" in one["labels"]]
    assert fills
    assert all(fill == [" golden cup"] for fill in fills)


def test_other_gaps_keep_the_words_of_the_candidate_that_was_chosen(lab):
    desk = InfillingDesk(TEXT, ["brave", "small"], lab=lab)
    filled = desk.run_now(seed=1, temperature=3.0)
    like = desk.candidates.index(filled)
    before = desk.state["candidates"][like]["fills"]
    desk.run_now(own={"gap": 1, "words": "big", "like": like})
    mine = next(one for one in desk.state["candidates"] if "yours" in one["labels"])
    assert mine["fills"] == [before[0], " big"]


def test_stop_stops_within_a_step_and_old_runs_are_not_answered(desk):
    assert ask(desk, want="run", run="a:1", asked={"order": "surest first"})["status"] == "running"
    assert len(ask(desk, want="steps", run="a:1", budget_ms=0)["made"]) == 1
    assert ask(desk, want="stop", run="a:1")["status"] == "stopped"
    assert desk.candidates == []
    assert ask(desk, want="steps", run="a:1", budget_ms=0) == {"run": "a:1", "made": [], "status": "over", "ask": None}
    ask(desk, want="run", run="a:2", asked={})
    assert ask(desk, want="steps", run="a:1", budget_ms=0)["status"] == "old"
    ask(desk, want="page", masked=[1])
    assert ask(desk, want="steps", run="a:2", budget_ms=0)["status"] == "old", "other gaps end a run"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"text": "x " * 5_000}, r"the text has [0-9,]+ tokens and the model can hold 160; shorten it"),
        ({"text": ""}, "the text holds no word; write at least one"),
        ({"text": " \n "}, "the text holds no word; write at least one"),
        (
            {"masked": []},
            "no word is left out, so there is nothing to fill; click the words that the model should find",
        ),
        (
            {"masked": list(range(11))},
            "every word is left out, so nothing is known; click at least one word to give it back",
        ),
        ({"masked": [99]}, r"masked=\[99\] must name words once each, from 0 to 10"),
        ({"asked": {"order": "up"}}, "order='up' is unknown; choose " + ", ".join(ORDERS)),
        ({"asked": {"streams": 3}}, "streams=3 is more than the 2 positions to generate; use fewer"),
        (
            {"asked": {"order": "surest first", "streams": 3}},
            "streams=3 must be from 1 to 2, the number of positions to fill",
        ),
        ({"asked": {"streams": 0}}, "streams=0 must be a whole number of at least 1"),
        (
            {"asked": {"temperature": -1}},
            r"temperature=-1.0 must be a number from 0; 1 samples the model as it is",
        ),
        ({"asked": {"own": {"gap": 0, "words": " "}}}, "write what should stand in the gap first"),
        (
            {"asked": {"own": {"gap": 0, "words": "cup"}}},
            "“\u2068cup\u2069” is 1 token to this model, and the gap holds 2; write 2, or leave other words out",
        ),
        ({"asked": {"own": {"gap": 5, "words": "cup"}}}, "gap=5 is not there; the text has 1, counted from 0"),
    ],
)
def test_what_cannot_be_is_a_sentence_and_leaves_the_desk_usable(desk, content, sentence):
    before = desk.state
    said, _ = to_the_end(desk, **{"asked": {}, **content})
    assert said["status"] == "failed"
    assert re.fullmatch(sentence, desk.message)
    assert "Traceback" in desk.last_error
    assert desk.state == before
    assert to_the_end(desk, run="a:2", asked={})[0]["status"] == "finished"
    assert desk.message == ""


def test_a_candidate_that_is_not_listed_is_no_text(desk):
    desk.run_now()
    for number in (-1, 2):
        said = ask(desk, want="keep", candidate=number)
        assert (said["status"], desk.message) == ("failed", f"candidate={number} is not listed; choose 0 to 1")


def test_a_list_has_an_end_that_is_said(desk):
    desk._listed().extend([desk.run_now()] * MOST)
    assert to_the_end(desk, asked={})[0]["status"] == "failed"
    assert desk.message == f"{MOST} candidates are listed already; clear the list to make more"


@pytest.mark.parametrize("text", HOSTILE, ids=["markup", "emoji", "right to left", "space", "long words"])
def test_any_text_round_trips_and_can_be_filled(lab, text):
    desk = InfillingDesk(text, lab=lab)
    assert "".join(desk.state["words"]) == text
    assert not any("\ufffd" in word for word in desk.state["words"])
    n = len(desk.state["words"])
    desk = InfillingDesk(text, [n // 2], lab=lab)
    desk.run_now(seed=1)
    own = desk.state["candidates"][0]
    assert own["fills"] == [desk.state["words"][n // 2]], "the text's own words read as they were written"
    assert not any("\ufffd" in cell["piece"] for cell in own["cells"][0])
    assert "<img" in desk._repr_mimebundle_()[0]["text/html"]
    json.dumps(desk.state)


def test_a_character_of_several_tokens_is_one_cell(lab):
    ids = lab.tokenizer.encode("a🦊b")
    assert [lab.tokenizer.decode([ids[i] for i in group]) for group in whole_characters(lab.tokenizer, ids)] == [
        "a",
        "🦊",
        "b",
    ]
    assert sum(map(len, whole_characters(lab.tokenizer, ids[:3]))) == 3, "what is no text keeps its tokens"


@pytest.mark.parametrize("text", HOSTILE)
def test_words_are_the_tokens_of_the_text(lab, text):
    words = lab.tokenizer.words(text)
    assert [i for word in words for i in word] == lab.tokenizer.encode(text)
    assert "".join(lab.tokenizer.decode(word) for word in words) == text


def test_an_edit_keeps_the_gaps_before_and_behind_it(lab):
    page = Page.of(lab.tokenizer, TEXT, 160).without([9, 1])
    new = Page.of(lab.tokenizer, TEXT.replace("named Gus", "whose name was Gus"), 160).moved_from(page)
    assert [new.pieces[w] for w in new.masked] == [" rug", " brave"]
    changed = Page.of(lab.tokenizer, TEXT.replace("brave", "tired"), 160).moved_from(page)
    assert [changed.pieces[w] for w in changed.masked] == [" rug"]


def test_a_candidate_becomes_the_text(desk):
    desk.run_now(own={"gap": 0, "words": "golden cup"})
    n = next(i for i, one in enumerate(desk.state["candidates"]) if "yours" in one["labels"])
    ask(desk, want="keep", candidate=n)
    assert desk.state["text"] == TEXT.replace("yellow rug", "golden cup")
    assert desk.state["masked"] == []
    assert ask(desk, want="tale")["status"] == "done"
    assert tales.parse(desk.state["text"]) is not None


def test_where_no_tale_fits_the_model_it_says_so_and_goes_on(lab):
    small = replace(lab, model=tiny(ARMD, vocab_size=lab.tokenizer.vocab_size, max_length=20))
    desk = listening(InfillingDesk(TEXT, lab=small))
    assert ask(desk, want="tale")["status"] == "failed"
    assert desk.message == (
        "none of 100 tales fits max_length=20, all that the model can hold; write a shorter text, or open the desk "
        "with a model of longer texts"
    )
    assert ask(desk, want="page", masked=[1])["status"] == "done"
    assert (desk.message, desk.state["text"]) == ("", TEXT)


def test_the_grammar_judges_whole_tales(lab):
    text = tales.sample(300).text
    desk = InfillingDesk(text, ["flood"], lab=lab)
    desk.run_now(own={"gap": 0, "words": "Saturday"})
    said = {one["labels"][0]: (one["is_tale"], one["verdict"]) for one in desk.state["candidates"]}
    assert said["the text's own"] == (True, "a tale, and consistent")
    assert said["yours"][0] is False
    assert said["yours"][1].startswith("no tale: the text leaves the grammar at word")


def test_of_a_text_that_is_no_tale_the_grammar_has_nothing_to_say(desk):
    desk.run_now(seed=1)
    assert {one["verdict"] for one in desk.state["candidates"]} == {""}


def test_a_word_that_is_not_there_cannot_be_left_out(lab):
    sentence = "without holds 'zebra', which the text does not; name a word as the text spells it"
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        InfillingDesk(TEXT, ["zebra"], lab=lab)


def test_the_recorded_example_says_what_its_candidates_say():
    recorded = json.loads(RECORDED.read_text(encoding="utf-8"))
    state = recorded["state"]
    assert len(recorded["candidates"]) == len(state["candidates"])
    for kept, shown in zip(recorded["candidates"], state["candidates"], strict=True):
        assert kept["labels"] == shown["labels"]
        cells = [cell for gap in shown["cells"] for cell in gap]
        assert shown["log_prob"] == pytest.approx(sum(cell["log_prob"] for cell in cells))
