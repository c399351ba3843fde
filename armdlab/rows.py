"""How do texts become rows of ids, and which of these ids must be paid for?

`Text` is one long stream, of which rows are cut anywhere; `Rows` hold whole texts.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from armdlab.counts import at_least_one
from armdlab.orders import GenerationOrder
from armdlab.soft_targets import SoftTargets
from armdlab.tokenization import Tokenizer

Layout = Literal["padded", "packed"]


@dataclass(frozen=True)
class Text:
    """A corpus as a model sees it: one row of ids, an end-of-text id after each document.

    Args:
        ids: int32 (T,) as encoded, for web corpora are large; what is drawn from it is int64.
        n_characters: how many characters the ids stand for, ends of texts not counted.
    """

    ids: Tensor
    n_characters: int

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of its ids: a run that goes on must go on with the very same text."""
        return _digest(self.ids)

    @classmethod
    def encode(cls, texts: Iterable[str], tokenizer: Tokenizer, *, at_most: int | None = None) -> Text:
        """Encode documents and join them.

        Args:
            texts: documents.
            tokenizer: what encodes them.
            at_most: stop after the first document that brings the tokens to this number; None takes all.
        """
        # Python's lists need ten times the memory of the ids: corpora of the web come in parts of a million
        parts, ids, n_characters = [], [], 0
        for document, encoded in _encoded(texts, tokenizer, at_most):
            ids += encoded
            n_characters += len(document)
            if len(ids) >= 1_000_000:
                parts.append(torch.tensor(ids, dtype=torch.int32))
                ids = []
        return cls(torch.cat([*parts, torch.tensor(ids, dtype=torch.int32)]), n_characters)

    def windows(self, length: int, count: int, generator: torch.Generator) -> Tensor:
        """Draw int64 (count, length) stretches that start anywhere.

        Raises:
            ValueError: if the text is shorter than one stretch.
        """
        if len(self.ids) < length:
            raise ValueError(
                f"the training text has {len(self.ids)} tokens, fewer than one row of length={length}; "
                "give more text, or shorter rows"
            )
        starts = torch.randint(len(self.ids) - length + 1, (count, 1), generator=generator)
        return self.ids[starts + torch.arange(length)].long()


@dataclass(frozen=True)
class Rows:
    """A corpus whose rows hold whole documents; what is left of a row is padding.

    Every document ends in an end-of-text id, and padding is that same id: once a text has ended, nothing follows. Who
    reads a row drops what stands behind its last end, so padding is paid for only where it must be (see `is_paid`).

    Args:
        ids: int64 (T,), all documents, each with its end; padding is added when a row is drawn.
        bounds: int64 (R + 1,), where each of R rows begins in `ids`, and where the last one ends.
        length: tokens in a row, N.
        layout: "padded", one document a row; "packed", as many whole ones as fit, in their order.
        end_of_text: the id that ends a document, and fills a row.
        n_documents: how many documents the rows hold.
        n_characters: how many characters the ids stand for, ends of texts not counted.
        soft_targets: what finds the tokens that could stand in place of those of a batch, and is learnt from in their
            place; None where nobody knows.
    """

    ids: Tensor
    bounds: Tensor
    length: int
    layout: Layout
    end_of_text: int
    n_documents: int
    n_characters: int
    soft_targets: SoftTargets | None = None

    @classmethod
    def encode(
        cls,
        texts: Iterable[str],
        tokenizer: Tokenizer,
        length: int,
        layout: Layout = "padded",
        *,
        at_most: int | None = None,
    ) -> Rows:
        """Encode documents and lay them into rows.

        Args:
            texts: documents, none of them empty.
            tokenizer: what encodes them.
            length: tokens in a row, N.
            layout: "padded" or "packed".
            at_most: stop after the first document that brings the tokens to this number; None takes all.

        Raises:
            ValueError: if `layout` is unknown, there is no document, or one is empty or does not fit a row.
        """
        if layout not in ("padded", "packed"):
            raise ValueError(f"layout={layout!r} is unknown; choose padded (a text a row) or packed (as many as fit)")
        ids, starts, n_characters = [], [], 0
        for text, encoded in _encoded(texts, tokenizer, at_most):
            if not text:
                raise ValueError("a document is empty, which no row can show; leave it out")
            if len(encoded) > length:
                raise ValueError(
                    f"the text {_opening(text)} has {len(encoded)} tokens with its end, and a row has length={length}; "
                    f"take a length of {len(encoded)} or more"
                )
            starts.append(len(ids))
            ids += encoded
            n_characters += len(text)
        if not starts:
            raise ValueError("there is no text to lay into rows; give at least one document")
        bounds = [0]
        for start, stop in itertools.pairwise([*starts, len(ids)]):
            if start > bounds[-1] and (layout == "padded" or stop - bounds[-1] > length):
                bounds.append(start)
        bounds = torch.tensor([*bounds, len(ids)])
        return cls(torch.tensor(ids), bounds, length, layout, tokenizer.end_of_text, len(starts), n_characters)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of its ids and of where rows begin: a run that goes on must go on with the very same rows."""
        is_soft = self.soft_targets is not None
        return _digest(self.ids, self.bounds) + is_soft * " with soft targets"

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def windows(self, length: int, count: int, generator: torch.Generator) -> Tensor:
        """Draw int64 (count, length) whole rows, as `Text.windows` draws stretches.

        Raises:
            ValueError: if `length` is not that of the rows.
        """
        if length != self.length:
            raise ValueError(
                f"length={length} is asked for, but the rows were laid out for {self.length}; lay them anew"
            )
        return self.pad(torch.randint(len(self), (count,), generator=generator))

    def batches(self, size: int) -> Iterator[Tensor]:
        """All rows in their order, as int64 (B, N) of at most `size` rows."""
        return map(self.pad, torch.arange(len(self)).split(at_least_one("batch_size", size)))

    def pad(self, rows: Tensor) -> Tensor:
        """The rows of these numbers: int64 (R,) -> (R, N)."""
        starts, stops = self.bounds[rows, None], self.bounds[rows + 1, None]
        at = starts + torch.arange(self.length)  # (R, N)
        return torch.where(at < stops, self.ids[at.clamp(max=len(self.ids) - 1)], self.end_of_text)

    def is_text(self, tokens: Tensor) -> Tensor:
        """Which positions of rows hold text or its end: bool (B, N). A second end in a row is padding."""
        is_end = tokens == self.end_of_text
        follows_end = F.pad(is_end[:, :-1], (1, 0), value=False)
        return ~(is_end & follows_end)

    def is_paid(self, tokens: Tensor, order: GenerationOrder) -> Tensor:
        """Whose nats make up the price of the texts in a row, under an order: bool (B, N).

        Text is paid for, and so is padding that some text, made later, saw. All other padding is dropped by whoever
        reads the row, whatever it is, so the chances of what it could be sum to 1 and it costs nothing.

        Left to right no padding is paid for. A head of a strided stream that stands behind the end of the text is: that
        it makes padding tells the other streams how short the text is. Were it free, the chances of all texts would sum
        to more than 1, and a model could seem better than the truth. Were it not learnt, every sampled text would have
        to be longer than the last head's position.

        Args:
            tokens: int64 (B, N), rows of this corpus.
            order: who is made when; on the device of the tokens.
        """
        is_text, blocks = self.is_text(tokens), order.blocks_in_text_order  # (B, N), (N,) or (B, N)
        last = torch.where(is_text, blocks, -1).amax(-1, keepdim=True)
        return is_text | (blocks < last)


def encode(
    texts: Iterable[str], tokenizer: Tokenizer, length: int, layout: str, at_most: int | None = None
) -> Text | Rows:
    """Turn documents into what is learnt or scored.

    Raises:
        ValueError: if `layout` is unknown.
    """
    if layout == "running":
        return Text.encode(texts, tokenizer, at_most=at_most)
    if layout not in ("padded", "packed"):
        raise ValueError(f"layout={layout!r} is unknown; choose running, padded (a text a row) or packed")
    return Rows.encode(texts, tokenizer, length, layout, at_most=at_most)


def _encoded(texts: Iterable[str], tokenizer: Tokenizer, at_most: int | None) -> Iterator[tuple[str, list[int]]]:
    """Documents with their ids and end, up to the first that brings the tokens to `at_most`."""
    n_tokens = 0
    for batch in _batches(texts, 256):
        for document, ids in zip(batch, tokenizer.encode_all(batch), strict=True):
            yield document, [*ids, tokenizer.end_of_text]
            n_tokens += len(ids) + 1
            if at_most is not None and n_tokens >= at_most:
                return


def _digest(*parts: Tensor) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.to(torch.int32).contiguous().numpy())
    return digest.hexdigest()


def _opening(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:37] + "...")


def _batches(texts: Iterable[str], size: int) -> Iterator[list[str]]:
    iterator = iter(texts)
    while batch := list(itertools.islice(iterator, size)):
        yield batch
