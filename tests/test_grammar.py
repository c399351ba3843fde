"""Laws of the grammar format: what is read is a prefix code, what is wrong is refused where it stands."""

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from armdlab.grammar import GrammarError, read
from armdlab.tales import TaleGrammar

LISTS = """\
list person
  name (name) | he (pronoun) | his (pronoun)
  Ann         | she          | her
  Bob         | he           | his
  Cy          | he           | his
  Dee         | she          | her

list colour
  colour (attribute) | tags
  red                | warm
  orange             | warm
  blue               | -

# an owl takes another article
list toy
  toy (object) | many (object) | colours -> colour
  kite         | kites         | warm blue
  owl          | owls          | blue

list number
  number (count) | value | tags
  one            | 1     | few
  two            | 2     | few
  three          | 3     | many
  four           | 4     | many
"""
RULES = """\
rule glad
  1/2  happy
  1/3  merry
  1/6  as <how> as can be

rule how
  wild
  proud
"""
STORIES = """\
plot gift 2/3

story given
cast
  hero   from person
  friend from person, not hero.he
  third  from person, not hero, not friend
  toy    from toy
  colour from toy.colours
text
  {hero} gave {friend} {a colour} {toy}.
  {toy.owner = friend}
  {friend.He} was <glad>, and {hero} [went home|left].
  {toy.owner} gave it to {third}.
  {toy.owner = third}
  So the {colour} {toy} was {toy.owner}'s.

plot count 1/3

story kept 0.75
cast
  hero  from person
  toy   from toy
  start from many
  gone  from few
  left  is start - gone
text
  Once {hero} had {start} {toy.many} and lost {gone}. {hero.He} kept {left}.

story still 1/4
cast
  hero from person
text
  Nothing happened to {hero} but [rain|snow [at night|by day]].
"""
FILES = {"a_lists.txt": LISTS, "b_rules.txt": RULES, "c_stories.txt": STORIES}


def written(folder, **changes):
    """The small grammar in a folder, with (old, new) replaced in a file."""
    for name, text in FILES.items():
        old, new = changes.get(name[0], ("", ""))
        assert old in text
        (folder / name).write_text(text.replace(old, new, 1), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return TaleGrammar(read(written(tmp_path_factory.mktemp("small"))))


@pytest.fixture(scope="module")
def all_tales(small):
    return list(small.enumerate())


# ------------------------------------------------------------------------------------- exact by enumeration


def test_the_probabilities_of_all_tales_sum_to_exactly_one(all_tales):
    def exact(tale):
        return math.prod(Fraction(choice.probability).limit_denominator(1000) for choice in tale.derivation)

    assert sum(map(exact, all_tales)) == 1
    assert math.fsum(math.exp(tale.log_prob) for tale in all_tales) == pytest.approx(1, abs=1e-12)


def test_the_count_is_the_number_of_distinct_texts(small, all_tales):
    assert small.count() == len(all_tales) == len({tale.text for tale in all_tales})


def test_the_entropy_in_closed_form_is_the_sum_over_all_tales(small, all_tales):
    by_hand = -math.fsum(math.exp(tale.log_prob) * tale.log_prob for tale in all_tales)
    assert small.entropy() == pytest.approx(by_hand, abs=1e-12)


def test_every_tale_is_read_back_as_it_was_told(small, all_tales):
    for tale in all_tales:
        assert small.parse(tale.text) == tale.derivation
        assert small.log_prob(tale.text) == tale.log_prob
        assert small.write(tale.derivation) == tale


def test_a_text_with_any_mention_changed_is_valid_only_if_it_is_one_of_all_tales(small, all_tales):
    language = {tale.text for tale in all_tales}
    changed = 0
    for tale in all_tales[::7]:
        for mention in small.read(tale.text).mentions:
            for other in mention.options:
                text = tale.text[: mention.start] + other + tale.text[mention.end :]
                reading = small.read(text)
                assert reading.parses
                assert reading.is_consistent == (text in language) == (not reading.violations)
                changed += text not in language
    assert changed > 1500


@given(data=st.data())
def test_any_edited_text_is_valid_only_if_it_is_one_of_all_tales(small, all_tales, data):
    tale = data.draw(st.sampled_from(all_tales)).text
    other = data.draw(st.sampled_from(all_tales)).text
    cut, paste = data.draw(st.integers(0, len(tale))), data.draw(st.integers(0, len(other)))
    text = tale[:cut] + data.draw(st.sampled_from(["", " ", "x", "Ann", "he"])) + other[paste:]
    assert (small.parse(text) is not None) == (text in {tale.text for tale in all_tales})


def test_sampling_follows_the_probabilities(small, all_tales):
    n = 20_000
    told = [small.sample(seed).text for seed in range(n)]
    for word in ("Once", "merry", "as proud as", "owl"):
        p = math.fsum(math.exp(tale.log_prob) for tale in all_tales if word in tale.text)
        assert sum(word in text for text in told) == pytest.approx(n * p, abs=4 * math.sqrt(n * p * (1 - p)))


def test_of_two_options_that_begin_with_the_same_letters_the_right_one_is_read(tmp_path):
    small = TaleGrammar(read(written(tmp_path, c=("[went home|left]", "[saw a cat|saw a catfish]"))))
    for tale in small.enumerate():
        assert small.parse(tale.text) == tale.derivation


def test_a_violation_says_what_settled_the_fact_and_how_far_away(small):
    text = "Ann gave Bob an orange kite. She was merry, and Ann left. Bob gave it to Cy."
    text += " So the red kite was Bob's."
    found = [(v.kind, v.words, v.distance, v.sentence) for v in small.check(text)]
    assert found == [
        ("pronoun", ("Bob", "She"), 4, '"She" should be "He": "Bob" settled friend 4 words before'),
        (
            "attribute",
            ("an orange", "red"),
            16,
            '"red" should be "orange": "an orange" settled colour 16 words before',
        ),
        ("owner", ("Cy", "Bob"), 6, '"Bob" should be "Cy": "Cy" settled toy.owner 6 words before'),
    ]


def test_someone_who_could_not_be_drawn_is_a_violation(small):
    text = "Ann gave Ann an orange owl. She was happy, and Ann left. Ann gave it to Cy."
    text += " So the orange owl was Cy's."
    found = [(v.kind, v.words, v.distance, v.sentence) for v in small.check(text)]
    assert found == [
        ("name", ("Ann", "Ann"), 2, '"Ann" cannot be the friend here, given "Ann"'),
        ("attribute", ("owl", "an orange"), 2, '"an orange" cannot be the colour here, given "owl"'),
    ]


@pytest.mark.parametrize(
    ("text", "words", "sentence"),
    [
        ("", "", "the text is empty"),
        ("Ann gave Bob", "Bob", "the text stops before its tale ends"),
        ("Nothing happened to Ann but rain. And", "And", 'the text leaves the grammar at word 7, "And"'),
        ("Nothing happened to Ann but rain.\n", "", 'the text leaves the grammar at word 6, ""'),
        ("Nothing happened to Anna but rain.", "Anna", 'the text leaves the grammar at word 4, "Anna"'),
        ("Nothing happens to Ann", "happens", 'the text leaves the grammar at word 2, "happens"'),
        ("hello", "hello", 'the text leaves the grammar at word 1, "hello"'),
    ],
)
def test_a_text_that_no_story_tells_is_refused_at_its_first_wrong_word(small, text, words, sentence):
    violation = small.check(text)[-1]
    assert (violation.kind, violation.words, violation.sentence) == ("grammar", (words,), sentence)
    assert violation.distance is None
    assert not small.read(text).parses
    assert small.log_prob(text) == -math.inf


def test_a_long_tale_is_read_in_one_pass(tmp_path):
    """A text of 14,000 words in the language: far beyond what a reader that goes back could read."""
    line = "  [It rained|It snowed] on {hero}, and {hero.he} sang.\n"
    written(
        tmp_path,
        c=(
            "  Nothing happened to {hero} but [rain|snow [at night|by day]].\n",
            "  Nothing.\n" + 2_000 * line,
        ),
    )
    small = TaleGrammar(read(tmp_path))
    story = small.grammar.plots[1].stories[1]
    tale = next(tale for seed in range(100) if (tale := small.sample(seed)).derivation.choices[1].text == story.name)
    assert len(tale.text.split()) > 14_000
    assert small.parse(tale.text) == tale.derivation


# ------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        # unknown symbols
        ({"b": ("<how>", "<why>")}, "b_rules.txt, line 4: unknown symbol <why>: no rule has this name"),
        ({"c": ("<glad>", "<sad>")}, "c_stories.txt, line 13: unknown symbol <sad>: no rule has this name"),
        (
            {"c": ("{friend.He}", "{freind.He}")},
            "c_stories.txt, line 13: unknown symbol 'freind': the cast of story given is"
            " hero, friend, third, toy, colour",
        ),
        (
            {"c": ("{friend.He}", "{friend.Hers}")},
            "c_stories.txt, line 13: unknown symbol {friend.Hers}: friend has name, he, his",
        ),
        (
            {"c": ("{toy.owner} gave", "{toy.ownr} gave")},
            "c_stories.txt, line 14: unknown symbol {toy.ownr}: toy has toy, many, owner",
        ),
        (
            {"c": ("hero   from person", "hero   from people")},
            "c_stories.txt, line 5: unknown symbol 'people': no list and no tag has this name",
        ),
        (
            {"c": ("colour from toy.colours", "colour from toy.sizes")},
            "c_stories.txt, line 9: unknown symbol toy.sizes: list toy has no such column of choices",
        ),
        (
            {"c": ("not hero.he", "not hero.age")},
            "c_stories.txt, line 6: unknown symbol hero.age: list person has no such column",
        ),
        (
            {"a": ("warm blue", "warm bleu")},
            "a_lists.txt, line 17: unknown symbol 'bleu': list colour has no such entry and no such tag",
        ),
        (
            {"a": ("-> colour", "-> paint")},
            "a_lists.txt, line 15: column colours points to list paint, which does not exist",
        ),
        # cycles
        (
            {"b": ("  wild", "  <glad>")},
            "b_rules.txt, line 7: a cycle: glad > how > glad; such a tale would never end",
        ),
        (
            {"b": ("happy", "<glad>")},
            "b_rules.txt, line 2: a cycle: glad > glad; such a tale would never end",
        ),
        # probabilities
        (
            {"b": ("1/6", "1/5")},
            "b_rules.txt, line 1: the probabilities of rule glad sum to 31/30, not 1; change one of them",
        ),
        (
            {"c": ("2/3", "1/2")},
            "c_stories.txt, line 1: the probabilities of the plots sum to 5/6, not 1; change one of them",
        ),
        (
            {"c": ("0.75", "0.7")},
            "c_stories.txt, line 18: the probabilities of the stories of count sum to 19/20, not 1; change one of them",
        ),
        (
            {"b": ("1/3  merry", "merry")},
            "b_rules.txt, line 3: an option of rule glad has no probability although others have;"
            " give it to all or to none",
        ),
        (
            {"c": ("0.75", "0")},
            "c_stories.txt, line 20: '0' is not a probability; write 1/3 or 0.25, more than 0",
        ),
        (
            {"c": ("0.75", "1/0")},
            "c_stories.txt, line 20: '1/0' is not a probability; write 1/3 or 0.25, more than 0",
        ),
        (
            {"b": ("rule how", "rule how 1/2")},
            "b_rules.txt, line 6: '1/2' follows the name of a rule; only plots and stories have a probability there",
        ),
        # two derivations of one text
        (
            {"b": ("  proud", "  wild")},
            "b_rules.txt, line 8: two derivations may give one text: 'wild' is all that option 1"
            " (b_rules.txt, line 7) says, and option 2 can begin with it; change a word",
        ),
        (
            {"c": ("[went home|left]", "[left|left early]")},
            "c_stories.txt, line 13: two derivations may give one text: 'left' is all that option 1 says,"
            " and option 2 can begin with it; change a word",
        ),
        (
            {"c": ("[went home|left]", "[saw {friend}|saw {third}]")},
            "c_stories.txt, line 13: two derivations may give one text: 'saw Ann' is all that option 1 says,"
            " and option 2 can begin with it; change a word",
        ),
        (
            {
                "c": (
                    "Nothing happened to {hero} but [rain|snow [at night|by day]].",
                    "Once {hero} had two kites and lost one. {hero.He} kept one.",
                )
            },
            "c_stories.txt, line 30: two derivations may give one text: 'Once Ann had two kites and lost one."
            " She kept one.' is all that story kept (c_stories.txt, line 20) says,"
            " and story still can begin with it; change a word",
        ),
        (
            {"a": ("Bob ", "Ann ")},
            "a_lists.txt, line 4: two derivations of one text: list person has 'Ann' also on line 3",
        ),
        (
            {"a": ("Cy  ", "Ann B")},
            "c_stories.txt, line 11: two derivations may give one text: in list person 'Ann'"
            " begins 'Ann B'; rename one",
        ),
        (
            {"a": ("warm blue", "warm red")},
            "a_lists.txt, line 17: two derivations of one text: 'warm red' names an entry of list colour twice",
        ),
        (
            {"c": ("Nothing happened to {hero} but [rain|", "Nothing happened but [rain on {hero}|")},
            "c_stories.txt, line 32: hero is drawn, but not every wording of the text names it,"
            " so it cannot be read back",
        ),
        # draws and sums that cannot be
        (
            {
                "a": ("Dee         | she          | her\n", "Dee | he | his\n"),
                "c": ("not hero, not friend", "not hero.he, not friend.he"),
            },
            "c_stories.txt, line 7: nothing is left to draw for third; widen the list, or exclude less",
        ),
        (
            {"c": ("start - gone", "gone - start")},
            "c_stories.txt, line 26: left can be 1 - 3, which list number does not have",
        ),
        (
            {"c": ("start - gone", "start - hero")},
            "c_stories.txt, line 26: 'left  is start - hero' needs numbers from one list that has a column value",
        ),
        (
            {"c": ("not hero, not friend", "not hero, not hat")},
            "c_stories.txt, line 7: unknown symbol 'hat': the cast of story given is hero, friend",
        ),
        (
            {"c": ("toy    from toy", "toy    from toy, not hero")},
            "c_stories.txt, line 8: hero is not drawn from list toy, so `not hero` says nothing",
        ),
        # what is written
        ({"c": ("[went home|left]", "[went home|left")}, "c_stories.txt, line 13: a [ has no ] on this line"),
        (
            {"c": ("[went home|left]", "went home|left")},
            "c_stories.txt, line 13: a | stands outside [ ]; a choice is written [one|other]",
        ),
        (
            {"c": ("[went home|left]", "[went home|]")},
            "c_stories.txt, line 13: a choice needs two options or more, and none may be empty: [one|other]",
        ),
        ({"c": ("{a colour}", "{a colour")}, "c_stories.txt, line 11: a { has no partner on this line"),
        (
            {"c": ("{a colour}", "{the big colour}")},
            "c_stories.txt, line 11: {the big colour} is no slot; write {hero}, {hero.he}, {a kite}"
            " or {kite.owner = hero}",
        ),
        (
            {"c": ("{toy}.", "{toy}s.")},
            "c_stories.txt, line 11: toy is glued to a letter; put a space or a mark between them",
        ),
        (
            {"c": ("[went home|left]", "[{toy.owner = hero}went|left]")},
            "c_stories.txt, line 13: a fact changes inside a choice; put it on a line of its"
            " own in the text of the story",
        ),
        (
            {"c": ("{toy.owner = friend}", "{toy.many = friend}")},
            "c_stories.txt, line 12: toy.many is a column of list toy; name the fact otherwise",
        ),
        (
            {"c": ("hero   from person", "hero of person")},
            "c_stories.txt, line 5: 'hero of person' is not a cast line; write `name from"
            " list`, `, not other`,"
            " or `name is a - b`",
        ),
        (
            {"c": ("third  from", "hero  from")},
            "c_stories.txt, line 7: the name hero is taken; choose another one",
        ),
        # lists, rules and headings
        (
            {"a": ("  Bob         | he ", "  Bob        ")},
            "a_lists.txt, line 4: 2 cells for the 3 columns name, he, his",
        ),
        (
            {"a": ("he (pronoun)", "he is")},
            "a_lists.txt, line 2: 'he is' is not a new column; write name, name (agreement), or name -> list",
        ),
        (
            {"a": ("| 4  ", "| iv ")},
            "a_lists.txt, line 25: 'iv' is not a whole number; the column value holds digits",
        ),
        (
            {"a": ("Cy  ", "Cy! ")},
            "a_lists.txt, line 5: 'Cy!' cannot be written; a word begins and ends with a letter",
        ),
        (
            {"a": ("| warm\n  orange", "| toy\n  orange")},
            "a_lists.txt, line 15: the name toy is taken; choose another one for this list",
        ),
        (
            {"a": ("| few\n  two", "| warm\n  two")},
            "a_lists.txt, line 22: the tag warm is also the name of a list, or a tag of another list; rename it",
        ),
        (
            {"a": ("list number\n", "list empty\n\nlist number\n")},
            "a_lists.txt, line 20: list empty is empty; name its columns, then write one entry on each line",
        ),
        ({"b": ("rule how", "rule glad")}, "b_rules.txt, line 6: rule glad is also defined on line 1"),
        (
            {"b": ("rule how", "rule why\n\nrule how")},
            "b_rules.txt, line 6: rule why has no options; write one on each line below it, indented",
        ),
        (
            {"b": ("rule how", "rule why\n  so\n\nrule how")},
            "b_rules.txt, line 6: no story uses rule why; write <why> somewhere, or delete it",
        ),
        (
            {"b": ("rule how", "Rule how")},
            "b_rules.txt, line 6: unknown heading 'Rule how'; headings are list, rule, plot, story, cast and text",
        ),
        (
            {"b": ("rule how", "rule How")},
            "b_rules.txt, line 6: rule needs a name of small letters, as in `rule kite`; this one is 'How'",
        ),
        (
            {"b": ("rule glad", "  glad")},
            "b_rules.txt, line 1: this indented line belongs to no heading; begin with list, rule or plot",
        ),
        (
            {"c": ("plot gift 2/3\n", "")},
            "c_stories.txt, line 2: story given stands before any plot of its file; begin with `plot NAME`",
        ),
        (
            {"c": ("story still", "story kept")},
            "c_stories.txt, line 30: the name kept is taken by another story; choose another one",
        ),
        (
            {"c": ("plot count 1/3", "plot empty\n\nplot count 1/3")},
            "c_stories.txt, line 18: plot empty has no story; write one below it",
        ),
        (
            {"c": ("story still 1/4\ncast", "story still 1/4\ntext")},
            "c_stories.txt, line 30: story still needs a cast and then a text below it",
        ),
        (
            {"c": ("story still 1/4\n", "")},
            "c_stories.txt, line 30: cast stands outside a story; begin with `story NAME`",
        ),
        (
            {"c": ("story given\n", "story given\n  by hand\n")},
            "c_stories.txt, line 4: this line belongs neither to a cast nor to a text of story given",
        ),
    ],
)
def test_a_malformed_file_is_refused_with_file_line_and_reason(tmp_path, changes, sentence):
    with pytest.raises(GrammarError) as refused:
        read(written(tmp_path, **changes))
    assert str(refused.value) == sentence
    file, line = sentence.split(":")[0].split(", line ")
    assert (refused.value.file, refused.value.line) == (file, int(line))


def test_a_file_that_is_not_utf_8_is_refused_at_its_line(tmp_path):
    (written(tmp_path) / "d.txt").write_bytes(b"rule x\n  caf\xe9\n")
    with pytest.raises(GrammarError) as refused:
        read(tmp_path)
    assert str(refused.value) == "d.txt, line 2: this line is not UTF-8; save the file as UTF-8"


def test_a_folder_without_a_grammar_is_named(tmp_path):
    for folder, why in (
        (tmp_path / "no", "the folder does not exist; data/tales has one"),
        (tmp_path, "it is a folder with .txt files, as data/tales is"),
    ):
        with pytest.raises(FileNotFoundError) as missing:
            read(folder)
        assert str(missing.value) == f"no grammar at {folder}: {why}"
    (tmp_path / "a.txt").write_text(LISTS)
    with pytest.raises(FileNotFoundError) as missing:
        read(tmp_path)
    assert str(missing.value) == f"no grammar at {tmp_path}: its files hold no plot; see data/tales/README.md"


def test_files_saved_on_another_system_are_read_alike(tmp_path, small):
    for path in written(tmp_path).iterdir():
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    other = TaleGrammar(read(tmp_path))
    assert [other.sample(seed) for seed in range(50)] == [small.sample(seed) for seed in range(50)]
