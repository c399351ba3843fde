"""Which derivation has a text, and where does it contradict itself?

A text is judged on two levels. It *parses* if some story could be worded like this, with any name, pronoun,
colour or place at each mention; it is *consistent* if, besides, all its mentions agree. Reading goes once
from left to right: the grammar is a prefix code, so the first option that reads is the only one that can.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import takewhile
from typing import NamedTuple

from armdlab.grammar.prefix_code import TOKEN
from armdlab.grammar.values import Fact, Fork, Grammar, Item, Slot, Story

_SHOWN = 40  # characters of a word that a violation quotes: a model can write very long ones
_WORD = re.compile(r"\s*(\S*)")


class Choice(NamedTuple):
    """One choice of a derivation."""

    name: str  # "plot", "story", a variable of the cast, a rule, or file:line of a [one|other]
    text: str  # what was chosen, in its own words
    probability: float  # given the choices before it
    index: int  # its place among the options: all that `write` needs


@dataclass(frozen=True)
class Derivation:
    """All choices of a tale: plot, story, cast, then wording from left to right."""

    choices: tuple[Choice, ...]

    def __iter__(self) -> Iterator[Choice]:
        return iter(self.choices)

    def __len__(self) -> int:
        return len(self.choices)

    @property
    def log_prob(self) -> float:
        """Log-probability of the tale in nats."""
        return math.fsum([math.log(choice.probability) for choice in self.choices])


class Mention(NamedTuple):
    """Words of a tale that show a variable of the cast."""

    variable: str
    kind: str  # of the agreement: name, pronoun, attribute, owner, count, place, ...
    words: str
    expected: str  # what an agreeing tale would say here
    options: tuple[str, ...]  # what would parse here
    start: int  # first character
    end: int  # one past the last
    distance: int | None  # words from the mention that settled it, which itself has None


@dataclass(frozen=True)
class Violation:
    """One thing that is wrong with a text."""

    kind: str  # "grammar", or the kind of the broken agreement
    words: tuple[str, ...]  # (settled, found), which disagree; or the one word where the text leaves the grammar
    distance: int | None  # in words, between the two mentions; None where there is only one
    sentence: str
    start: int  # first character of the offending words
    end: int  # one past the last


class Shown(NamedTuple):
    """A slot as the text has it."""

    slot: Slot
    start: int
    end: int
    words: str
    word: int  # words before it
    since: Shown | None  # the mention that settled the fact for which the slot stands


class Worded(NamedTuple):
    """A choice between wordings as the text has it."""

    fork: Fork
    start: int
    end: int
    index: int  # the option that was taken


class Telling(NamedTuple):
    """How a tale is told: whose story it is, and where its words come from."""

    story: Story
    values: Mapping[str, int]  # variable of the cast -> row
    shown: tuple[Shown, ...]
    worded: tuple[Worded, ...]


@dataclass(frozen=True)
class Reading:
    """What a single pass over a text found."""

    text: str
    story: str | None  # the story that reads furthest
    derivation: Derivation | None  # of a tale of the language
    mentions: tuple[Mention, ...]
    violations: tuple[Violation, ...]
    parses: bool  # some story could be worded like this
    telling: Telling | None = field(compare=False, repr=False)  # of a tale of the language

    @property
    def is_consistent(self) -> bool:
        """Whether the text parses and all its mentions agree: whether it is a tale."""
        return self.derivation is not None

    @property
    def log_prob(self) -> float:
        """Log-probability in nats; -inf outside the language."""
        return -math.inf if self.derivation is None else self.derivation.log_prob


def read_text(grammar: Grammar, text: str) -> Reading:
    """Read a text once, tolerantly, and judge it on both levels.

    Args:
        grammar: the language.
        text: any text.

    Returns:
        The reading: story, derivation, mentions and violations.

    Raises:
        TypeError: if `text` is not a str.
    """
    if not isinstance(text, str):
        raise TypeError(f"text is of type {type(text).__name__}; decode it to a str first")
    furthest = _Furthest()
    token = TOKEN.match(text)
    for p, s in grammar.first.get(token.group() if token else "", ()):
        plot = grammar.plots[p]
        furthest.trying = story = plot.stories[s]
        found = _match(story.items, text, 0, None, furthest)
        if found:
            end, trail = found
            chosen = [
                Choice("plot", plot.name, grammar.probabilities[p], p),
                Choice("story", story.name, plot.probabilities[s], s),
            ]
            return _judge(text, story, chosen, trail, None if end == len(text) else end)
    return _judge(text, furthest.story, [], furthest.trail, furthest.position)


class _Furthest:
    """Where the most promising attempt to read a text came to its end."""

    def __init__(self) -> None:
        self.position, self.trail = -1, None
        self.story: Story | None = None
        self.trying: Story | None = None

    def note(self, position: int, trail: tuple | None) -> None:
        if position > self.position:
            self.position, self.trail, self.story = position, trail, self.trying


def _match(
    items: Iterable[Item], text: str, position: int, trail: tuple | None, furthest: _Furthest
) -> tuple[int, tuple | None] | None:
    """Read the items from `position`; the trail is a linked list of (what, start, end), newest first.

    The first option that reads is the only one that can (the options are prefix-free), so nothing is
    ever taken back, and the next token alone leaves few options to try.
    """
    for item in items:
        if type(item) is str:
            if not text.startswith(item, position):
                furthest.note(position + _shared(item, text[position : position + len(item)]), trail)
                return None
            position += len(item)
        elif type(item) is Slot:
            found = item.match(text, position)
            if found is None:
                nearest = max(_shared(form, text[position : position + len(form)]) for form in item.options)
                furthest.note(position + nearest, trail)
                return None
            trail = (trail, item, position, found.end())
            position = found.end()
        elif type(item) is Fact:
            trail = (trail, item, position, position)
        else:
            token = TOKEN.match(text, position)
            for index in item.first.get(token.group() if token else "", ()):
                done = _match(item.options[index], text, position, (trail, item, position, index), furthest)
                if done and _splits_a_word(text, done[0]):
                    furthest.note(done[0], trail)
                elif done:
                    position, trail = done[0], (done[1], None, done[0], done[0])
                    break
            else:
                furthest.note(position, trail)
                return None
    return position, trail


def _shared(one: str, other: str) -> int:
    """How many characters two texts have in common from the beginning."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def _judge(text: str, story: Story | None, chosen: list[Choice], trail: tuple | None, left_at: int | None) -> Reading:
    """Bind the cast to what the text says, then compare every mention with it."""
    if story is None:
        return Reading(text, None, None, (), (_departure(text, 0),), False, None)
    worded, shown = _unroll(text, trail)
    values, named_at = _bind(story, shown)
    violations = _broken_draws(story, values, named_at)
    mentions = []
    for slot, start, end, words, word, since in shown:
        row = values.get(slot.variable)
        if row is None:
            continue
        settled = since or named_at[slot.variable]
        expected = slot.forms[row]
        distance = None if settled.start == start else abs(word - settled.word)
        mentions.append(Mention(slot.variable, slot.kind, words, expected, slot.options, start, end, distance))
        if words != expected:
            side = f"{distance} words {'before' if settled.start < start else 'after'}"
            what = slot.fact or slot.variable
            sentence = f'"{words}" should be "{expected}": "{settled.words}" settled {what} {side}'
            violations.append(Violation(slot.kind, (settled.words, words), distance, sentence, start, end))
    violations.sort(key=lambda violation: violation.start)
    if left_at is not None:
        violations.append(_departure(text, left_at))

    derivation = telling = None
    if not violations:
        telling = Telling(story, values, tuple(shown), tuple(worded))
        for draw in story.draws:
            rows, row = draw.support(values), values[draw.name]
            chosen.append(Choice(draw.name, draw.names[row], 1 / len(rows), rows.index(row)))
        wording = [Choice(fork.name, text[start:end], fork.probabilities[i], i) for fork, start, end, i in worded]
        derivation = Derivation((*chosen, *wording))
    return Reading(text, story.name, derivation, tuple(mentions), tuple(violations), left_at is None, telling)


def _unroll(text: str, trail: tuple | None) -> tuple[list[Worded], list[Shown]]:
    """The trail, oldest first: the choices of wording, and the slots with what they show."""
    events = []
    while trail:
        trail, *event = trail
        events.append(event)
    worded: list[Worded] = []
    waiting: list[tuple[int, Fork, int, int]] = []  # forks that have begun: place, fork, start, index
    shown: list[Shown] = []
    latest: dict[str, Shown] = {}  # variable -> its last mention
    facts: dict[str, Shown | None] = {}
    word = counted = 0  # words so far, and the character up to which they are counted
    for item, start, end in reversed(events):
        if item is None:
            place, fork, begin, index = waiting.pop()
            worded[place] = Worded(fork, begin, start, index)
        elif type(item) is Slot:
            word, counted = word + text.count(" ", counted, start), start
            mention = Shown(item, start, end, text[start:end], word, facts.get(item.fact))
            latest[item.variable] = mention
            shown.append(mention)
        elif type(item) is Fact:
            facts[item.name] = latest.get(item.variable)
        else:
            waiting.append((len(worded), item, start, end))
            worded.append(None)  # one inside it may come first to its end
    return worded, shown


def _bind(story: Story, shown: list[Shown]) -> tuple[dict[str, int], dict[str, Shown]]:
    """Rows of the cast by the first mention that tells them apart, and that mention."""
    values: dict[str, int] = {}
    named_at: dict[str, Shown] = {}
    for mention in shown:
        rows, name = mention.slot.rows, mention.slot.variable
        if rows is not None and name not in values:
            values[name], named_at[name] = rows[mention.words], mention
    for total in story.sums:
        terms = [name for _, name in total.terms]
        row = total.row(values) if all(name in values for name in terms) else None
        if row is not None:
            values[total.name] = row
            named_at[total.name] = max((named_at[name] for name in terms), key=lambda mention: mention.start)
    return values, named_at


def _broken_draws(story: Story, values: dict[str, int], named_at: dict[str, Shown]) -> list[Violation]:
    """Members of the cast that could not be drawn: a friend who is the hero, a kite made of iron."""
    broken = []
    for draw in story.draws:
        known = draw.name in values and all(name in values for name in draw.parents)
        if not known or values[draw.name] in draw.support(values):
            continue
        here = named_at[draw.name]
        others = [named_at[name] for name in draw.parents]
        sentence = f'"{here.words}" cannot be the {draw.name} here'
        distance = None
        if others:
            settled = min(others, key=lambda other: abs(other.start - here.start))
            distance = abs(here.word - settled.word)
            sentence += ", given " + " and ".join(f'"{other.words}"' for other in others)
        words = (settled.words, here.words) if others else (here.words,)
        broken.append(Violation(here.slot.kind, words, distance, sentence, here.start, here.end))
    return broken


def _splits_a_word(text: str, position: int) -> bool:
    """Whether the option "a cat" was read at the beginning of "a catfish"."""
    return len(TOKEN.match(text, position - 1).group()) > 1


def _departure(text: str, position: int) -> Violation:
    """The violation of a text that leaves the grammar at `position`."""
    if position >= len(text):
        words = text.split(" ")[-1]
        sentence = "the text stops before its tale ends" if text else "the text is empty"
        return Violation("grammar", (_quoted(words),), None, sentence, len(text) - len(words), len(text))
    start = position
    while start > 0 and not text[position].isspace() and not text[start - 1].isspace():
        start -= 1
    start, end = _WORD.match(text, start).span(1)
    word = _quoted(text[start:end])
    number = text.count(" ", 0, start) + 1
    sentence = f'the text leaves the grammar at word {number}, "{word}"'
    return Violation("grammar", (word,), None, sentence, start, end)


def _quoted(word: str) -> str:
    return word if len(word) <= _SHOWN else word[: _SHOWN - 3] + "..."
