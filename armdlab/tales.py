"""Which tale is this, how probable is it, and where does it contradict itself?

A tale is drawn from the grammar in `data/tales`: a plot, a story, a cast, then the wording, choice by
choice. The grammar is a prefix code (see `grammar.py`), so a text has one derivation at most, which a
single pass from left to right finds. Hence everything about the source is exact, in nats:

    log p(tale) = sum over its choices of log p(choice)
    H(tale)     = -E[log p(tale)], in closed form

What a tale must keep over many sentences (who is she, what colour was it, who owns it now, how many are
left, where is everyone) is not a choice but follows from earlier ones. So a text is judged on two levels:
it *parses* if some story could be worded like this, with any name, pronoun, colour or place at each
mention; it is *consistent* if, besides, all mentions agree. Only then does it have a probability.
"""

from __future__ import annotations

import math
import operator
import os
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from armdlab import grammar as g

_MASK = 2**64 - 1
_GOLDEN = 0x9E3779B97F4A7C15  # 2^64 / golden ratio, the step of SplitMix64 (Steele, Lea, Flood 2014)
_SHOWN = 40  # characters of a word that a violation quotes: a model can write very long ones


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


@dataclass(frozen=True)
class Tale:
    """A tale with its derivation and its exact log-probability in nats."""

    text: str
    derivation: Derivation
    log_prob: float


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
    words: tuple[str, ...]  # (settled, found): the two that disagree; of "grammar" the word where the text leaves it
    distance: int | None  # in words, between the two mentions; None where there is only one
    sentence: str
    start: int  # first character of the offending words
    end: int  # one past the last


@dataclass(frozen=True)
class Reading:
    """What a single pass over a text found."""

    text: str
    story: str | None  # the story that reads furthest
    derivation: Derivation | None  # of a tale of the language
    mentions: tuple[Mention, ...]
    violations: tuple[Violation, ...]
    parses: bool  # some story could be worded like this

    @property
    def is_consistent(self) -> bool:
        """Whether the text parses and all its mentions agree: whether it is a tale."""
        return self.derivation is not None

    @property
    def log_prob(self) -> float:
        """Log-probability in nats; -inf outside the language."""
        return -math.inf if self.derivation is None else self.derivation.log_prob


class TaleGrammar:
    """The source of tales: samples, reads, scores and checks them."""

    def __init__(self, grammar: g.Grammar) -> None:
        self.grammar = grammar

    def count(self) -> int:
        """Number of distinct tales, exactly."""
        return self.grammar.count()

    def entropy(self) -> float:
        """Entropy of a tale in nats, in closed form."""
        return self.grammar.entropy()

    def sample(self, seed: int) -> Tale:
        """Draw a tale; the same seed gives the same tale on every machine and Python version.

        Args:
            seed: a whole number from 0 to 2^64 - 1, the state from which SplitMix64 starts.

        Returns:
            The tale, its derivation and its log-probability in nats.

        Raises:
            ValueError: if `seed` is outside that range.
        """
        state = _state(seed)

        def choose(size: int, cumulative: tuple[int, ...] | None) -> int:
            nonlocal state
            state = (state + _GOLDEN) & _MASK
            draw = _mix(state)
            if cumulative is None:
                return (draw * size) >> 64  # off uniform by less than size / 2^64
            return bisect_right(cumulative, (draw * cumulative[-1]) >> 64)

        return self._tell(choose)

    def write(self, derivation: Derivation) -> Tale:
        """Tell the tale of a derivation; only the index of each choice is used.

        Args:
            derivation: choices in order, as `parse` or `sample` gives them, perhaps with an index changed.

        Returns:
            The tale; where a changed choice opens other choices below, they must fit in number.

        Raises:
            ValueError: if an index has no option, or the number of choices does not fit.
        """
        script = [choice.index for choice in derivation]
        taken = 0

        def choose(size: int, _: tuple[int, ...] | None) -> int:
            nonlocal taken
            if taken == len(script):
                raise ValueError(f"the derivation has {taken} choices, but this tale needs more; add one")
            index = script[taken]
            if not 0 <= index < size:
                raise ValueError(f"choice {taken} has index {index}, but there are {size} options: 0 to {size - 1}")
            taken += 1
            return index

        tale = self._tell(choose)
        if taken < len(script):
            raise ValueError(f"the derivation has {len(script)} choices, but this tale needs {taken}; drop the rest")
        return tale

    def enumerate(self, limit: int = 1_000_000) -> Iterator[Tale]:
        """Every tale of a small grammar, once.

        Args:
            limit: the largest number of tales that is worth the wait.

        Yields:
            Tales, in the order of their choices.

        Raises:
            ValueError: if the grammar has more than `limit` tales.
        """
        if self.count() > limit:
            raise ValueError(f"limit={limit} is less than the {self.count():.3g} tales of this grammar; sample instead")
        path: list[tuple[int, int]] = []  # (index, number of options) of each choice
        while True:
            script = [index for index, _ in path]
            path = []

            def choose(
                size: int, _: tuple[int, ...] | None, script: list[int] = script, path: list[tuple[int, int]] = path
            ) -> int:
                index = script[len(path)] if len(path) < len(script) else 0
                path.append((index, size))
                return index

            yield self._tell(choose)
            while path and path[-1][0] + 1 == path[-1][1]:
                path.pop()
            if not path:
                return
            path[-1] = (path[-1][0] + 1, path[-1][1])

    def read(self, text: str) -> Reading:
        """Read a text once, tolerantly, and judge it on both levels.

        Args:
            text: any text; a tale is one line, without a space or a line break around it.

        Returns:
            The reading: story, derivation, mentions and violations.

        Raises:
            TypeError: if `text` is not a str.
        """
        if not isinstance(text, str):
            raise TypeError(f"text is of type {type(text).__name__}; decode it to a str first")
        furthest = _Furthest()
        token = g.TOKEN.match(text)
        for p, s in self.grammar.first.get(token.group() if token else "", ()):
            plot = self.grammar.plots[p]
            furthest.trying = story = plot.stories[s]
            found = _match(story.items, text, 0, None, furthest)
            if found:
                end, trail = found
                shares = ((plot.name, self.grammar, p), (story.name, plot, s))
                return _judge(text, story, shares, trail, None if end == len(text) else end)
        return _judge(text, furthest.story, (), furthest.trail, furthest.position)

    def parse(self, text: str) -> Derivation | None:
        """The one derivation of a tale, or None if the text is not a tale of this grammar."""
        return self.read(text).derivation

    def log_prob(self, text: str) -> float:
        """Exact log-probability in nats; -inf for a text outside the language, which is log 0."""
        return self.read(text).log_prob

    def check(self, text: str) -> list[Violation]:
        """What is wrong with a text, in the order of the text; nothing, if it is a tale.

        A text that parses has violations of agreements only. One that does not has, last, a violation of
        kind "grammar" that names the first word where the text leaves every story.
        """
        return list(self.read(text).violations)

    def _tell(self, choose: Callable[[int, tuple[int, ...] | None], int]) -> Tale:
        """Tell a tale; `choose(size, cumulative shares or None)` gives the index of each choice."""
        choices: list[Choice] = []
        source = self.grammar
        index = choose(len(source.plots), source.cumulative)
        plot = source.plots[index]
        choices.append(Choice("plot", plot.name, source.shares[index] / sum(source.shares), index))
        index = choose(len(plot.stories), plot.cumulative)
        story = plot.stories[index]
        choices.append(Choice("story", story.name, plot.shares[index] / sum(plot.shares), index))

        values: dict[str, int] = {}
        for draw in story.draws:
            rows = draw.support(values)
            index = choose(len(rows), None)
            values[draw.name] = row = rows[index]
            choices.append(Choice(draw.name, draw.names[row], 1 / len(rows), index))
        for total in story.sums:
            values[total.name] = total.row(values)

        text = _render(story.items, values, choose, choices)
        derivation = Derivation(tuple(choices))
        return Tale(text, derivation, derivation.log_prob)


def _render(items: Iterable[g.Item], values: dict[str, int], choose: Callable, choices: list[Choice]) -> str:
    out = []
    for item in items:
        if type(item) is str:
            out.append(item)
        elif type(item) is g.Slot:
            out.append(item.forms[values[item.variable]])
        elif type(item) is g.Fork:
            index = choose(len(item.options), item.cumulative)
            place = len(choices)
            choices.append(None)  # its own words come after those of the choices inside it
            words = _render(item.options[index], values, choose, choices)
            choices[place] = Choice(item.name, words, item.probabilities[index], index)
            out.append(words)
    return "".join(out)


# -------------------------------------------------------------------------------------------- reading


class _Furthest:
    """Where the most promising attempt to read a text came to its end."""

    def __init__(self) -> None:
        self.position, self.trail = -1, None
        self.story: g.Story | None = None
        self.trying: g.Story | None = None

    def note(self, position: int, trail: tuple | None) -> None:
        if position > self.position:
            self.position, self.trail, self.story = position, trail, self.trying


def _match(
    items: Iterable[g.Item], text: str, position: int, trail: tuple | None, furthest: _Furthest
) -> tuple[int, tuple | None] | None:
    """Read the items from `position`; the trail is a linked list of (what, start, end), newest first.

    The first option that reads is the only one that can (the options are prefix-free), so nothing is
    ever taken back, and the next token alone leaves few options to try.
    """
    for item in items:
        if type(item) is str:
            if not text.startswith(item, position):
                same = os.path.commonprefix((item, text[position : position + len(item)]))
                furthest.note(position + len(same), trail)
                return None
            position += len(item)
        elif type(item) is g.Slot:
            found = item.match(text, position)
            if found is None:
                furthest.note(position, trail)
                return None
            trail = (trail, item, position, found.end())
            position = found.end()
        elif type(item) is g.Fact:
            trail = (trail, item, position, position)
        else:
            token = g.TOKEN.match(text, position)
            for index in item.first.get(token.group() if token else "", ()):
                done = _match(item.options[index], text, position, (trail, item, position, index), furthest)
                if done:
                    position, trail = done[0], (done[1], None, done[0], done[0])
                    break
            else:
                furthest.note(position, trail)
                return None
    return position, trail


def _judge(text: str, story: g.Story | None, shares: tuple, trail: tuple | None, left_at: int | None) -> Reading:
    """Bind the cast to what the text says, then compare every mention with it."""
    if story is None:
        return Reading(text, None, None, (), (_departure(text, 0),), False)
    forks, shown = _unroll(text, trail)
    values, named_at = _bind(story, shown)
    violations = _broken_draws(story, values, named_at, text)
    mentions = []
    for slot, start, end, words, since in shown:
        row = values.get(slot.variable)
        if row is None:
            continue
        settled = since or named_at[slot.variable]
        expected = slot.forms[row]
        distance = None if settled.start == start else _words_between(text, settled.start, start)
        mentions.append(Mention(slot.variable, slot.kind, words, expected, slot.options, start, end, distance))
        if words != expected:
            name = slot.fact or slot.variable
            side = "before" if settled.start < start else "after"
            sentence = f'"{words}" should be "{expected}": {name} was settled {distance} words {side}, by "{settled.words}"'
            violations.append(Violation(slot.kind, (settled.words, words), distance, sentence, start, end))
    violations.sort(key=lambda violation: violation.start)
    if left_at is not None:
        violations.append(_departure(text, left_at))

    derivation = None
    if not violations:
        choices = [
            Choice(kind, name, of.shares[i] / sum(of.shares), i)
            for kind, (name, of, i) in zip(("plot", "story"), shares, strict=True)
        ]
        for draw in story.draws:
            rows, row = draw.support(values), values[draw.name]
            choices.append(Choice(draw.name, draw.names[row], 1 / len(rows), rows.index(row)))
        derivation = Derivation((*choices, *forks))
    return Reading(text, story.name, derivation, tuple(mentions), tuple(violations), left_at is None)


class _Shown(NamedTuple):
    """A slot as the text has it."""

    slot: g.Slot
    start: int
    end: int
    words: str
    since: _Shown | None  # the mention that settled the fact for which the slot stands


def _unroll(text: str, trail: tuple | None) -> tuple[list[Choice], list[_Shown]]:
    """The trail, oldest first: the choices of wording, and the slots with what they show."""
    events = []
    while trail:
        trail, *event = trail
        events.append(event)
    choices: list[Choice] = []
    waiting: list[tuple[int, g.Fork, int, int]] = []  # forks that have begun: place, fork, start, index
    shown: list[_Shown] = []
    latest: dict[str, _Shown] = {}  # variable -> its last mention
    facts: dict[str, _Shown | None] = {}
    for item, start, end in reversed(events):
        if item is None:
            place, fork, begin, index = waiting.pop()
            choices[place] = Choice(fork.name, text[begin:start], fork.probabilities[index], index)
        elif type(item) is g.Slot:
            words = text[start:end]
            latest[item.variable] = _Shown(item, start, end, words, facts.get(item.fact))
            shown.append(latest[item.variable])
        elif type(item) is g.Fact:
            facts[item.name] = latest.get(item.variable)
        else:
            waiting.append((len(choices), item, start, end))
            choices.append(None)
    return choices, shown


def _bind(story: g.Story, shown: list[_Shown]) -> tuple[dict[str, int], dict[str, _Shown]]:
    """Rows of the cast by the first mention that tells them apart, and that mention."""
    values: dict[str, int] = {}
    named_at: dict[str, _Shown] = {}
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


def _broken_draws(
    story: g.Story, values: dict[str, int], named_at: dict[str, _Shown], text: str
) -> list[Violation]:
    """Members of the cast that could not be drawn: a friend who is the hero, a kite made of iron."""
    broken = []
    for draw in story.draws:
        known = draw.name in values and all(name in values for name in draw.parents)
        if not known or values[draw.name] in draw.support(values):
            continue
        here = named_at[draw.name]
        others = [named_at[name] for name in draw.parents]
        sentence = f'{draw.name} cannot be "{here.words}" in story {story.name}'
        distance = None
        if others:
            settled = min(others, key=lambda other: abs(other.start - here.start))
            distance = _words_between(text, settled.start, here.start)
            sentence += ", given " + " and ".join(f'"{other.words}"' for other in others)
        words = (settled.words, here.words) if others else (here.words,)
        broken.append(Violation(here.slot.kind, words, distance, sentence, here.start, here.end))
    return broken


def _words_between(text: str, one: int, other: int) -> int:
    return text.count(" ", min(one, other), max(one, other))


def _departure(text: str, position: int) -> Violation:
    """The violation of a text that leaves the grammar at `position`."""
    start = text.rfind(" ", 0, position) + 1
    end = text.find(" ", position)
    end = len(text) if end < 0 else end
    if position >= len(text):
        sentence = "the text stops before its tale ends" if text else "the text is empty"
        return Violation("grammar", (_quoted(text[start:]),), None, sentence, start, len(text))
    word = _quoted(text[start:end])
    number = text.count(" ", 0, start) + 1
    sentence = f'the text leaves the grammar at word {number}, "{word}"'
    return Violation("grammar", (word,), None, sentence, start, end)


def _quoted(word: str) -> str:
    return word if len(word) <= _SHOWN else word[: _SHOWN - 3] + "..."


# --------------------------------------------------------------------------------- chance, and the front door


def _mix(state: int) -> int:
    """The output function of SplitMix64: whole numbers only, so the same everywhere."""
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
    return state ^ (state >> 31)


def _state(seed: int) -> int:
    number = operator.index(seed)
    if not 0 <= number <= _MASK:
        raise ValueError(f"seed={seed} is outside 0 to 2**64 - 1; take seed % 2**64")
    return number


def tale_seed(seed: int, index: int) -> int:
    """The seed of tale `index` in the corpus of `seed`: output `index` of a SplitMix64 that starts at mix(seed).

    It does not depend on how many tales are drawn, so any part of a corpus can be drawn by itself.

    Args:
        seed: the corpus, from 0 to 2^64 - 1.
        index: the tale, from 0.

    Returns:
        A seed for `TaleGrammar.sample`.

    Raises:
        ValueError: if `seed` is outside its range, or `index` is negative.

    >>> hex(tale_seed(0, 0))
    '0xe220a8397b1dcdaf'
    """
    if operator.index(index) < 0:
        raise ValueError(f"index={index} is negative; tales are counted from 0")
    return _mix((_mix(_state(seed)) + (index + 1) * _GOLDEN) & _MASK)


def tales(n: int, seed: int, grammar: TaleGrammar | None = None) -> Iterator[str]:
    """The first `n` texts of the corpus of `seed`.

    Args:
        n: number of tales.
        seed: the corpus, from 0 to 2^64 - 1.
        grammar: the source; the lab's own tales if None.

    Yields:
        Texts; number i is that of `sample(tale_seed(seed, i))`, whatever `n` is.

    Raises:
        ValueError: if `n` is negative, or `seed` is outside its range.
    """
    if n < 0:
        raise ValueError(f"n={n} is negative; ask for 0 tales or more")
    source = grammar or load_grammar()
    for index in range(n):
        yield source.sample(tale_seed(seed, index)).text


def data_folder() -> Path:
    """The folder of the lab's own grammar, beside the package."""
    return Path(__file__).resolve().parents[1] / "data" / "tales"


def load_grammar(folder: Path | str | None = None) -> TaleGrammar:
    """Read a grammar, once a folder; after an edit, `load_grammar.cache_clear()` forgets it.

    Args:
        folder: a folder of grammar files; the lab's own `data/tales` if None.

    Returns:
        The source of tales.

    Raises:
        FileNotFoundError: if there is no grammar at `folder`.
        GrammarError: if a file is malformed, or the grammar ambiguous; file, line and reason are named.
    """
    return _load(Path(folder).resolve() if folder is not None else data_folder())


@lru_cache(maxsize=16)
def _load(folder: Path) -> TaleGrammar:
    return TaleGrammar(g.read(folder))


load_grammar.cache_clear = _load.cache_clear


def sample(seed: int) -> Tale:
    """Draw one of the lab's own tales; see `TaleGrammar.sample`."""
    return load_grammar().sample(seed)


def parse(text: str) -> Derivation | None:
    """The one derivation of a text in the lab's own grammar, or None; see `TaleGrammar.parse`."""
    return load_grammar().parse(text)


def log_prob(text: str) -> float:
    """Exact log-probability of a text in nats, -inf if it is no tale; see `TaleGrammar.log_prob`."""
    return load_grammar().log_prob(text)


def check(text: str) -> list[Violation]:
    """What is wrong with a text; nothing, if it is a tale; see `TaleGrammar.check`."""
    return load_grammar().check(text)
