"""Does changing one token move an output that must not move? See it for ARMD and for two models that leak on purpose.

Under strict causality an output depends on earlier blocks only. So whoever changes a token may move the outputs of
later blocks; those of its own block and of all before must stay as they are, to the last bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import traitlets
from torch import Tensor

from armdlab import figures
from armdlab.baselines import LeakyMask, LeakyQuery
from armdlab.figures import Picture
from armdlab.masks import strictly_causal_mask
from armdlab.model import ARMD, ARMDConfig
from armdlab.networks import with_waves
from armdlab.orders import GenerationOrder
from armdlab.trained import Lab
from armdlab.widgets.order_picker import Wish, labels, quoted, shown, tokens_of, words_of
from armdlab.widgets.view import View

MOST_WORDS = 24  # a heat map of three rows stays legible
MODELS = {  # name -> class, and what is right or wrong with it
    "ARMD": (ARMD, "right query, right mask"),
    "LeakyQuery": (LeakyQuery, "right mask, but each query holds its own token"),
    "LeakyMask": (LeakyMask, "right query, but keys and values of the own block are seen"),
}


@dataclass(frozen=True)
class Moved:
    """How one model's outputs moved when one token was changed.

    Args:
        model: its name.
        by: float (N,), text order: the largest change of a logit at each output.
        must_stay: bool (N,), where strict causality demands exactly 0.
    """

    model: str
    by: Tensor = field(repr=False)
    must_stay: Tensor = field(repr=False)

    @property
    def leaks(self) -> list[int]:
        """Positions whose output moved although it must not."""
        return (self.must_stay & (self.by != 0)).nonzero().squeeze(-1).tolist()

    def verdict(self, words: Sequence[str]) -> str:
        """What was found, in words."""
        n = int(self.must_stay.sum())
        must = "The 1 output that must stay" if n == 1 else f"The {n} outputs that must stay"
        if not self.leaks:
            return f"{must} at exactly 0 {'does' if n == 1 else 'do'}."
        found = ", ".join(f"{quoted(words[p])} by {float(self.by[p]):.2g}" for p in self.leaks)
        return f"Leak: {len(self.leaks)} of the {n} outputs that must stay at exactly 0 moved: {found}."


def must_stay(order: GenerationOrder, changed: int) -> Tensor:
    """Which outputs must not move when position `changed` is changed: bool (N,), text order.

    >>> must_stay(GenerationOrder.blockwise(4, 2), changed=2).tolist()
    [True, True, True, True]
    >>> must_stay(GenerationOrder.blockwise(4, 2), changed=0).tolist()
    [True, True, False, False]
    """
    return ~strictly_causal_mask(order, in_text_order=True)[:, changed]


@torch.no_grad()
def movement(model: ARMD, tokens: Tensor, order: GenerationOrder, changed: int, into: int) -> Tensor:
    """The largest change of a logit at each output when one token becomes another: float (N,), text order.

    Args:
        model: in evaluation mode.
        tokens: int64 (1, N).
        order: the order under which it predicts.
        changed: the position of the token.
        into: the id that it becomes.
    """
    other = tokens.clone()
    other[0, changed] = into
    device = model.bos.device
    # two passes of one shape: rows of one batch may take different kernels, which would differ in the last bit
    before, after = (model(ids.to(device), order.to(device)) for ids in (tokens, other))
    return (after - before).abs().amax(-1)[0].cpu()


def small_models() -> dict[str, ARMD]:
    """The three models with the very same random weights; the global stream of chance is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return same_weights(ARMD(ARMDConfig(vocab_size=64, max_length=MOST_WORDS, n_layer=4, n_head=2, d_model=32)))


def same_weights(model: ARMD) -> dict[str, ARMD]:
    """A model and its two leaky twins, which differ from it in what reads what and in no weight."""
    twins = {}
    for name, (cls, _) in MODELS.items():
        with torch.random.fork_rng(devices=[]):
            twins[name] = cls(model.config).to(model.bos.device).eval()
        twins[name].load_state_dict(model.state_dict())
    return twins


class LeakDetector(View):
    """Change one word, and see how far each output of three models moves.

    Args:
        text: up to 24 words, or tokens of `lab`.
        order: what to start from; left to right if None.
        lab: a trained ARMD whose weights the three models take; small random ones if None (whether something leaks
            does not depend on training).

    Raises:
        ValueError: if the text is empty or too long, the order is of another length, or `lab` holds no ARMD.
    """

    files = ("order_picker", "leak_detector")

    state = traitlets.Dict().tag(sync=True)

    def __init__(
        self, text: str = "the cat sat on the mat", order: GenerationOrder | None = None, *, lab: Lab | None = None
    ) -> None:
        model = None if lab is None else with_waves(lab.model)  # the twins have waves
        if model is not None and type(model) is not ARMD:
            raise ValueError(
                f"lab holds the model {type(lab.model).__name__}, which has no leaky twins; give one with an ARMD"
            )
        self._lab, self._models = lab, small_models() if model is None else same_weights(model)
        words = self._read(text)[1]
        self._wish, self._changed, self._into = Wish.of(text, len(words), order), None, self._another(words)
        self.order, self.found, state = self._detect(self._wish, self._changed, self._into)
        super().__init__(state=state)

    def __repr__(self) -> str:
        counts = ", ".join(f"{moved.model} {len(moved.leaks)}" for moved in self.found)
        return f"LeakDetector({self.state['said']}; outputs that moved and must not: {counts})"

    def answer(self, content: dict[str, Any]) -> dict[str, Any]:
        """Follow the controls: another text, order, word to change, or word to change it into."""
        wish = self._wish.changed(content)
        changed, into = content.get("changed", self._changed), content.get("into", self._into)
        self.order, self.found, self.state = self._detect(wish, changed, into)
        self._wish, self._changed, self._into = wish, changed, into
        return {}

    def picture(self) -> Picture:
        """Which outputs move, for each word that can be changed and each model."""
        tokens = torch.tensor([self._read(self._wish.text)[0]])
        changes = {name: figures.leak_matrix(model, tokens, self.order) for name, model in self._models.items()}
        return figures.leaks(changes, labels(self.state["words"]), self.order)

    def _read(self, text: str) -> tuple[list[int], list[str]]:
        """Ids and words of a text."""
        if self._lab is not None:
            return tokens_of(self._lab.tokenizer, text, MOST_WORDS)
        words = words_of(text, MOST_WORDS)
        ids = {word: number for number, word in enumerate(dict.fromkeys(words))}
        return [ids[word] for word in words], words

    def _id(self, word: str, instead: str, ids: list[int], words: list[str]) -> int:
        """The id of a word that takes the place of another."""
        if self._lab is None:
            if len(word.split()) != 1:
                raise ValueError(f"{quoted(word)} is not one word, and one is changed into one; write one")
            return dict(zip(words, ids, strict=True)).get(word.strip(), max(ids) + 1)
        spaces = ("", " ") if not instead.startswith(" ") else (" ", "")  # most tokens hold the space before the word
        found = [self._lab.tokenizer.encode(space + word.strip()) for space in spaces]
        if all(len(ids) != 1 for ids in found):
            raise ValueError(
                f"{quoted(word)} is {len(found[0])} tokens to this model, and one is changed into one; try another word"
            )
        return next(ids[0] for ids in found if len(ids) == 1)

    def _another(self, words: list[str]) -> str:
        """A word that the text does not hold, and that is one token to the model."""
        if self._lab is None:
            return next(word for word in ("fox", "owl", "dog", "bee") if word not in words or word == "bee")
        pieces = (self._lab.tokenizer.decode([i]) for i in range(self._lab.tokenizer.vocab_size))
        return next(p.strip() for p in pieces if p[0] == " " and p[1:].isalpha() and len(p) > 4 and p not in words)

    def _detect(
        self, wish: Wish, changed: int | None, into: str
    ) -> tuple[GenerationOrder, list[Moved], dict[str, Any]]:
        ids, words = self._read(wish.text)
        order = wish.order(len(words))
        at = int(order.positions[0]) if changed is None else changed  # the word made first moves the most
        if not 0 <= at < len(words):
            raise ValueError(f"position {at} is to be changed but the text has {len(words)} words; choose another")
        new, tokens, stay = self._id(into, words[at], ids, words), torch.tensor([ids]), must_stay(order, at)
        if new == ids[at]:
            raise ValueError(f"{quoted(words[at])} is what stands there already; change it into another word")
        found = [Moved(name, movement(model, tokens, order, at, new), stay) for name, model in self._models.items()]
        is_last = at == int(order.positions[-1])
        return (
            order,
            found,
            shown(wish, words, order)
            | {
                "changed": at,
                "into": into,
                "said": f"position {at} {quoted(words[at])} becomes {quoted(into)}",
                "must_stay": stay.tolist(),
                "models": [
                    {
                        "name": moved.model,
                        "why": MODELS[moved.model][1],
                        "by": moved.by.tolist(),
                        "leaks": moved.leaks,
                        "verdict": moved.verdict(words),
                    }
                    for moved in found
                ],
                "aside": "No model reads the word that is made last, so changing it finds no leak; change another."
                if is_last and not any(moved.leaks for moved in found)
                else "",
            },
        )
