"""Which order did a reader pick by hand, for which words? (controls that several views share; order_picker.js)"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from armdlab.masks import causal_mask, strictly_causal_mask
from armdlab.orders import GenerationOrder
from armdlab.tokenization import Tokenizer
from armdlab.traces import given_pieces

KINDS = ("left to right", "shuffled", "strided", "random", "masking", "blockwise", "painted")


@dataclass(frozen=True)
class Wish:
    """What the controls say: a text and an order for its words.

    Args:
        text: words with white space between them.
        kind: one of `KINDS`.
        number: how many positions are shuffled, streams S, steps T of masking, or words of a block; whichever `kind`
            asks for.
        seed: of chance, where `kind` draws.
        painted: steps of positions that were clicked; what was not clicked follows left to right.
    """

    text: str
    kind: str = "left to right"
    number: Any = 2
    seed: int = 0
    painted: tuple[tuple[int, ...], ...] = ()

    @classmethod
    def of(cls, text: str, length: int, order: GenerationOrder | None) -> Wish:
        """The wish that gives this order for a text of so many words; left to right if None.

        Raises:
            ValueError: if the order is of another length.
        """
        if order is None:
            return cls(text)
        if order.length != length:
            raise ValueError(f"order={order} is not for the {length} words of the text; make one that is")
        return cls(text, "painted", painted=tuple(tuple(step.tolist()) for step in order.steps()))

    def changed(self, content: dict[str, Any]) -> Wish:
        """The same wish with whatever a message of a view says anew."""
        new = {name: content[name] for name in asdict(self) if name in content}
        if "painted" in new:
            new["painted"] = tuple(map(tuple, new["painted"]))
        return replace(self, **new)

    def order(self, length: int) -> GenerationOrder:
        """The order of so many words.

        Raises:
            ValueError: if there is no such kind, or its number does not fit the length.

        >>> Wish("", "strided", 2).order(4).positions.tolist()
        [0, 2, 1, 3]
        """
        chance = torch.Generator().manual_seed(self.seed)
        match self.kind:
            case "left to right":
                return GenerationOrder.left_to_right(length)
            case "shuffled":
                return GenerationOrder.shuffled(length, self.number, generator=chance)
            case "strided":
                return GenerationOrder.strided(length, self.number)
            case "random":
                return GenerationOrder.random(length, generator=chance)
            case "masking":
                return GenerationOrder.masking_process(length, self.number, generator=chance)
            case "blockwise":
                return GenerationOrder.blockwise(length, self.number)
            case "painted":
                return painted_order(length, self.painted)
        raise ValueError(f"kind={self.kind!r} is no kind of order; choose one of {', '.join(KINDS)}")


def words_of(text: str, most: int) -> list[str]:
    """What stands between white space.

    Raises:
        ValueError: if there is no word, or more than `most`, which is what a picture can hold.
    """
    words = text.split()
    if not words:
        raise ValueError("the text holds no word; write at least one")
    if len(words) > most:
        raise ValueError(f"the text has {len(words):,} words and the picture holds {most}; shorten it")
    return words


def tokens_of(tokenizer: Tokenizer, text: str, most: int) -> tuple[list[int], list[str]]:
    """Ids of a text as a model reads it, and what each adds to it (a space before a word belongs to it).

    A letter that takes several ids, as an emoji does, belongs to the last of them; the others add nothing.

    Raises:
        ValueError: if there is no token, or more than `most`.
    """
    ids = tokenizer.encode(text.strip())
    if not ids:
        raise ValueError("the text holds no word; write at least one")
    if len(ids) > most:
        raise ValueError(f"the text has {len(ids):,} tokens and the picture holds {most}; shorten it")
    return ids, list(given_pieces(tokenizer, ids))


def quoted(word: str) -> str:
    """A word in quotation marks, isolated so that it keeps its own direction of writing; a very long one is cut."""
    return f"\u201c\u2068{_short(word)}\u2069\u201d"


def labels(words: Sequence[str]) -> list[str]:
    """Words as the labels of a figure, to which a pair of dollars would be mathematics."""
    return [_short(word).replace("$", r"\$") for word in words]


def _short(word: str, most: int = 30) -> str:
    word = word.strip() if word else "\u2026"  # a part of a letter, which stands at the last of its tokens
    return word if len(word) <= most else f"{word[: most - 1]}\u2026"


def painted_order(length: int, painted: Sequence[Sequence[int]]) -> GenerationOrder:
    """Painted steps come first, one block each; the other positions follow left to right, one at a time.

    Raises:
        ValueError: if a painted position is not in the text.

    >>> order = painted_order(4, [[2], [0, 3]])
    >>> order.positions.tolist(), order.blocks.tolist()
    ([2, 0, 3, 1], [0, 1, 1, 2])
    """
    steps = [list(step) for step in painted if step]
    known = [p for step in steps for p in step]
    if known and max(known) >= length:
        raise ValueError(f"position {max(known)} is painted but the text has {length} words; start the painting again")
    steps += [[p] for p in range(length) if p not in known]
    blocks = [block for block, step in enumerate(steps) for _ in step]
    return GenerationOrder([p for step in steps for p in step], blocks)


def shown(wish: Wish, words: Sequence[str], order: GenerationOrder) -> dict[str, Any]:
    """What the controls and the ribbon of a view show; lists by position stand in text order."""
    return {
        "wish": asdict(wish),
        "words": list(words),
        "positions": order.positions.tolist(),
        "ranks": order.ranks.tolist(),
        "blocks": order.blocks_in_text_order.tolist(),
        "summary": summary(order),
    }


def summary(order: GenerationOrder) -> str:
    """How many tokens in how many steps, and how many at most together."""
    n, steps = order.length, order.n_blocks
    most = int(torch.bincount(order.blocks).max())
    tokens, taken = ("1 token" if n == 1 else f"{n} tokens"), ("1 step" if steps == 1 else f"{steps} steps")
    return f"{tokens} in {taken}" + (f", up to {most} made together" if most > 1 else ", one at a time")


def shown_masks(order: GenerationOrder) -> dict[str, Any]:
    """Both masks [n][i] of 0 and 1, and `relations`, in text order."""
    return {
        "causal": causal_mask(order, in_text_order=True).int().tolist(),
        "strict": strictly_causal_mask(order, in_text_order=True).int().tolist(),
        "relations": relations(order),
    }


def relations(order: GenerationOrder) -> list[list[str]]:
    """[n][i], in text order: when i is made, as n sees it: "earlier", "together", "later", or "itself"."""
    before = strictly_causal_mask(order, in_text_order=True).tolist()

    def relation(n: int, i: int) -> str:
        return "itself" if n == i else "earlier" if before[n][i] else "later" if before[i][n] else "together"

    return [[relation(n, i) for i in range(order.length)] for n in range(order.length)]
