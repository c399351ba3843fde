"""Laws of rows: whole texts stay whole, and the chances of all texts sum to 1, whatever padding was made."""

import itertools
import math
import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from armdlab import ARMD, ARMDConfig, GenerationOrder
from armdlab.objectives import nll
from armdlab.rows import Rows
from armdlab.sampling import seeded
from armdlab.tokenization import Tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(["the cat sat on the mat"] * 5, vocab_size=262)


def documents(rows):
    """What a reader of the rows finds: text up to each end; padding is dropped."""
    found = []
    for batch in rows.batches(3):
        for row, is_text in zip(batch, rows.is_text(batch), strict=True):
            pending = []
            for token in row[is_text].tolist():
                if token == rows.end_of_text:
                    found.append(pending)
                    pending = []
                else:
                    pending.append(token)
            assert not pending
    return found


@given(
    texts=st.lists(st.text(min_size=1, max_size=7), min_size=1, max_size=12),
    layout=st.sampled_from(("padded", "packed")),
)
def test_rows_hold_every_text_once_whole_and_in_order(tokenizer, texts, layout):
    rows = Rows.encode(texts, tokenizer, 32, layout)
    assert documents(rows) == [tokenizer.encode(text) for text in texts]
    assert (rows.n_documents, rows.n_characters) == (len(texts), sum(map(len, texts)))
    assert sum(int(rows.is_text(batch).sum()) for batch in rows.batches(5)) == len(rows.ids)
    if layout == "padded":
        assert len(rows) == len(texts)
    else:  # no text would have fitted into the row before its own
        firsts = [rows.ids[start:].tolist().index(rows.end_of_text) + 1 for start in rows.bounds[1:-1].tolist()]
        assert all(size + first > 32 for size, first in zip(rows.bounds.diff().tolist(), firsts, strict=False))


def test_a_text_that_fills_its_row_fits_and_one_token_more_does_not(tokenizer):
    assert len(Rows.encode(["abcdefg"], tokenizer, 8)) == 1
    sentence = "the text 'abcdefgh' has 9 tokens with its end, and a row has length=8; take a length of 9 or more"
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        Rows.encode(["abcdefgh"], tokenizer, 8)


def test_drawn_rows_are_whole_and_depend_on_the_generator_alone(tokenizer):
    rows = Rows.encode(["a", "bb", "ccc", "dddd"], tokenizer, 8)
    drawn = rows.windows(8, 50, seeded(1))
    assert torch.equal(drawn, rows.windows(8, 50, seeded(1)))
    assert {tuple(row) for row in drawn.tolist()} == {tuple(row) for row in rows.pad(torch.arange(4)).tolist()}


# ------------------------------------------------------------------- who pays: the law, by enumeration

A, B, END = 0, 1, 2
LENGTH = 4
EVERYTHING = torch.tensor(list(itertools.product((A, B, END), repeat=LENGTH)))


def tiny(seed=5):
    """A model of two letters and an end; and rows that only lend their methods."""
    torch.manual_seed(seed)
    model = ARMD(ARMDConfig(3, LENGTH, n_layer=2, n_head=2, d_model=16)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return model, Rows(torch.tensor([A, END]), torch.tensor([0, 2]), LENGTH, "padded", END, 1, 1)


ORDERS = [
    GenerationOrder.left_to_right(LENGTH),
    GenerationOrder.strided(LENGTH, 2),
    GenerationOrder.strided(LENGTH, 4),
    GenerationOrder.blockwise(LENGTH, 2),
    GenerationOrder([3, 1, 0, 2], [0, 1, 2, 3]),
    GenerationOrder([2, 0, 3, 1], [0, 1, 1, 2]),
]


def text_of(row):
    """What a reader keeps: everything up to the first end, or a row that never ends."""
    return tuple(row[: row.index(END)]) if END in row else tuple(row)


def chances(order):
    """Text -> chance that decoding makes it, by enumeration of all rows; and text -> the chance that is paid for."""
    model, rows = tiny()
    with torch.no_grad():
        nats = nll(model, EVERYTHING, order, "none").double()
    costs = (nats * rows.is_paid(EVERYTHING, order)).sum(-1)
    made, paid = {}, {}
    for row, row_nats, cost in zip(EVERYTHING.tolist(), nats.sum(-1).tolist(), costs.tolist(), strict=True):
        text = text_of(row)
        made[text] = made.get(text, 0.0) + math.exp(-row_nats)
        if row == [*text, *[END] * LENGTH][:LENGTH]:
            paid[text] = math.exp(-cost)
    return made, paid


@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_what_is_paid_for_a_text_is_never_less_than_its_true_cost(order):
    made, paid = chances(order)
    assert made.keys() == paid.keys()
    assert sum(made.values()) == pytest.approx(1, abs=1e-5)
    assert all(paid[text] <= made[text] * (1 + 1e-5) for text in made)


def test_left_to_right_the_price_of_a_text_is_exact_and_padding_costs_nothing():
    made, paid = chances(ORDERS[0])
    assert paid == pytest.approx(made, rel=1e-5)


@pytest.mark.parametrize("order", [ORDERS[1], *ORDERS[4:]], ids=str)
def test_were_padding_free_the_chances_of_all_texts_could_sum_to_more_than_one(order):
    """The mutant that this law is there for: scoring the text alone flatters a model under strided orders."""
    canonical = [row for row in EVERYTHING.tolist() if row == [*text_of(row), *[END] * LENGTH][:LENGTH]]
    canonical, sums = torch.tensor(canonical), []
    for seed in range(8):
        model, rows = tiny(seed=seed)
        with torch.no_grad():
            nats = nll(model, canonical, order, "none").double()
        counts = rows.is_text(canonical), rows.is_paid(canonical, order)
        sums.append([float(torch.exp(-(nats * counted).sum(-1)).sum()) for counted in counts])
    free, paid = (max(column) for column in zip(*sums, strict=True))
    assert free > 1.005
    assert paid <= 1


def test_padding_is_paid_for_where_text_made_later_saw_it_and_nowhere_else():
    _, rows = tiny()
    tokens = torch.tensor([[A, END, END, END], [A, B, A, END]])
    assert rows.is_text(tokens).tolist() == [[True, True, False, False], [True] * 4]
    left, strided = (rows.is_paid(tokens, order) for order in ORDERS[:2])
    assert torch.equal(left, rows.is_text(tokens))
    # heads 0 and 2 one by one, then 1 with 3: the head at 2 is seen by the end at 1; 3 is made together with it
    assert strided.tolist() == [[True, True, True, False], [True] * 4]


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (
            lambda t: Rows.encode(["a"], t, 8, "folded"),
            "layout='folded' is unknown; choose padded (a text a row) or packed (as many as fit)",
        ),
        (lambda t: Rows.encode([], t, 8), "there is no text to lay into rows; give at least one document"),
        (lambda t: Rows.encode(["a", ""], t, 8), "a document is empty, which no row can show; leave it out"),
        (
            lambda t: Rows.encode(["a"], t, 8).windows(16, 1, seeded(0)),
            "length=16 is asked for, but the rows were laid out for 8; lay them anew",
        ),
    ],
)
def test_bad_input_is_refused_with_a_sentence(tokenizer, call, sentence):
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        call(tokenizer)
