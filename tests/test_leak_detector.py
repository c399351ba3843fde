"""Laws of the leak detector, without a browser: what must stay, stays; what leaks on purpose, is caught."""

import json
import re

import pytest
import torch
from hypothesis import given
from strategies import orders, random_tokens, tiny

from armdlab import ARMD, GenerationOrder, load
from armdlab.baselines import LeakyMask, LeakyQuery
from armdlab.figures import leak_matrix
from armdlab.masks import strictly_causal_mask
from armdlab.widgets.leak_detector import LeakDetector, movement, must_stay, same_weights, small_models

ORDER = GenerationOrder.from_masking_times([2, 3, 1, 3, 2, 1])  # cat on | the the | sat mat


@pytest.fixture
def detector():
    detector = LeakDetector("the cat sat on the mat", ORDER)
    detector.sent = []
    detector.send = detector.sent.append
    return detector


def asked(detector, **content):
    detector._asked(detector, {"want": "order", "ask": "a:1", **content}, [])
    return detector.sent[-1]


@given(orders(max_length=8))
def test_armd_moves_no_output_that_must_stay_and_every_other_one(order):
    model = tiny(ARMD)
    tokens = random_tokens(model, 1, order.length)
    for changed in range(order.length):
        into = (int(tokens[0, changed]) + 1) % 7
        stay = must_stay(order, changed)
        moved = movement(model, tokens, order, changed, into)
        assert (moved[stay] == 0).all()
        assert (moved[~stay] > 0).all()
        assert stay[changed]


@pytest.mark.parametrize("cls", [ARMD, LeakyQuery, LeakyMask])
def test_one_change_is_one_row_of_the_leak_matrix(cls):
    model = tiny(cls)
    tokens = random_tokens(model, 1, 6)
    whole = leak_matrix(model, tokens, ORDER)
    for changed in range(6):
        into = (int(tokens[0, changed]) + 1) % 7
        assert torch.equal(movement(model, tokens, ORDER, changed, into), whole[changed])


def test_what_must_stay_is_what_the_strictly_causal_mask_forbids():
    for changed in range(6):
        seen_by = strictly_causal_mask(ORDER, in_text_order=True)[:, changed]
        assert torch.equal(must_stay(ORDER, changed), ~seen_by)
    assert must_stay(ORDER, 1).tolist() == [False, True, False, True, False, False]


@pytest.mark.parametrize("changed", range(6))
def test_both_leaky_models_are_caught_by_every_word_but_the_one_made_last(detector, changed):
    assert asked(detector, changed=changed)["status"] == "done"
    right, query, mask = detector.found
    assert right.leaks == []
    if changed == 5:  # mat, made last
        assert (query.leaks, mask.leaks) == ([], [])
        assert detector.state["aside"] == (
            "No model reads the word that is made last, so changing it finds no leak; change another."
        )
    else:
        assert changed in query.leaks
        assert changed in mask.leaks
        assert detector.state["aside"] == ""
        assert {p for moved in (query, mask) for p in moved.leaks} <= {p for p in range(6) if right.must_stay[p]}


def test_the_verdict_says_what_must_stay_and_what_did_not(detector):
    right, query, _ = detector.state["models"]
    assert right["verdict"] == "The 2 outputs that must stay at exactly 0 do."
    pattern = (
        "Leak: 2 of the 2 outputs that must stay at exactly 0 moved: “\u2068cat\u2069” by [0-9.]+, “\u2068on\u2069” by"
    )
    assert re.match(pattern, query["verdict"])
    assert re.fullmatch(
        r"LeakDetector\(position 1 “\u2068cat\u2069” becomes “\u2068fox\u2069”; "
        r"outputs that moved and must not: ARMD 0, LeakyQuery 2, LeakyMask 2\)",
        repr(detector),
    )
    asked(detector, kind="left to right", changed=0)
    assert detector.state["models"][0]["verdict"] == "The 1 output that must stay at exactly 0 does."
    json.dumps(detector.state)


def test_the_three_models_differ_in_no_weight_and_chance_is_left_alone():
    before = torch.get_rng_state()
    models = small_models()
    assert torch.equal(torch.get_rng_state(), before)
    for model in models.values():
        for one, other in zip(model.parameters(), models["ARMD"].parameters(), strict=True):
            assert torch.equal(one, other)
    assert [type(model) for model in models.values()] == [ARMD, LeakyQuery, LeakyMask]
    assert same_weights(models["ARMD"])["ARMD"] is not models["ARMD"]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"into": "cat"}, "“\u2068cat\u2069” is what stands there already; change it into another word"),
        ({"into": "two words"}, "“\u2068two words\u2069” is not one word, and one is changed into one; write one"),
        ({"into": " "}, "“\u2068\u2069” is not one word, and one is changed into one; write one"),
        ({"changed": 9}, "position 9 is to be changed but the text has 6 words; choose another"),
        ({"kind": "strided", "number": 4}, "streams=4 does not divide length=6; try 3 or 6"),
        ({"text": "a " * 25}, "the text has 25 words and the picture holds 24; shorten it"),
    ],
)
def test_what_cannot_be_is_a_sentence_and_changes_nothing(detector, content, sentence):
    before = detector.state
    assert asked(detector, **content)["status"] == "failed"
    assert detector.message == sentence
    assert detector.state == before
    assert asked(detector, into="owl")["status"] == "done"
    assert detector.message == ""


def test_a_new_text_starts_from_the_word_that_is_made_first(detector):
    assert asked(detector, text="one two three", kind="strided", number=3, changed=None)["status"] == "done"
    assert detector.state["changed"] == 0


def test_trained_weights_leak_alike_and_a_word_must_be_one_token():
    detector = LeakDetector("A cheerful boy called Theo was counting", lab=load("tales"))
    detector.send = lambda content: None
    assert detector.state["words"][1] == " cheerful"
    asked_for = [len(moved.leaks) for moved in detector.found]
    assert asked_for == [0, 1, 1]
    detector._asked(detector, {"changed": 1, "into": "chilly"}, [])
    assert detector.message == ""
    detector._asked(detector, {"changed": 1, "into": "zebra crossing"}, [])
    assert re.fullmatch(
        "“\u2068zebra crossing\u2069” is \\d+ tokens to this model, and one is changed into one; try another word",
        detector.message,
    )
    sentence = "lab holds the model AR, which has no leaky twins; give one with an ARMD"
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        LeakDetector(lab=load("tales_ar"))


def test_where_no_view_can_be_there_is_a_picture_in_words(detector):
    picture = detector._repr_mimebundle_()[0]["text/html"]
    assert "ARMD: 0 leaks; LeakyQuery: 10 leaks; LeakyMask: 10 leaks." in picture


@pytest.mark.parametrize("text", ["🦊 שלום", "$x$ $\\frac$", "x" * 10_000, "<b> <script>"])
def test_any_text_can_be_a_picture(text):
    assert "<img" in LeakDetector(text)._repr_mimebundle_()[0]["text/html"]
