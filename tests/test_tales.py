"""Laws of the tales: exact, reproducible, readable, and every contradiction is found."""

import hashlib
import math
import random
import re
import statistics
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from armdlab import tales
from armdlab.grammar import values
from armdlab.tales import load_grammar, tale_seed

SEED = 2026


@pytest.fixture(scope="module")
def source():
    return load_grammar()


@pytest.fixture(scope="module")
def told(source):
    return [source.sample(tale_seed(SEED, index)) for index in range(5000)]


# ------------------------------------------------------------------------------------ what is in the corpus


def test_the_lists_and_plots_are_as_rich_as_promised(source):
    lists, groups = source.grammar.lists, source.grammar.groups
    assert len(lists["character"].cells["name"]) >= 60
    assert len(lists["thing"].cells["one"]) >= 80
    assert len(lists["place"].cells["place"]) >= 30
    assert len(lists["action"].cells["doing"]) >= 40
    assert {"weather", "season", "time", "day", "colour", "size", "material"} <= set(lists)
    assert len(source.grammar.plots) == 8
    assert all(len(plot.stories) == 3 for plot in source.grammar.plots)
    assert all(rows for _, rows in groups.values())


def test_there_are_more_than_a_million_million_tales(source):
    assert source.count() >= 10**12
    assert source.count() == sum(story.count for _, story in source.grammar.weighted_stories)


def extreme(items, best):
    """The fewest or most spaces that a text of these items can have."""
    total = 0
    for item in items:
        if isinstance(item, str):
            total += item.count(" ")
        elif isinstance(item, values.Slot):
            total += best(form.count(" ") for form in item.forms)
        elif isinstance(item, values.Fork):
            total += best(extreme(option, best) for option in item.options)
    return total


def test_no_tale_can_be_shorter_than_40_or_longer_than_120_words(source):
    for plot in source.grammar.plots:
        for story in plot.stories:
            assert extreme(story.items, min) + 1 >= 40
            assert extreme(story.items, max) + 1 <= 120


def test_tales_read_well(told):
    for tale in told:
        text = tale.text
        assert re.fullmatch(r'["A-Z][A-Za-z \',.:;?!"]+[.?!]"?', text)
        assert "  " not in text
        assert text.count('"') % 2 == 0
        assert not re.search(r"[.?!]\"? \"?[a-z]", re.sub(r'[.?!]" (asked|said|cried|[a-z]+ )', "", text))
        assert not re.search(r"\b[Aa] [aeiou]", text)
        assert not re.search(r"\b[Aa]n [^aeiouh]", text)
        assert not re.search(r"\bone (\w+s|mice|ones)\b", text)


# ---------------------------------------------------------------------------------------------------- exact


def test_reading_recovers_the_derivation_of_every_tale(source, told):
    for tale in told:
        reading = source.read(tale.text)
        assert reading.derivation == tale.derivation
        assert reading.parses
        assert reading.is_consistent
        assert reading.violations == ()
        assert reading.log_prob == tale.log_prob
        assert source.write(reading.derivation) == tale


def test_the_entropy_in_closed_form_agrees_with_a_monte_carlo_estimate(source, told):
    surprises = [-tale.log_prob for tale in told]
    standard_error = statistics.stdev(surprises) / math.sqrt(len(told))
    assert statistics.fmean(surprises) == pytest.approx(source.entropy(), abs=4 * standard_error)


def test_the_entropy_of_each_story_agrees_with_its_own_tales(source, told):
    by_story = {}
    for tale in told:
        _, story, *rest = tale.derivation
        by_story.setdefault(story.text, []).append(-math.fsum(math.log(choice.probability) for choice in rest))
    exact = {story.name: story.entropy for _, story in source.grammar.weighted_stories}
    assert set(by_story) == set(exact)
    for story, surprises in by_story.items():
        error = statistics.stdev(surprises) / math.sqrt(len(surprises)) + 1e-9
        assert statistics.fmean(surprises) == pytest.approx(exact[story], abs=5 * error)


# ---------------------------------------------------------------------------------------------- agreements


def test_every_wrong_mention_is_found_with_its_kind_words_and_distance(source, told):
    """A mention that follows from earlier ones, changed to anything else, is no tale and is reported so."""
    kinds = {}
    for tale in told[:400]:
        for mention in source.read(tale.text).mentions:
            if mention.distance is None:
                continue
            for wrong in sorted(set(mention.options) - {mention.words})[:: max(1, len(mention.options) // 3)]:
                text = tale.text[: mention.start] + wrong + tale.text[mention.end :]
                reading = source.read(text)
                assert reading.parses
                assert not reading.is_consistent
                found = [v for v in reading.violations if v.start == mention.start]
                assert [(v.kind, v.words[1], v.distance) for v in found] == [(mention.kind, wrong, mention.distance)]
                assert f'"{wrong}" should be "{mention.words}"' in found[0].sentence
                kinds.setdefault(mention.kind, []).append(mention.distance)
    assert {"name", "pronoun", "attribute", "owner", "count", "place", "object", "time", "weather"} <= set(kinds)
    for kind in ("pronoun", "attribute", "owner", "count", "place"):
        assert max(kinds[kind]) >= 20


def test_a_changed_first_mention_is_found_or_makes_another_tale(source, told):
    """Where the change is not reported, the text must be derivable: telling its derivation gives it back."""
    derivable = found = 0
    for tale in told[:400]:
        for mention in source.read(tale.text).mentions:
            if mention.distance is not None:
                continue
            for other in mention.options[:: max(1, len(mention.options) // 3)]:
                text = tale.text[: mention.start] + other + tale.text[mention.end :]
                reading = source.read(text)
                assert reading.parses
                assert bool(reading.violations) != reading.is_consistent
                if reading.is_consistent:
                    assert source.write(reading.derivation).text == text
                    derivable += 1
                else:
                    found += 1
    assert min(derivable, found) > 100


def test_a_word_from_nowhere_is_a_departure_from_the_grammar(source, told):
    for tale in told[:300]:
        words = tale.text.split(" ")
        for place in range(0, len(words), 7):
            text = " ".join([*words[:place], "zebra", *words[place:]])
            reading = source.read(text)
            assert not reading.parses
            violation = reading.violations[-1]
            assert (violation.kind, violation.words, violation.start) == (
                "grammar",
                ("zebra",),
                len(" ".join(words[:place])) + (place > 0),
            )


def test_what_was_read_before_the_text_leaves_the_grammar_is_still_judged(source):
    text = source.sample(5).text
    mention = next(m for m in source.read(text).mentions if m.kind == "pronoun")
    wrong = next(form for form in mention.options if form != mention.words)
    broken = text[: mention.start] + wrong + text[mention.end : -10] + "?!"
    assert [violation.kind for violation in source.check(broken)] == ["pronoun", "grammar"]


def test_ownership_moves_with_the_gift(source):
    text = """\
A kind otter named Otto had a big yellow spade. On Thursday he gave it to Luca, who was ill. Luca loved it,
and ten months went by. Just then Luca met Dora, who was new in the village. "You need it more than I do,"
said Luca, and gave away the yellow spade. Dora was so happy that she had to sing. Later Otto asked, "Who
has my big spade now?" "It belongs to {}," said Luca. "How fine!" said Otto. "I gave it away on Thursday,
and it makes us all happy.\"""".replace("\n", " ")
    assert source.check(text.format("Dora")) == []
    (violation,) = source.check(text.format("Luca"))
    assert violation.kind == "owner"
    assert violation.words == ("Dora", "Luca")
    assert violation.distance == 43
    assert violation.sentence == '"Luca" should be "Dora": "Dora" settled thing.owner 43 words before'


def test_a_fact_is_settled_by_the_last_mention_before_it_changed(source):
    text = """\
June and Ben found a heavy brown bag in the cave. "Mine!" called June. "No, mine!" cried Ben, and they pulled
and shouted. Nobody won, and in the end they both wept. After a while June's uncle came to the cave. "You can
share it," he whispered. "June has the bag every Sunday, and Ben has it every Wednesday." On Sunday it stayed
with June. "I am sorry," said Ben softly. On Wednesday June brought the brown bag to {}. "I am sorry too," said
June. From then on the beautiful heavy bag had two homes, and June and Ben were delighted.""".replace("\n", " ")
    assert source.check(text.format("Ben")) == []
    (violation,) = source.check(text.format("June"))
    assert (violation.kind, violation.words, violation.distance) == ("owner", ("Ben", "June"), 10)


# ----------------------------------------------------------------------------------------------- fuzzed text


def well_formed(reading):
    """What holds for the reading of any text whatever."""
    text = reading.text
    assert reading.is_consistent == (not reading.violations)
    assert reading.parses == all(violation.kind != "grammar" for violation in reading.violations)
    for violation in reading.violations:
        assert 0 <= violation.start <= violation.end <= len(text)
        shown = text[violation.start : violation.end]
        assert violation.words[-1] == (shown if len(shown) <= 40 else shown[:37] + "...")
        assert violation.sentence


@given(text=st.text(max_size=300))
def test_any_text_can_be_read(source, text):
    well_formed(source.read(text))


@settings(max_examples=300)
@given(data=st.data())
def test_any_mixture_of_tales_can_be_read(source, told, data):
    pieces = data.draw(st.lists(st.sampled_from(told[:50]), min_size=1, max_size=3))
    text = ""
    for tale in pieces:
        start, end = sorted(data.draw(st.tuples(*[st.integers(0, len(tale.text))] * 2)))
        text += data.draw(st.sampled_from(["", " ", "\n", "  ", "é", "\x00"])) + tale.text[start:end]
    well_formed(source.read(text))


def test_a_megabyte_of_anything_is_read_in_a_moment(source, told):
    rng = random.Random(0)
    vocabulary = " ".join(tale.text for tale in told[:200]).split()
    tale = told[0].text
    begun = time.perf_counter()
    for text in (
        "a" * 10**6,
        " " * 10**6,
        "One " * 250_000,
        tale[:200] + "x" * 10**6,
        tale * (10**6 // len(tale)),
        " ".join(rng.choices(vocabulary, k=180_000)),
        "".join(map(chr, rng.choices(range(1, 0x2000), k=10**6))),
    ):
        well_formed(source.read(text))
    assert time.perf_counter() - begun < 5  # about 0.1 s; a parser of quadratic time would need hours


# ---------------------------------------------------------------------------------------------- reproducible


def test_the_first_thousand_tales_of_a_seed_are_these_and_no_others():
    """An edit of data/tales changes them: then print the new digest, and say in the change that it is new."""
    digest = hashlib.sha256("\n".join(tales.tales(1000, SEED)).encode()).hexdigest()
    assert digest == "cc6a5b9a01aa9268b5e3bdafe7ae7fe05619152bda873d21672b2e9ee9a2a561"


def test_tale_i_does_not_depend_on_how_many_are_drawn(source):
    many = list(tales.tales(20, 3))
    assert list(tales.tales(7, 3)) == many[:7]
    assert many[12] == source.sample(tale_seed(3, 12)).text
    assert list(tales.tales(20, 4)) != many


def test_the_generator_is_splitmix64():
    """The first outputs from state 0 are those of every implementation of SplitMix64."""
    state, outputs = 0, []
    for _ in range(3):
        state = (state + 0x9E3779B97F4A7C15) % 2**64
        outputs.append(tales._mix(state))
    assert outputs == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]


def test_hardly_any_tale_comes_twice(told):
    assert len({tale.text for tale in told}) == len(told)


# ------------------------------------------------------------------------------------------------- the door


def test_the_short_names_speak_of_the_lab_s_own_tales(source):
    tale = tales.sample(1)
    assert tale == source.sample(1)
    assert tales.parse(tale.text) == tale.derivation
    assert tales.log_prob(tale.text) == tale.log_prob == tale.derivation.log_prob
    assert tales.check(tale.text) == []
    assert tales.log_prob("Once upon a time.") == -math.inf
    assert tales.parse("Once upon a time.") is None


def test_a_changed_choice_changes_everything_that_must_agree(source):
    tale = source.sample(11)
    choices = list(tale.derivation)
    hero = next(i for i, choice in enumerate(choices) if choice.name == "hero")
    choices[hero] = choices[hero]._replace(index=(choices[hero].index + 30) % 60)
    other = source.write(choices)
    assert other.text != tale.text
    assert source.check(other.text) == []
    assert choices[hero].text not in other.text.split()


def test_a_grammar_is_read_once_a_folder():
    assert load_grammar() is load_grammar(tales.data_folder())


def test_a_missing_data_folder_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(tales, "__file__", str(tmp_path / "armdlab" / "tales.py"))
    with pytest.raises(FileNotFoundError) as missing:
        load_grammar()
    folder = tmp_path.resolve() / "data" / "tales"
    assert str(missing.value) == f"no tales at {folder}: clone the repository and run `pip install -e .` in it"


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda s: s.sample(-1), "seed=-1 is outside 0 to 2**64 - 1; take seed % 2**64"),
        (lambda s: s.sample(2**64), f"seed={2**64} is outside 0 to 2**64 - 1; take seed % 2**64"),
        (lambda s: tale_seed(0, -1), "index=-1 is negative; tales are counted from 0"),
        (lambda s: list(tales.tales(-1, 0)), "n=-1 is negative; ask for 0 tales or more"),
        (lambda s: next(s.enumerate()), "there are 10^21.6 tales, more than limit=1000000; sample instead"),
        (
            lambda s: s.write([s.sample(0).derivation.choices[0]._replace(index=8)]),
            "choice 0 has index 8, but there are 8 options: 0 to 7",
        ),
    ],
)
def test_a_value_that_makes_no_sense_is_refused(source, call, sentence):
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        call(source)


def test_a_derivation_of_the_wrong_length_is_refused(source):
    choices = source.sample(0).derivation.choices
    for wrong in (choices[:-1], choices + choices[:1]):
        sentence = f"the derivation has {len(wrong)} choices, but this tale has {len(choices)}; parse it anew"
        with pytest.raises(ValueError, match=f"^{sentence}$"):
            source.write(wrong)


def test_what_is_not_a_text_is_refused(source):
    with pytest.raises(TypeError) as refused:
        source.check(b"Once")
    assert str(refused.value) == "text is of type bytes; decode it to a str first"
