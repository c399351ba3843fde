"""Laws of lesson 08: its judges name the mistake, its tables are read as they were written, its questions are true."""

import json
import math
from collections import Counter

import pytest
import torch

from armdlab.checkpoints import to_json
from armdlab.checks import tables as table_checks
from armdlab.figures import Picture
from armdlab.figures import tables as table_figures
from armdlab.tables import Cell, Line, Table, recorded


def mean(values):
    return sum(values) / len(values)


def right_perplexity(texts):
    return math.exp(sum(map(sum, texts)) / sum(map(len, texts)))


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        (lambda texts: None, "nothing is returned: fill in the stub above"),
        (lambda texts: texts[9], "your function stopped with IndexError"),
        (lambda texts: texts, "return one number; yours is [[0.5, 0.1], [2.0]"),
        (lambda texts: math.exp(mean([mean(t) for t in texts])), "you take the mean of the texts' means, so a text of"),
        (lambda texts: mean([math.exp(mean(t)) for t in texts]), "you take the mean of the texts' perplexities; exp"),
        (lambda texts: mean([math.exp(x) for t in texts for x in t]), "you take exp of each token's nats, then the"),
        (lambda texts: 2 ** math.log(right_perplexity(texts)), "you take 2 to the power of nats"),
        (lambda texts: math.exp(sum(map(sum, texts))), "you do not divide by the number of tokens"),
        (lambda texts: math.log(right_perplexity(texts)), "that is nats a token; perplexity is exp of it"),
        (lambda texts: 1 / right_perplexity(texts), "your sign is turned"),
        (lambda texts: math.exp(sum(map(sum, texts)) / len(texts)), "you divide by the 3 texts; divide by their 9"),
        (lambda texts: 3.0, "the perplexity of these texts is 1.5770; yours is 3.0000"),
    ],
)
def test_judge_of_perplexity_names_the_mistake(function, sentence):
    verdict = table_checks.perplexity(function)
    assert not verdict.passed
    assert sentence in verdict.sentence


def test_judge_of_perplexity_passes_a_loop_and_a_tensor():
    assert table_checks.perplexity(right_perplexity).passed
    assert table_checks.perplexity(
        lambda texts: torch.tensor([x for text in texts for x in text]).double().mean().exp()
    ).passed


def nats_of(sample):
    return -sum(n / len(sample) * math.log(n / len(sample)) for n in Counter(sample).values())


def right_entropy(samples):
    nats = mean([nats_of(sample) for sample in samples])
    return nats, nats / math.log(2)


def by_length(samples):
    nats = sum(len(sample) * nats_of(sample) for sample in samples) / sum(map(len, samples))
    return nats, nats / math.log(2)


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        (lambda samples: None, "nothing is returned"),
        (lambda samples: 1.0, "return two numbers, entropy in nats and in bits; yours is 1.0"),
        (lambda samples: (1.0, 2.0, 3.0), "return two numbers"),
        (lambda samples: right_entropy(samples)[::-1], "your two numbers are swapped: a bit is less than a nat"),
        (
            lambda samples: (right_entropy(samples)[0], right_entropy(samples)[0] * math.log(2)),
            "you multiply by ln 2; a bit is 0.693 nats, so divide",
        ),
        (
            lambda samples: right_entropy([[token for sample in samples for token in sample]]),
            "you count the tokens of all samples together; a model that writes one word a sample would look rich",
        ),
        (lambda samples: (right_entropy(samples)[1], right_entropy(samples)[1]), "your first number is in bits"),
        (lambda samples: tuple(-x for x in right_entropy(samples)), "your entropy is negative"),
        (lambda samples: tuple(3 * x for x in right_entropy(samples)), "you sum over the samples; take their mean"),
        (by_length, "you weight samples by their length; each sample counts once"),
        (lambda samples: (0.5, 0.5), "the samples have 0.6307 nats and 0.9099 bits; yours are 0.5000 and 0.5000"),
    ],
)
def test_judge_of_entropy_names_the_mistake(function, sentence):
    verdict = table_checks.entropy_of_samples(function)
    assert not verdict.passed
    assert sentence in verdict.sentence


def test_judge_of_entropy_passes_the_right_answer():
    assert table_checks.entropy_of_samples(right_entropy).passed
    assert table_checks.entropy_of_samples(lambda s: torch.tensor(right_entropy(s), dtype=torch.float64)).passed


def test_the_judges_inputs_tell_all_mistakes_apart():
    """Two mistakes that gave one number would be given one name."""
    texts = table_checks.TEXTS
    means = [mean(text) for text in texts]
    ways = [
        right_perplexity(texts),
        math.exp(mean(means)),
        mean([math.exp(m) for m in means]),
        mean([math.exp(x) for text in texts for x in text]),
    ]
    assert all(abs(a - b) > 0.05 for i, a in enumerate(ways) for b in ways[:i])


# ------------------------------------------------------------------------------------------------ recorded tables

TABLE = Table(
    "a title",
    (
        Line("AR", {"held out": Cell(20.0, 0.5, ("exact, left to right",), " (7.00 bits)", "rows")}, "22.83"),
        Line("MDLM <b>", {"held out": Cell(30.0, math.nan, ("bound", "of 2"))}),
    ),
    "AR",
    {"ar_0": [{"step": 1, "seconds": 0.5, "nats_per_token": 3.0}]},
)


def test_a_table_is_read_as_it_was_written():
    found = Table.from_json(json.loads(to_json(TABLE.as_json())))
    assert str(found) == str(TABLE)
    assert found.curves == TABLE.curves
    assert math.isnan(found.lines[1].cells["held out"].error)
    assert found.ratio(found.lines[1], "held out") == 1.5


def test_a_table_of_before_says_seeds_where_there_were_several_and_nothing_where_it_cannot_know():
    written = json.loads(to_json(TABLE.as_json()))
    for line in written["lines"]:
        for cell in line["cells"].values():
            del cell["over"]
    found = [line.cells["held out"].over for line in Table.from_json(written).lines]
    assert found == ["", "2 seeds"]


def test_bars_say_what_whiskers_are_over_and_do_without_an_error(monkeypatch):
    monkeypatch.setattr(Picture, "of", lambda figure, alt: (figure, alt))
    figure, alt = table_figures.bars(TABLE)
    (axes,) = figure.axes
    assert axes.get_xlabel().endswith("whiskers are one standard error, over rows)")
    assert all(math.isfinite(text.xy[0]) for text in axes.texts)
    assert "MDLM <b>, held out: 30.00" in alt


@pytest.mark.parametrize("torn", [{}, {"title": "t", "lines": [{}]}, {"lines": 3, "title": "", "reference": ""}])
def test_what_is_no_table_is_refused_in_words(torn):
    with pytest.raises(ValueError, match=r"^this is no table of `armdlab reproduce`: .*; write it anew$"):
        Table.from_json(torn)


def test_a_table_that_is_not_shipped_is_named():
    with pytest.raises(ValueError, match=r"^name='table9' is no table that the lab ships \(table1, table2, table3\)"):
        recorded("table9")


@pytest.mark.parametrize("name", ["table1", "table2", "table3"])
def test_shipped_tables_have_a_reference_and_a_condition_for_each_figure(name):
    table = recorded(name)
    assert table.title.startswith(f"Table {name[-1]}, ")
    assert table.reference in [line.name for line in table.lines]
    for line in table.lines:
        for cell in line.cells.values():
            assert cell.value > 1
            assert cell.conditions
            assert all(("nats" in said and "rows of" in said) or "scored while" in said for said in cell.conditions)


def test_a_notebook_shows_a_table_with_its_conditions_folded_and_no_tag_of_its_own():
    shown = TABLE._repr_markdown_()
    assert "|  | held out | the paper |\n| --- | --- | --- |" in shown
    assert "20.00 +- 0.50 (rows) 1.000 x (7.00 bits)" in shown
    assert "<details><summary>Conditions of every figure</summary>" in shown
    assert "<b>" not in shown


def test_the_front_draws_who_is_beaten_by_nobody():
    ways = {"slow and good": (0.9, 2.0), "fast and poor": (0.2, 0.1), "slow and poor": (0.1, 3.0)}
    assert table_figures.unbeaten(ways) == ["fast and poor", "slow and good"]
    assert table_figures.unbeaten({"AR": (0.5, 3.0), "equal and slower": (0.5, 4.0)}) == ["AR"]
    picture = table_figures.front(ways, title="a front", y="share", errors={"slow and good": 0.05})
    assert "slow and poor" in picture.alt
    assert picture.png.startswith(b"\x89PNG")
