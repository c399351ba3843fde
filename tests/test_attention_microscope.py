"""Laws of the attention microscope, without a browser: it sends the model's own weights, and says what cannot be."""

import json

import numpy as np
import pytest
import torch

from armdlab import GenerationOrder, load
from armdlab.attention_maps import attention_maps
from armdlab.masks import strictly_causal_mask
from armdlab.widgets.attention_microscope import MOST_TOKENS, AttentionMicroscope

TEXT = "A cheerful boy called Theo was counting on"


@pytest.fixture(scope="module")
def lab():
    return load("tales")


@pytest.fixture
def microscope(lab):
    microscope = AttentionMicroscope(lab, TEXT, GenerationOrder.strided(8, 2))
    microscope.sent = []
    microscope.send = microscope.sent.append
    return microscope


def asked(microscope, **content):
    microscope._asked(microscope, {"want": "order", "ask": "a:1", **content}, [])
    return microscope.sent[-1]


def unpacked(microscope):
    """As the view reads it: (L, H + 1, N, N)."""
    n = len(microscope.state["words"])
    shape = (len(microscope.state["reads"]), microscope.state["heads"] + 1, n, n)
    return torch.from_numpy(np.frombuffer(microscope.weights, "<f4").reshape(shape).copy())


@pytest.mark.parametrize(("kind", "number"), [("left to right", 0), ("strided", 4), ("masking", 3), ("blockwise", 3)])
def test_what_is_sent_are_the_weights_of_the_model(microscope, lab, kind, number):
    assert asked(microscope, kind=kind, number=number)["status"] == "done"
    tokens = torch.tensor([lab.tokenizer.encode(TEXT)])
    sent = unpacked(microscope)
    for layer, found in zip(sent, attention_maps(lab.model, tokens, microscope.order), strict=True):
        assert torch.equal(layer[1:], found.weights)
        torch.testing.assert_close(layer[0], found.weights.mean(0))


def test_in_text_order_only_what_was_made_earlier_is_read(microscope):
    """By the view's own arithmetic: the column of a token in X is its rank + 1."""
    weights, state = unpacked(microscope)[0, 0], microscope.state
    allowed = strictly_causal_mask(microscope.order, in_text_order=True)
    for target in range(8):
        for position in range(8):
            column = state["ranks"][position] + 1
            share = weights[state["ranks"][target], column] if column < 8 else torch.tensor(0.0)
            assert bool(share > 0) == bool(allowed[target, position]) == bool(state["strict"][target][position])


def test_the_state_says_what_each_layer_reads_and_what_each_step_makes(microscope):
    assert microscope.state["reads"] == ["X", "X", "X", "G", "G", "G"]
    assert microscope.state["steps"] == [[0], [4], [1, 5], [2, 6], [3, 7]]
    assert microscope.state["words"][1] == " cheerful"
    assert repr(microscope) == "AttentionMicroscope(8 tokens in 5 steps, up to 2 made together; 6 layers of 4 heads)"
    json.dumps(microscope.state)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"kind": "strided", "number": 3}, "streams=3 does not divide length=8; try 2 or 4"),
        ({"text": ""}, "the text holds no word; write at least one"),
        ({"text": "A" + " boy" * 499}, f"the text has 500 tokens and the picture holds {MOST_TOKENS}; shorten it"),
    ],
)
def test_what_cannot_be_is_a_sentence_and_changes_nothing(microscope, content, sentence):
    before, weights = microscope.state, microscope.weights
    assert asked(microscope, **content)["status"] == "failed"
    assert microscope.message == sentence
    assert (microscope.state, microscope.weights) == (before, weights)
    assert asked(microscope, kind="random")["status"] == "done"
    assert microscope.message == ""


@pytest.mark.parametrize("text", ["<script>", "🦊", "שלום", "e\u0301\u0301", "x y"])
def test_any_text_comes_back_token_by_token(microscope, text):
    assert asked(microscope, text=text, kind="left to right")["status"] == "done"
    assert "".join(microscope.state["words"]) == text
    assert microscope.state["ranks"] == list(range(len(microscope.state["words"])))
    assert len(unpacked(microscope)[0, 0]) == len(microscope._lab.tokenizer.encode(text))  # a word for each id


def test_only_an_armd_can_be_looked_into():
    with pytest.raises(ValueError, match=r"^model=AR has no stream of targets to look into; give an ARMD$"):
        AttentionMicroscope(load("tales_ar"), TEXT)


def test_where_no_view_can_be_there_is_a_picture_in_words(microscope):
    html = microscope._repr_mimebundle_()[0]["text/html"]
    row = microscope.maps[0].weights.mean(0)[-1]
    most = ["BOS", *(f"“\u2068{microscope.state['words'][p].strip()}\u2069”" for p in microscope.order.positions)]
    said = (
        f"In layer 1 the target made last, “\u2068on\u2069”, reads {most[int(row.argmax())]} most: {row.max():.2f} of"
    )
    assert said in html


def test_a_token_that_is_a_part_of_a_letter_is_named_by_dots(lab):
    """Left to right what is made last is the last of the tokens of the letter, the other way round the first."""
    for order, named in ((GenerationOrder.left_to_right(4), "🦊"), (GenerationOrder([3, 2, 1, 0], range(4)), "…")):
        html = AttentionMicroscope(lab, "🦊", order)._repr_mimebundle_()[0]["text/html"]
        assert f"the target made last, “\u2068{named}\u2069”, reads" in html


@pytest.mark.parametrize("text", ["🦊 שלום", "$x$ $\\frac$", "<b> <script>"])
def test_any_text_can_be_a_picture(text, lab):
    assert "<img" in AttentionMicroscope(lab, text)._repr_mimebundle_()[0]["text/html"]
