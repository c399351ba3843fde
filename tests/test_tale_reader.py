"""Laws of the tale reader: its choices are the derivation, what it marks is what it names, and text stays text."""

import html
import math
import re

import pytest
import torch

from armdlab import tales
from armdlab.checks.tales import broken_tale, nats_of_choices
from armdlab.figures.tales import agreements, costs, surprise
from armdlab.widgets.tale_reader import TaleReader, steps

SEEDS = range(60)


def shown(page):
    """The text that a page shows."""
    return html.unescape(re.sub(r"<[^>]*>", "", page))


@pytest.mark.parametrize("seed", SEEDS)
def test_steps_are_the_derivation_and_their_spans_are_their_words(seed):
    tale = tales.sample(seed)
    found = steps(tale.text)
    assert [step.choice for step in found] == list(tale.derivation)
    assert math.fsum(step.nats for step in found) == pytest.approx(-tale.log_prob)
    n_cast = next(i for i, step in enumerate(found) if ":" in step.choice.name or step.choice.name == "opening")
    for step in found[n_cast:]:
        ((start, stop),) = step.spans
        assert tale.text[start:stop] == step.choice.text
    for step in found:
        assert step.spans  # every choice shows itself somewhere
        assert len(step.options) == len(set(step.options)) > step.choice.index
        if step.spans != ((0, len(tale.text)),) and "<" not in step.options[step.choice.index]:
            assert step.options[step.choice.index].lower() in step.choice.text.lower() or step in found[:n_cast]


def test_steps_of_what_is_no_tale_are_refused():
    sentence = 'the text leaves the grammar at word 1, "Once"; only a tale has a derivation'
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        steps("Once upon a time")


@pytest.fixture(scope="module")
def reader():
    return TaleReader(7)


@pytest.fixture(autouse=True)
def as_told(request):
    if "reader" in request.fixturenames:
        request.getfixturevalue("reader").tell(7)


def test_the_reader_shows_the_tale_and_what_it_costs(reader):
    assert shown(reader.page.value) == tales.sample(7).text
    assert "it costs 51.695 nats" in reader.verdict.value
    assert 'role="status"' in reader.verdict.value
    assert repr(reader) == "TaleReader(seed=7, 27 choices, consistent)"


def test_walking_through_the_choices_marks_their_words_and_says_what_else_there_was(reader):
    reader.choices.index = 12
    assert re.findall(r"<mark[^>]*chosen[^>]*>(.*?)</mark>", reader.page.value) == ["brown", "brown"]
    assert 'colour is "brown", one of 9, with probability 0.1111: 2.197 nats.' in shown(reader.choice.value)
    assert "nats so far" in reader.choices.options[-1]
    assert "51.70 nats so far" in reader.choices.options[-1]


def test_list_and_number_walk_together(reader):
    reader.number.value = 13
    assert reader.choices.index == 12
    assert 'colour is "brown"' in shown(reader.choice.value)
    reader.choices.index = 3
    assert reader.number.value == 4
    reader.number.value = 999
    assert reader.choices.index == len(reader.steps) - 1
    reader.tell(12)
    assert (reader.number.value, reader.number.max) == (1, len(tales.sample(12).derivation))


def test_every_offered_break_is_found_by_check(reader):
    for number, mention in enumerate(reader.mentions):
        reader.mention.index = number
        assert reader.other.index == 0  # never a list with nothing picked
        assert mention.words not in reader.other.options
        for wrong in reader.other.options[:2]:
            reader.other.value = wrong
            reader.break_button.click()
            assert "It parses, but it contradicts itself, so log p = -inf." in reader.verdict.value
            assert f'"{wrong}" should be "{mention.words}"' in shown(reader.verdict.value)
            assert 'role="alert"' in reader.verdict.value
            assert re.findall(r"<mark[^>]*broken[^>]*>(.*?)</mark>", reader.page.value)
            assert repr(reader).endswith("1 violation(s))")
    reader.mend_button.click()
    assert repr(reader) == "TaleReader(seed=7, 27 choices, consistent)"


@pytest.mark.parametrize(
    "text", ["<script>alert(1)</script>", '<img src=x onerror="alert(1)">', "", "&lt;b&gt;", "\u202e\x00", "x" * 10_000]
)
def test_hostile_text_is_shown_as_text(reader, text):
    reader.own.value = text
    reader.check_button.click()
    tags = set(re.findall(r"<(\w+)", reader.page.value + reader.verdict.value))
    assert tags <= {"p", "mark", "b"}
    assert shown(reader.page.value) == (text or "(no text)")
    assert "It does not parse" in reader.verdict.value


def test_a_mistake_becomes_a_sentence_and_the_reader_lives_on(reader):
    reader.tell(-1)
    assert "seed=-1 is outside 0 to 2**64 - 1" in reader.verdict.value
    assert "ValueError" in reader.last_error
    reader.tell(8)
    assert shown(reader.page.value) == tales.sample(8).text


def test_a_fresh_reader_breaks_something_at_the_first_click():
    reader = TaleReader(3)
    reader.break_button.click()
    assert repr(reader).endswith("1 violation(s))")


def test_telling_another_tale_renews_every_control(reader):
    reader.choices.index = 20
    reader.seed.value = 12
    reader.tell_button.click()
    assert reader.choices.index == 0
    assert len(reader.choices.options) == len(tales.sample(12).derivation)
    assert reader.own.value == tales.sample(12).text


def test_pictures_of_a_tale_say_in_words_what_they_show():
    tale = tales.sample(7)
    assert costs(tale.derivation).alt == "Bars for 27 choices that cost 51.70 nats; dearest is thing: trunk, 4.13."
    assert 'the longest spans 72 words, to "Theo"' in agreements(tales.load_grammar().read(tale.text)).alt
    assert "their mean 41.00 stands beside the entropy 42.00" in surprise([40.0, 42.0], 42.0).alt


# ---------------------------------------------------------------------------------------------------- the judges


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        (lambda p: None, "nothing is returned: fill in the stub above"),
        (lambda p: "x", "a number of nats is wanted; yours is 'x'"),
        (lambda p: p[99], "your function stopped with IndexError: list index out of range"),
        (lambda p: sum(map(math.log, p)), "yours is log p, below 0"),
        (lambda p: -sum(map(math.log2, p)), "yours is in bits"),
        (lambda p: -sum(map(math.log10, p)), "yours is in digits"),
        (lambda p: math.prod(p), "yours is the probability itself"),
        (lambda p: -sum(map(math.log, p)) / len(p), "yours is the mean over the choices"),
        (lambda p: -math.log(sum(p)), "yours adds the probabilities"),
        (lambda p: 3.0, "for the 27 choices of tale 7 -log p is 51.6955; yours is 3.0000"),
    ],
)
def test_the_judge_of_nats_names_the_mistake(function, sentence):
    verdict = nats_of_choices(function)
    assert not verdict.passed
    assert sentence in verdict.sentence


def test_the_judge_of_nats_passes_the_right_answer_in_two_forms():
    assert nats_of_choices(lambda p: -sum(map(math.log, p))).passed
    assert nats_of_choices(lambda p: -math.log(math.prod(p))).passed
    assert nats_of_choices(lambda p: -torch.tensor(p).log().sum()).passed


def another_tale(_):
    return tales.sample(8).text.replace("The yellow doll was", "The yellow kite was")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda t: t, "the tale is as it was told; change one word of it"),
        (lambda t: t + " Yes.", 'the text leaves the grammar at word 93, "Yes."; change a word into another'),
        (lambda t: t.replace("cheerful", "gentle"), "this is another tale, and all of it agrees"),
        (lambda t: t.replace("the brown trunk", "the green trunk"), "of kind attribute, not object"),
        (lambda t: t.replace("the brown trunk", "the green kite"), "2 agreements are broken; break one"),
        (lambda t: re.sub(r"\btrunk\b", "book", t), "and no other word says so; leave the first mention as it was"),
        (lambda t: t.replace("leather trunk", "leather kite"), "words apart; break one over 40 or more"),
        (another_tale, "your text is another one than tale 7; change a word or two of that and no more"),
    ],
)
def test_the_judge_of_breaks_says_what_is_missing(change, sentence):
    verdict = broken_tale(change(tales.sample(7).text), 7, kind="object", at_least=40)
    assert not verdict.passed
    assert sentence in verdict.sentence


def test_the_judge_of_breaks_passes_a_far_wrong_object():
    text = tales.sample(7).text.replace("the brown trunk", "the brown kite")
    verdict = broken_tale(text, 7, kind="object", at_least=40)
    assert verdict.passed
    assert 'check finds it, 52 words after what settled it: "kite" should be "trunk"' in verdict.sentence


def test_where_no_view_can_be_it_leaves_a_picture_with_words():
    bundle = TaleReader(7)._repr_mimebundle_()
    assert bundle["text/plain"] == "TaleReader(seed=7, 27 choices, consistent)"
    assert 'alt="Arcs over 9' in bundle["text/html"]
    assert "application/vnd.jupyter.widget-view+json" in bundle
