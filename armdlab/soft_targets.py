"""What could have stood where a token stands, and how likely was it? (targets from the grammar of tales)

A text shows one of sixty names, and a loss that learns from it pushes towards that one; only over many tales does the
push become what it should be. The grammar knows all sixty. A target that names them with their chances, given all else
of the tale, is the mean of what the loss would push towards if that choice were made anew again and again: the same
loss in expectation, with less noise (the Rao-Blackwell theorem).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from armdlab.grammar import Alternatives, alternatives
from armdlab.orders import GenerationOrder
from armdlab.tales import TaleGrammar, load_grammar
from armdlab.tokenization import Tokenizer


@dataclass(frozen=True)
class Targets:
    """Tokens that could stand at some positions of a batch, with their chances; n entries in all.

    Args:
        rows: int64 (n,), row in the batch.
        positions: int64 (n,), position in text order.
        tokens: int64 (n,), what could stand there. One token may have several entries.
        chances: float (n,), which sum to 1 at each position that is named.
    """

    rows: Tensor
    positions: Tensor
    tokens: Tensor
    chances: Tensor

    def expected(self, nats: Tensor, log_chances: Tensor) -> Tensor:
        """Nats (B, N), where a position is named the mean over what could stand there.

        Args:
            nats: (B, N), what the tokens of the batch cost.
            log_chances: (B, N, V), log-probabilities.
        """
        at = self.rows, self.positions
        costs = -self.chances * log_chances[(*at, self.tokens)]
        means = torch.zeros_like(nats).index_put(at, costs, accumulate=True)
        named = torch.zeros_like(nats).index_put(at, self.chances, accumulate=True)
        return torch.where(named > 0, means, nats)

    def to(self, device: torch.device) -> Targets:
        """The same on another device."""
        return Targets(*(part.to(device) for part in (self.rows, self.positions, self.tokens, self.chances)))


class SoftTargets:
    """Finds what else could stand in tales.

    Args:
        tokenizer: what cut the tales into tokens.
        grammar: the source of the tales; the lab's own if None.

    Source: Blackwell, Conditional Expectation and Unbiased Sequential Estimation, 1947.
    """

    def __init__(self, tokenizer: Tokenizer, grammar: TaleGrammar | None = None) -> None:
        self.tokenizer, self.grammar = tokenizer, grammar or load_grammar()
        self._tables: dict[tuple[tuple[str, ...], str, str], _Table | None] = {}

    def __call__(self, tokens: Tensor, order: GenerationOrder) -> Targets:
        """Targets of a batch under an order: given the tokens of earlier blocks, and all choices but one.

        Positions where one token alone could stand are not named, nor is a text that is no tale.

        Args:
            tokens: int64 (B, N), a whole tale in each row, with its end; padding behind it.
            order: who is made when; what stands in earlier blocks is known.

        Returns:
            Targets, on the device of the tokens.
        """
        blocks = order.blocks_in_text_order.expand(tokens.shape).cpu().numpy()
        parts: list[list[np.ndarray]] = [[], [], [], []]
        for row, (ids, made) in enumerate(zip(tokens.cpu().numpy(), blocks, strict=True)):
            made_behind = np.append(np.minimum.accumulate(made[::-1])[::-1][1:], made.max())
            sees_behind = made_behind < made
            for choice in self._choices(ids):
                share = choice.shares(made, sees_behind)
                which, at = share.nonzero()
                found = (np.full(len(which), row), choice.at[at], choice.tokens[which, at], share[which, at])
                for part, new in zip(parts, found, strict=True):
                    part.append(new)
        *where, chances = (torch.from_numpy(np.concatenate(part)) if part else torch.zeros(0) for part in parts)
        return Targets(*(index.long() for index in where), chances.float()).to(tokens.device)

    def _choices(self, ids: np.ndarray) -> Iterator[_Choice]:
        """The choices of the tale in a row of ids (N,)."""
        ends = np.flatnonzero(ids == self.tokenizer.end_of_text)
        tale = ids[: ends[0]].tolist() if len(ends) else []
        text = self.tokenizer.decode(tale)
        telling = self.grammar.read(text).telling
        again, starts = self.tokenizer.encode_with_starts(text)
        if telling is None or again != tale:
            return  # no tale, or cut into tokens otherwise than the forms of an alternative are
        bounds = np.array([*starts, len(text)])
        for choice in alternatives(telling):
            laid = self._lay(choice, text, bounds)
            if laid is not None:
                yield laid

    def _lay(self, choice: Alternatives, text: str, bounds: np.ndarray) -> _Choice | None:
        """A choice in tokens, or None where some form would share a token with what stands beside it."""
        at, tokens, is_own, mention, fits = [], [], [], [], []
        for span in choice.spans:
            table = self._table(span.forms, text[: span.start][-1:], text[span.end :][:1])
            if table is None:
                return None
            space = text[: span.start].endswith(" ")  # it belongs to the word behind it
            first, last = np.searchsorted(bounds, (span.start - space, span.end))
            rows, n = list(span.rows), last - first
            at.append(np.arange(first, last))
            tokens.append(table.ids[rows, :n])
            is_own.append(np.full(n, span.is_own))
            mention.append(np.full(n, len(fits)))
            fits.append(table.lengths[rows] == n)
        chances, told = np.array(choice.chances), (np.concatenate(part) for part in (at, is_own, mention))
        return _Choice(chances, choice.chosen, np.concatenate(tokens, 1), np.stack(fits, 1), *told)

    def _table(self, forms: tuple[str, ...], before: str, behind: str) -> _Table | None:
        """The ids of some forms between two characters, or None where one of them shares a token with those."""
        key = forms, before, behind
        if key not in self._tables:
            encode, space = self.tokenizer.encode, " " if before == " " else ""
            left, right = encode(before.strip()), encode(behind)
            ids = [encode(space + form) for form in forms]
            whole = [encode(before + form + behind) for form in forms]
            stands_alone = all(left + row + right == told for row, told in zip(ids, whole, strict=True))
            lengths = np.array([len(row) for row in ids])
            padded = np.full((len(ids), lengths.max()), -1)
            padded[np.arange(lengths.max()) < lengths[:, None]] = np.concatenate(ids)
            self._tables[key] = _Table(padded, lengths) if stands_alone else None
        return self._tables[key]


class _Table(NamedTuple):
    """Forms in tokens."""

    ids: np.ndarray  # (R, longest), filled up by -1
    lengths: np.ndarray  # (R,)


@dataclass(frozen=True)
class _Choice:
    """A choice in tokens: R alternatives, and K tokens of a row that hang on it, in M mentions."""

    chances: np.ndarray  # (R,)
    chosen: int  # what the tale has
    tokens: np.ndarray  # (R, K), -1 behind the end of words that need fewer than the tale's
    fits: np.ndarray  # (R, M), whether the words are as many tokens as the tale's
    at: np.ndarray  # (K,), positions in the row
    is_own: np.ndarray  # (K,), whether the token shows this choice alone
    mention: np.ndarray  # (K,), of the M

    def shares(self, made: np.ndarray, sees_behind: np.ndarray) -> np.ndarray:
        """The chance of each alternative at each token (R, K), given what is known there; 0 where all have one token.

        An alternative of fewer or more tokens moves all that follows. So it could be meant only where nothing that
        follows is known, and no earlier mention was moved by it.

        Args:
            made: (N,), the block of each position.
            sees_behind: bool (N,), whether something behind a position is known when it is made.
        """
        when = made[self.at]
        is_known = when[:, None] > when  # (K, K): at k, what stands at j
        differs = self.tokens != self.tokens[self.chosen]  # (R, K)
        could_be = ~(differs @ is_known.T)
        fits_before = np.logical_and.accumulate(self.fits, 1)
        fits_before = np.hstack([np.ones_like(fits_before[:, :1]), fits_before])  # the first mention has none before it
        could_be &= np.where(sees_behind[self.at], self.fits.all(1, keepdims=True), fits_before[:, self.mention])
        shares = self.chances[:, None] * could_be
        has_ended = (could_be & (self.tokens < 0)).any(0)  # then the next words count too, which are not known here
        could_differ = (could_be & differs).any(0)
        return shares / shares.sum(0) * (self.is_own & ~has_ended & could_differ)
