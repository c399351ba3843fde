"""What are written texts worth: are they tales, new ones, and different from each other?"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from armdlab import tales
from armdlab.decoding import generate
from armdlab.model import Transformer
from armdlab.orders import GenerationOrder
from armdlab.sampling import REVEALING, seeded
from armdlab.tales import TaleGrammar
from armdlab.tokenization import Tokenizer

DISTANCES = (1, 10, 20, 40, 80)  # words; where the columns of a table of violations begin


@dataclass(frozen=True)
class Share:
    """So many of so many, with a binomial standard error.

    The error takes (part + 1) / (whole + 2) for the chance, so that 20 of 20 is no certainty.
    """

    part: int
    whole: int

    @property
    def value(self) -> float:
        """The share; nan of nothing."""
        return self.part / self.whole if self.whole else math.nan

    @property
    def standard_error(self) -> float:
        """Of `value`."""
        chance = (self.part + 1) / (self.whole + 2)
        return math.sqrt(chance * (1 - chance) / self.whole) if self.whole else math.nan

    def __str__(self) -> str:
        return f"{self.value:.3f} +- {self.standard_error:.3f}" if self.whole else "of none"


@dataclass(frozen=True)
class Validity:
    """How many texts are tales, and what is wrong with the others.

    Args:
        parses: share that some story could be worded like, agreements aside.
        is_consistent: share, of all texts, that are tales: they parse, and every mention agrees.
        violations: kind -> how many, by distance in words: none (one mention only), then from each of `DISTANCES` up.
    """

    parses: Share
    is_consistent: Share
    violations: Mapping[str, tuple[int, ...]]

    @property
    def shares(self) -> str:
        """Both shares, in words."""
        return f"{self.parses} parse, {self.is_consistent} are consistent"

    def __str__(self) -> str:
        bins = [f"{a}-{b - 1}" for a, b in pairwise(DISTANCES)]
        head = f"{'violations, by words between':<28}" + "".join(
            f"{name:>7}" for name in ("none", *bins, f"{DISTANCES[-1]}+", "all")
        )
        rows = [
            f"  {kind:<26}" + "".join(f"{n:>7}" for n in (*counts, sum(counts)))
            for kind, counts in self.violations.items()
        ]
        return "\n".join([f"{self.parses.whole} texts: {self.shares}", head, *(rows or ["  there are none"])])


def validity(samples: Sequence[str], *, grammar: TaleGrammar | None = None) -> Validity:
    """Read texts by the grammar: which are tales, and what breaks in those that are not, over which distance?

    Args:
        samples: any texts.
        grammar: the judge; the lab's own tales if None.

    Raises:
        ValueError: if there is no text.
    """
    if not samples:
        raise ValueError("there are no samples to judge; give at least one text")
    source = grammar or tales.load_grammar()
    readings = [source.read(text) for text in samples]
    counts: dict[str, list[int]] = {}
    for violation in (violation for reading in readings for violation in reading.violations):
        column = 0 if violation.distance is None else sum(violation.distance >= first for first in DISTANCES)
        counts.setdefault(violation.kind, [0] * (len(DISTANCES) + 1))[column] += 1
    by_kind = dict(sorted(counts.items(), key=lambda item: (-sum(item[1]), item[0])))
    return Validity(
        Share(sum(reading.parses for reading in readings), len(samples)),
        Share(sum(reading.is_consistent for reading in readings), len(samples)),
        {kind: tuple(row) for kind, row in by_kind.items()},
    )


def novelty(samples: Iterable[str], seen: Container[str], *, grammar: TaleGrammar | None = None) -> Share:
    """Share of the valid tales among `samples` that are not in `seen`, the training set (a set is fast)."""
    source = grammar or tales.load_grammar()
    valid = [text for text in samples if source.read(text).is_consistent]
    return Share(sum(text not in seen for text in valid), len(valid))


@dataclass(frozen=True)
class Diversity:
    """How different texts are; it falls with their number, so compare equal numbers.

    Args:
        nats_per_word: entropy of the words' frequencies over all texts, as counted (which is below the truth).
        distinct: of all words, of all pairs and of all triples of neighbours, the share that are different.
        different: share of the texts that are different.
        n_words: in all texts; a word is what stands between spaces.
    """

    nats_per_word: float
    distinct: tuple[float, float, float]
    different: float
    n_words: int

    def __str__(self) -> str:
        one, two, three = self.distinct
        return (
            f"entropy {self.nats_per_word:.3f} nats or {self.nats_per_word / math.log(2):.3f} bits a word; distinct-1 "
            f"{one:.3f}, distinct-2 {two:.3f}, distinct-3 {three:.3f} of {self.n_words:,} words; {self.different:.3f} "
            "of the texts differ"
        )


def diversity(samples: Sequence[str]) -> Diversity:
    """Count how different texts are: entropy of words, distinct-n, share of different texts.

    Raises:
        ValueError: if there is no word.
    """
    texts = [text.split() for text in samples]
    grams = [Counter(tuple(words[i : i + n]) for words in texts for i in range(len(words) - n + 1)) for n in (1, 2, 3)]
    n_words = grams[0].total()
    if not n_words:
        raise ValueError("there is no word in these samples; give at least one text")
    shares = [count / n_words for count in grams[0].values()]
    entropy = -math.fsum(share * math.log(share) for share in shares)
    distinct = tuple(len(gram) / gram.total() if gram else math.nan for gram in grams)
    return Diversity(entropy, distinct, len(set(samples)) / len(samples), n_words)


def write_tales(
    model: Transformer,
    tokenizer: Tokenizer,
    n: int,
    *,
    streams: int = 1,
    steps: int | None = None,
    length: int | None = None,
    temperature: float = 1.0,
    seed: int = 0,
    batch_size: int = 50,
    **how: Any,  # noqa: ANN401
) -> list[str]:
    """Let a model write `n` texts; each is cut at its first end-of-text, and what streams made behind that is dropped.

    Args:
        model: what writes.
        tokenizer: the one that it was trained with.
        n: how many texts.
        streams: number of parallel streams S.
        steps: of masked diffusion, denoising steps T of ancestral sampling in place of streams (of each block).
        length: tokens in a row; None for the longest that the model can hold. A text without an end fills its row.
        temperature: divides the logits.
        seed: of all draws; with `batch_size` it decides them.
        batch_size: rows written together.
        how: `verify`, `gate`, `correct` and their kin, as `generate` takes them.

    Raises:
        ValueError: as `decode_steps`.
    """
    length, end = model.config.max_length if length is None else length, tokenizer.end_of_text
    texts: list[str] = []
    while len(texts) < n:
        size = min(batch_size, n - len(texts))
        chance = tales.tale_seed(seed, len(texts)) >> 1  # torch's seeds have 63 bits
        who_is_when: dict[str, Any] = {"streams": streams}
        if steps is not None:
            drawn = seeded(chance, REVEALING)  # not the stream of the tokens: which is shown when says nothing of what
            inside = getattr(model, "block_size", None)
            order = GenerationOrder.masking_process(length, steps, block_size=inside, batch_size=size, generator=drawn)
            who_is_when = {"order": order}
        tokens = generate(
            model, length=length, end=end, batch_size=size, temperature=temperature, seed=chance, **who_is_when, **how
        )
        ends = [row.index(end) if end in row else length for row in tokens.tolist()]
        texts += [tokenizer.decode(row[:stop]) for row, stop in zip(tokens.tolist(), ends, strict=True)]
    return texts


@dataclass(frozen=True)
class Written:
    """What a writer's texts are worth.

    Args:
        writer: who wrote, in words.
        validity: shares of tales, and violations.
        novelty: share of the valid ones that are not in the training set.
        diversity: how different they are.
    """

    writer: str
    validity: Validity
    novelty: Share
    diversity: Diversity

    @property
    def heading(self) -> str:
        """The writer in fewer letters, for tables and legends."""
        return self.writer.replace(" strided", "")


def judge(writer: str, samples: Sequence[str], seen: Container[str], *, grammar: TaleGrammar | None = None) -> Written:
    """Everything about some texts at once; `seen` is the training set."""
    verdicts = validity(samples, grammar=grammar), novelty(samples, seen, grammar=grammar)
    return Written(writer, *verdicts, diversity(samples))
