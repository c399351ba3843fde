"""Which tale is this, how probable is it, and where does it contradict itself?

A tale is drawn from the grammar in `data/tales`: a plot, a story, a cast, then the wording, choice by
choice. The grammar is a prefix code (`armdlab.grammar.prefix_code`), so a text has one derivation at most.
Hence everything about the source is exact, in nats:

    log p(tale) = sum over its choices of log p(choice)
    H(tale)     = -E[log p(tale)], in closed form

What a tale must keep over many sentences (who is she, what colour was it, who owns it now, how many are
left, where is everyone) is no choice but follows from earlier ones; a text that breaks it is found by
`check`, and has probability 0.
"""

from __future__ import annotations

import math
import operator
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from armdlab import grammar as g
from armdlab.grammar.values import Fork, Item, Slot

_MASK = 2**64 - 1
_GOLDEN = 0x9E3779B97F4A7C15  # 2^64 / golden ratio, the step of SplitMix64 (Steele, Lea, Flood 2014)


@dataclass(frozen=True)
class Tale:
    """A tale with its derivation and its exact log-probability in nats."""

    text: str
    derivation: g.Derivation
    log_prob: float


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

    def write(self, derivation: Iterable[g.Choice]) -> Tale:
        """Tell the tale of a derivation; only the index of each choice is used.

        Args:
            derivation: choices in order, as `parse` or `sample` gives them, perhaps with an index changed.

        Returns:
            The tale.

        Raises:
            ValueError: if an index has no option, or the number of choices does not fit.
        """
        script = [choice.index for choice in derivation]
        tale, path = self._replay(script)
        if len(path) != len(script):
            raise ValueError(f"the derivation has {len(script)} choices, but this tale has {len(path)}; parse it anew")
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
            raise ValueError(
                f"there are 10^{math.log10(self.count()):.1f} tales, more than limit={limit}; sample instead"
            )
        path: list[tuple[int, int]] = []  # (index, number of options) of each choice
        while True:
            tale, path = self._replay([index for index, _ in path])
            yield tale
            while path and path[-1][0] + 1 == path[-1][1]:
                path.pop()
            if not path:
                return
            path[-1] = (path[-1][0] + 1, path[-1][1])

    def read(self, text: str) -> g.Reading:
        """Read a text once, tolerantly; `parse`, `log_prob` and `check` give parts of the result."""
        return g.read_text(self.grammar, text)

    def parse(self, text: str) -> g.Derivation | None:
        """The one derivation of a tale, or None if the text is not a tale of this grammar."""
        return self.read(text).derivation

    def log_prob(self, text: str) -> float:
        """Exact log-probability in nats; -inf for a text outside the language, which is log 0."""
        return self.read(text).log_prob

    def check(self, text: str) -> list[g.Violation]:
        """What is wrong with a text, in the order of the text; nothing, if it is a tale.

        A text that parses has violations of agreements only. One that does not has, last, a violation of
        kind "grammar" that names the first word where the text leaves every story.
        """
        return list(self.read(text).violations)

    def _replay(self, script: Sequence[int]) -> tuple[Tale, list[tuple[int, int]]]:
        """The tale of these indices, then of zeros; and (index, number of options) of each choice."""
        path: list[tuple[int, int]] = []

        def choose(size: int, _: tuple[int, ...] | None) -> int:
            index = script[len(path)] if len(path) < len(script) else 0
            if not 0 <= index < size:
                raise ValueError(f"choice {len(path)} has index {index}, but there are {size} options: 0 to {size - 1}")
            path.append((index, size))
            return index

        return self._tell(choose), path

    def _tell(self, choose: Callable[[int, tuple[int, ...] | None], int]) -> Tale:
        """Tell a tale; `choose(size, cumulative shares or None)` gives the index of each choice."""
        choices: list[g.Choice] = []
        source = self.grammar
        index = choose(len(source.plots), source.cumulative)
        plot = source.plots[index]
        choices.append(g.Choice("plot", plot.name, source.probabilities[index], index))
        index = choose(len(plot.stories), plot.cumulative)
        story = plot.stories[index]
        choices.append(g.Choice("story", story.name, plot.probabilities[index], index))

        values: dict[str, int] = {}
        for draw in story.draws:
            rows = draw.support(values)
            index = choose(len(rows), None)
            values[draw.name] = row = rows[index]
            choices.append(g.Choice(draw.name, draw.names[row], 1 / len(rows), index))
        for total in story.sums:
            values[total.name] = total.row(values)

        text = _render(story.items, values, choose, choices)
        derivation = g.Derivation(tuple(choices))
        return Tale(text, derivation, derivation.log_prob)


def _render(items: Iterable[Item], values: dict[str, int], choose: Callable, choices: list[g.Choice]) -> str:
    out = []
    for item in items:
        if type(item) is str:
            out.append(item)
        elif type(item) is Slot:
            out.append(item.forms[values[item.variable]])
        elif type(item) is Fork:
            index = choose(len(item.options), item.cumulative)
            place = len(choices)
            choices.append(None)  # its own words come after those of the choices inside it
            words = _render(item.options[index], values, choose, choices)
            choices[place] = g.Choice(item.name, words, item.probabilities[index], index)
            out.append(words)
    return "".join(out)


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
    """The seed of one tale of a corpus: output number `index` of SplitMix64, started at mix(`seed`).

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
    """The folder of the lab's own grammar, beside the package.

    Raises:
        FileNotFoundError: if it is not there; the message names the path.
    """
    folder = Path(__file__).resolve().parents[1] / "data" / "tales"
    if not folder.is_dir():
        raise FileNotFoundError(f"no tales at {folder}: clone the repository and run `pip install -e .` in it")
    return folder


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


def parse(text: str) -> g.Derivation | None:
    """The one derivation of a text in the lab's own grammar, or None; see `TaleGrammar.parse`."""
    return load_grammar().parse(text)


def log_prob(text: str) -> float:
    """Exact log-probability of a text in nats, -inf if it is no tale; see `TaleGrammar.log_prob`."""
    return load_grammar().log_prob(text)


def check(text: str) -> list[g.Violation]:
    """What is wrong with a text; nothing, if it is a tale; see `TaleGrammar.check`."""
    return load_grammar().check(text)
