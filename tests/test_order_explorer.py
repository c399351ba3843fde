"""Laws of the order and mask explorer, without a browser: it shows the masks of the package, and a mistake in words."""

import json
import re

import pytest
import torch
from hypothesis import given
from strategies import orders

from armdlab import GenerationOrder
from armdlab.masks import causal_mask, strictly_causal_mask
from armdlab.widgets.order_explorer import MOST_WORDS, REASONS, OrderExplorer, explored
from armdlab.widgets.order_picker import KINDS, Wish, painted_order, relations, words_of

TEXT = "the cat sat on the mat"


@pytest.fixture
def explorer():
    explorer = OrderExplorer(TEXT)
    explorer.sent = []
    explorer.send = explorer.sent.append
    return explorer


def asked(explorer, **content):
    explorer._asked(explorer, {"want": "order", "ask": "a:1", **content}, [])
    return explorer.sent[-1]


@given(orders(max_length=10))
def test_what_is_shown_are_the_masks_of_the_package(order):
    found, state = explored(Wish.of(" ".join("w" * order.length), order.length, order))
    assert found == order
    assert state["causal"] == causal_mask(order, in_text_order=True).int().tolist()
    assert state["strict"] == strictly_causal_mask(order, in_text_order=True).int().tolist()
    assert [state["positions"][rank] for rank in state["ranks"]] == list(range(order.length))
    json.dumps(state)


@given(orders(max_length=10))
def test_the_reason_given_for_a_cell_fits_what_the_mask_says(order):
    allows = {"causal": {"earlier", "together", "itself"}, "strict": {"earlier"}}
    _, state = explored(Wish.of(" ".join("w" * order.length), order.length, order))
    for name, rows in ((name, state[name]) for name in REASONS):
        for row, why in zip(rows, state["relations"], strict=True):
            assert [bool(cell) for cell in row] == [relation in allows[name] for relation in why]


def test_relations_by_hand():
    order = GenerationOrder(positions=[2, 0, 1], blocks=[0, 1, 1])
    assert relations(order) == [
        ["itself", "together", "earlier"],
        ["together", "itself", "earlier"],
        ["later", "later", "itself"],
    ]


@pytest.mark.parametrize(
    ("kind", "number", "wanted"),
    [
        ("left to right", 0, GenerationOrder.left_to_right(6)),
        ("strided", 3, GenerationOrder.strided(6, 3)),
        ("blockwise", 4, GenerationOrder.blockwise(6, 4)),
        ("shuffled", 4, GenerationOrder.shuffled(6, 4, generator=torch.Generator().manual_seed(5))),
        ("random", 0, GenerationOrder.random(6, generator=torch.Generator().manual_seed(5))),
        ("masking", 3, GenerationOrder.masking_process(6, 3, generator=torch.Generator().manual_seed(5))),
        ("painted", 0, GenerationOrder([5, 1, 0, 2, 3, 4], [0, 1, 1, 2, 3, 4])),
    ],
)
def test_every_kind_is_its_constructor(explorer, kind, number, wanted):
    answer = asked(explorer, kind=kind, number=number, seed=5, painted=[[5], [1, 0]])
    assert answer == {"status": "done", "ask": "a:1"}
    assert explorer.order == wanted
    assert explorer.state["wish"]["kind"] == kind
    assert repr(explorer).endswith(f", {kind})")


def test_more_shuffling_with_the_same_seed_goes_on_from_less(explorer):
    """A slider that is drawn moves few words at a time."""
    moved = []
    for count in range(7):
        asked(explorer, kind="shuffled", number=count, seed=3)
        order = explorer.order
        moved.append({p for p in range(6) if order.positions[p] != p})
    assert moved[0] == set()
    assert len(moved[6]) >= 4


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"kind": "strided", "number": 4}, "streams=4 does not divide length=6; try 3 or 6"),
        ({"kind": "strided", "number": 2.5}, "streams=2.5 must be a whole number of at least 1"),
        ({"kind": "strided", "number": ""}, "streams='' must be a whole number of at least 1"),
        ({"kind": "shuffled", "number": 9}, "count=9 positions cannot be shuffled; choose 0 to length=6"),
        ({"kind": "shuffled", "number": 2.5}, "count=2.5 positions cannot be shuffled; choose 0 to length=6"),
        ({"kind": "masking", "number": 0}, "steps=0 must be a whole number of at least 1"),
        ({"kind": "blockwise", "number": -1}, "size=-1 must be a whole number of at least 1"),
        ({"kind": "sorted"}, f"kind='sorted' is no kind of order; choose one of {', '.join(KINDS)}"),
        (
            {"kind": "painted", "painted": [[7]]},
            "position 7 is painted but the text has 6 words; start the painting again",
        ),
        ({"text": "  "}, "the text holds no word; write at least one"),
        ({"text": "a " * 5000}, "the text has 5,000 words and the picture holds 32; shorten it"),
    ],
)
def test_what_cannot_be_is_a_sentence_and_changes_nothing(explorer, content, sentence):
    before = explorer.state
    assert asked(explorer, **content) == {"status": "failed", "ask": "a:1"}
    assert explorer.message == sentence
    assert "Traceback" in explorer.last_error
    assert explorer.state == before
    assert asked(explorer, kind="strided", number=3)["status"] == "done"
    assert explorer.message == ""


@pytest.mark.parametrize("word", ["<script>alert(1)</script>", "🦊", "שלום", "e\u0301\u0301\u0301", "x" * 10_000])
def test_any_word_is_a_word(word):
    assert words_of(f" {word}\n{word} ", MOST_WORDS) == [word, word]
    assert OrderExplorer(f"{word} {word}").state["words"] == [word, word]


def test_it_starts_from_a_given_order_which_must_fit():
    order = GenerationOrder.strided(6, 2)
    explorer = OrderExplorer(TEXT, order)
    assert explorer.order == order
    assert repr(explorer) == "OrderExplorer(6 tokens in 4 steps, up to 2 made together, painted)"
    sentence = "order=GenerationOrder(length=4, n_blocks=4) is not for the 6 words of the text; make one that is"
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        OrderExplorer(TEXT, GenerationOrder.left_to_right(4))


def test_what_is_not_painted_follows_from_left_to_right():
    order = painted_order(5, [[3], [], [1, 4]])
    assert [step.tolist() for step in order.steps()] == [[3], [1, 4], [0], [2]]


def test_where_no_view_can_be_there_is_a_picture_in_words(explorer):
    bundle = explorer._repr_mimebundle_()[0]
    assert "application/vnd.jupyter.widget-view+json" in bundle
    assert bundle["text/html"].startswith('<img src="data:image/png;base64,')
    assert 'alt="Two 6 by 6 matrices in generation order: M^c allows 21 cells, M^sc 15' in bundle["text/html"]
    assert "0x" not in bundle["text/plain"]


@pytest.mark.parametrize("text", ["🦊 שלום", "$x$ $\\frac$", "x" * 10_000, "<b> <script>"])
def test_any_text_can_be_a_picture(text):
    assert "<img" in OrderExplorer(text)._repr_mimebundle_()[0]["text/html"]
