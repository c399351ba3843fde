"""Which words are left out, what fills them, and what does each filling cost? (values of the infilling desk)"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from armdlab import tales
from armdlab.decoding import decode_steps
from armdlab.inference import evaluating
from armdlab.infilling import filling_nll, filling_order, order_of_steps, surest_first
from armdlab.objectives import nll
from armdlab.orders import UNKNOWN, GenerationOrder
from armdlab.steps import DecodeStep
from armdlab.tokenization import Tokenizer
from armdlab.trained import Lab
from armdlab.widgets.order_picker import quoted

SUREST, CLICKED = "surest first", "as clicked"
ORDERS = ("left to right", "right to left", "random", CLICKED, SUREST)
COMMON = ("whole text, left to right", "gaps, left to right", "gaps, right to left")
SHOWN = 5  # alternatives of a token that are named


@dataclass(frozen=True)
class Page:
    """A text in words, some of which are left out.

    Args:
        words: ids of each word; a word has the space before it.
        pieces: what each word reads; together they are the text.
        masked: numbers of the words that are left out, in the order in which they were clicked.
    """

    words: tuple[tuple[int, ...], ...]
    pieces: tuple[str, ...]
    masked: tuple[int, ...] = ()

    @classmethod
    def of(cls, tokenizer: Tokenizer, text: str, longest: int) -> Page:
        """A text of which every word is kept.

        Raises:
            ValueError: if there is no word, or more tokens than the model can hold.
        """
        words = tokenizer.words(text)
        if not text.strip():
            raise ValueError("the text holds no word; write at least one")
        if (n := sum(map(len, words))) > longest:
            raise ValueError(f"the text has {n:,} tokens and the model can hold {longest}; shorten it")
        return cls(tuple(map(tuple, words)), tuple(tokenizer.decode(word) for word in words))

    def without(self, masked: Sequence[int]) -> Page:
        """The same text with these words left out.

        Raises:
            ValueError: if there is no such word, or one is named twice.
        """
        if not set(masked) <= set(range(len(self.words))) or len(set(masked)) < len(masked):
            raise ValueError(f"masked={list(masked)} must name words once each, from 0 to {len(self.words) - 1}")
        return replace(self, masked=tuple(masked))

    def moved_from(self, other: Page) -> Page:
        """This text without the words that another one lacks, as far as both begin and end alike."""
        n, here, there = min(len(self.words), len(other.words)), self.words, other.words
        first = next((i for i in range(n) if here[i] != there[i]), n)
        last = next((i for i in range(n - first) if here[-1 - i] != there[-1 - i]), n - first)
        shift, end = len(here) - len(there), len(there) - last
        return self.without([w if w < first else w + shift for w in other.masked if w < first or w >= end])

    @property
    def text(self) -> str:
        """What it reads with all its words."""
        return "".join(self.pieces)

    @property
    def ids(self) -> Tensor:
        """int64 (N,)."""
        return torch.tensor([i for word in self.words for i in word])

    @property
    def known(self) -> Tensor:
        """Whether each token is kept: bool (N,)."""
        left_out = set(self.masked)
        return torch.tensor([w not in left_out for w, word in enumerate(self.words) for _ in word])

    @property
    def gaps(self) -> list[list[int]]:
        """Neighbouring words that are left out, as runs, in text order."""
        by_run = itertools.groupby(enumerate(sorted(self.masked)), key=lambda pair: pair[1] - pair[0])
        return [[word for _, word in run] for _, run in by_run]

    def positions(self, words: Sequence[int]) -> list[int]:
        """Text positions of the tokens of some words, word after word."""
        starts = [0, *itertools.accumulate(map(len, self.words))]
        return [p for word in words for p in range(starts[word], starts[word + 1])]

    def refuse_nothing_to_do(self) -> None:
        """Say what to do where nothing is left out, or everything."""
        if not self.masked:
            raise ValueError(
                "no word is left out, so there is nothing to fill; click the words that the model should find"
            )
        if len(self.masked) == len(self.words):
            raise ValueError("every word is left out, so nothing is known; click at least one word to give it back")

    def with_words(self, tokenizer: Tokenizer, like: Sequence[int], gap: int, words: str) -> Tensor:
        """A whole text: that of `like`, with words of one's own in one gap.

        Args:
            tokenizer: of the model.
            like: N ids, a filling of these gaps.
            gap: its number in `gaps`.
            words: what to write there; the space before it is that of the gap.

        Returns:
            int64 (N,).

        Raises:
            ValueError: if there is no such gap, or the words have another number of tokens than it.
        """
        if not 0 <= gap < len(self.gaps):
            raise ValueError(f"gap={gap} is not there; the text has {len(self.gaps)}, counted from 0")
        if not words.strip():
            raise ValueError("write what should stand in the gap first")
        at, original = self.positions(self.gaps[gap]), "".join(self.pieces[w] for w in self.gaps[gap])
        before = original[: len(original) - len(original.lstrip())]
        found = tokenizer.encode(words if words[:1].isspace() else before + words)
        if len(found) != len(at):
            tokens = f"{len(found)} token{'' if len(found) == 1 else 's'}"
            raise ValueError(
                f"{quoted(words)} is {tokens} to this model, and the gap holds {len(at)}; write {len(at)}, or leave "
                "other words out"
            )
        text = torch.tensor(list(like))
        text[at] = torch.tensor(found)
        return text


@dataclass(frozen=True)
class How:
    """In which order gaps are filled, and by which chance.

    Args:
        order: one of `ORDERS`.
        streams: gaps a step, once their heads are made.
        temperature: of the drawing.
        seed: of chance.
    """

    order: str = "left to right"
    streams: int = 1
    temperature: float = 1.0
    seed: int = 1

    def __post_init__(self) -> None:
        """Refuse an order that nobody knows."""
        if self.order not in ORDERS:
            raise ValueError(f"order={self.order!r} is unknown; choose {', '.join(ORDERS)}")

    def __str__(self) -> str:
        streams = "" if self.streams == 1 else f", {self.streams} streams"
        return f"{self.order}{streams}"

    def fixed_order(self, page: Page) -> GenerationOrder | None:
        """The order that it is for these gaps; None where it depends on what the model is sure of."""
        if self.order == SUREST:
            return None
        way, listed = ("as listed", page.positions(page.masked)) if self.order == CLICKED else (self.order, ())
        return filling_order(page.known, way, self.streams, seed=self.seed, listed=listed)

    def steps(self, lab: Lab, page: Page, words: Tensor | None = None) -> Iterator[DecodeStep]:
        """Fill the gaps, or walk along the words (N,) that fill them (which a fixed order needs no steps for)."""
        given = page.ids.masked_fill(~page.known, UNKNOWN)
        order = self.fixed_order(page)
        chance: dict[str, Any] = {"temperature": self.temperature, "seed": self.seed}
        if order is None:
            return surest_first(lab.model, given, streams=self.streams, words=words, **chance)
        if words is not None:
            return iter(())
        return decode_steps(lab.engine, length=len(given), known=given, order=order, **chance)


@dataclass(frozen=True)
class Candidate:
    """What fills the gaps of a page, and what that costs under the order in which it was filled.

    Args:
        ids: N ids, the whole text.
        order: who was filled when.
        how: the same in words.
        labels: whose words they are: the text's own, the reader's, those of some seeds.
        log_probs: float64 (N,), exact, given all that is known and earlier steps; 0 where known.
        others: of each position, the likeliest tokens there with their chances; empty where known.
    """

    ids: tuple[int, ...]
    order: GenerationOrder = field(repr=False)
    how: str
    labels: tuple[str, ...]
    log_probs: Tensor = field(repr=False)
    others: tuple[tuple[tuple[str, float], ...], ...] = field(repr=False)

    @classmethod
    @torch.no_grad()
    def scored(
        cls, lab: Lab, page: Page, ids: Sequence[int], order: GenerationOrder, how: str, labels: Sequence[str]
    ) -> Candidate:
        """Price a filling in one pass."""
        tokens = torch.tensor([list(ids)])
        with evaluating(lab.model) as device:
            log_p = lab.model(tokens.to(device), order)[0].cpu().double().log_softmax(-1)
        log_probs = log_p.gather(-1, tokens[0].unsqueeze(-1)).squeeze(-1) * ~page.known
        values, likeliest = log_p.topk(min(SHOWN, log_p.shape[-1]))
        others = tuple(
            ()
            if is_known
            else tuple((lab.tokenizer.decode([i]), p) for i, p in zip(row.tolist(), p_of.exp().tolist(), strict=True))
            for is_known, row, p_of in zip(page.known.tolist(), likeliest, values, strict=True)
        )
        return cls(tuple(ids), order, how, tuple(labels), log_probs, others)

    @property
    def log_prob(self) -> float:
        """Of all that fills the gaps, given all the rest, in nats."""
        return float(self.log_probs.sum())

    def is_like(self, other: Candidate) -> bool:
        """Whether the same words were filled in the same order."""
        return self.ids == other.ids and self.order == other.order

    def steps(self, page: Page) -> list[list[int]]:
        """Positions of gaps, step by step."""
        known = page.known
        made = ([p for p in step.tolist() if not known[p]] for step in self.order.steps())
        return [step for step in made if step]


@torch.no_grad()
def common_log_probs(lab: Lab, page: Page, candidates: Sequence[Candidate], common: str) -> list[float]:
    """Log-probabilities of candidates under one and the same order, in nats, so that they can be compared.

    Args:
        lab: whose model scores.
        page: what is known.
        candidates: fillings of its gaps.
        common: one of `COMMON`; of the whole text every token counts, which shifts no difference between candidates.

    Raises:
        ValueError: if `common` is unknown.
    """
    if common not in COMMON:
        raise ValueError(f"common={common!r} is unknown; choose {'; '.join(COMMON)}")
    if not candidates:
        return []
    with evaluating(lab.model) as device:
        texts = torch.tensor([candidate.ids for candidate in candidates]).to(device)
        if common == COMMON[0]:
            nats = nll(lab.model, texts, None, "none")
        else:
            order = filling_order(page.known, common.removeprefix("gaps, ")).to(device)
            nats = filling_nll(lab.model, texts, page.known.to(device), order)
    return (-nats.cpu().double().sum(-1)).tolist()


def walked_order(page: Page, how: How, steps: Sequence[DecodeStep]) -> GenerationOrder:
    """The order in which steps were made."""
    return how.fixed_order(page) or order_of_steps(page.known, [step.positions.tolist() for step in steps])


def whole_characters(tokenizer: Tokenizer, ids: Sequence[int]) -> list[list[int]]:
    """Places of ids, grouped so that each group reads as whole characters: a byte alone is none.

    A group that never becomes whole (a model may write what is no text) stays to its end.
    """
    groups: list[list[int]] = []
    is_whole = True
    for place in range(len(ids)):
        groups = [*groups, [place]] if is_whole else [*groups[:-1], [*groups[-1], place]]
        is_whole = "\ufffd" not in tokenizer.decode([ids[i] for i in groups[-1]])
    return groups


def verdict(text: str) -> tuple[bool, str]:
    """Whether a text is a tale without a fault, and what the grammar says of it."""
    found = tales.check(text)
    if not found:
        return True, "a tale, and consistent"
    grammar = [violation for violation in found if violation.kind == "grammar"]
    return False, f"{'no tale' if grammar else 'contradicts itself'}: {(grammar or found)[0].sentence}"
