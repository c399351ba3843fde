"""Which choices made this tale, and what happens when one of its words is changed?

`steps` gives the choices as values; `TaleReader` lets a learner click through them, break an agreement and see
`tales.check` find it.
"""

from __future__ import annotations

import functools
import html
import math
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import ipywidgets as w

from armdlab import tales
from armdlab.figures.tales import agreements
from armdlab.grammar import Choice, Mention, Reading
from armdlab.grammar.values import Fork, Item, Slot
from armdlab.tales import TaleGrammar

# Okabe and Ito's sky blue and orange, under black letters: legible on light and on dark pages
CHOSEN, BROKEN = "#56B4E9", "#E69F00"
SHOWN_OTHERS = 6  # alternatives that are listed by name

Span = tuple[int, int]


@dataclass(frozen=True)
class Step:
    """One choice of a derivation, where the text shows it, and what could have been chosen.

    Args:
        choice: its name, words, probability and index.
        spans: first character and one past the last, of each mention.
        options: what stood to choose from, in its own words.
    """

    choice: Choice
    spans: tuple[Span, ...]
    options: tuple[str, ...]

    @property
    def nats(self) -> float:
        """What the choice costs: -log of its probability."""
        return -math.log(self.choice.probability)


def steps(text: str, grammar: TaleGrammar | None = None) -> list[Step]:
    """The choices of a tale, in the order of its derivation; their nats sum to -log p(tale).

    Args:
        text: a tale.
        grammar: the source; the lab's own tales if None.

    Raises:
        ValueError: if the text is no tale; the message says why.
    """
    source = grammar or tales.load_grammar()
    reading = source.read(text)
    if reading.derivation is None:
        raise ValueError(f"{reading.violations[0].sentence}; only a tale has a derivation")
    return list(_steps(source, reading))


def _steps(source: TaleGrammar, reading: Reading) -> Iterator[Step]:
    choices, whole = iter(reading.derivation), ((0, len(reading.text)),)
    chosen = next(choices)
    plot = source.grammar.plots[chosen.index]
    yield Step(chosen, whole, tuple(plot.name for plot in source.grammar.plots))
    chosen = next(choices)
    story = plot.stories[chosen.index]
    yield Step(chosen, whole, tuple(story.name for story in plot.stories))

    values: dict[str, int] = {}
    for draw in story.draws:
        chosen, rows = next(choices), draw.support(values)
        values[draw.name] = rows[chosen.index]
        spans = tuple((m.start, m.end) for m in reading.mentions if m.variable == draw.name)
        yield Step(chosen, spans, tuple(draw.names[row] for row in rows))
    for total in story.sums:
        values[total.name] = total.row(values)

    found: list[Step] = []
    _walk(story.items, values, choices, 0, found)
    yield from found


def _walk(items: Iterable[Item], values: Mapping[str, int], choices: Iterator[Choice], at: int, found: list) -> int:
    """Follow the wording from character `at`; return the character where it ends."""
    for item in items:
        if isinstance(item, str):
            at += len(item)
        elif isinstance(item, Slot):
            at += len(item.forms[values[item.variable]])
        elif isinstance(item, Fork):
            start, chosen, place = at, next(choices), len(found)
            found.append(None)  # a choice comes before those inside it, but ends after them
            at = _walk(item.options[chosen.index], values, choices, at, found)
            found[place] = Step(chosen, ((start, at),), tuple(_words(option, values) for option in item.options))
    return at


def _words(option: Iterable[Item], values: Mapping[str, int]) -> str:
    """An option as it would read in this tale; a choice inside it shows its name."""
    shown = {str: str, Slot: lambda slot: slot.forms[values[slot.variable]], Fork: lambda fork: f"<{fork.name}>"}
    return "".join(shown[type(item)](item) for item in option if type(item) in shown)


def _guarded(method: Callable) -> Callable:
    """Show an error as a sentence in the reader: what a callback raises is seen by nobody."""

    @functools.wraps(method)
    def guarded(self: TaleReader, *arguments: object) -> None:
        try:
            method(self, *arguments)
        except Exception as error:
            self.last_error = traceback.format_exc()
            self._say(f"{error or type(error).__name__}", is_alert=True)

    return guarded


class TaleReader(w.VBox):
    """A tale to click through: its choices, their chances, and what `check` says once a word is changed.

    Every control is reached by Tab. JupyterLab keeps arrow keys for itself, except in fields that are typed into: so
    the number of a choice is such a field (up and down walk), and an agreement can be broken by typing, too.

    Args:
        seed: which tale is told first.
        grammar: the source; the lab's own tales if None.
    """

    def __init__(self, seed: int = 7, grammar: TaleGrammar | None = None) -> None:
        self.source = grammar or tales.load_grammar()
        self.last_error: str | None = None
        self._is_filling = False
        whole = {"style": {"description_width": "initial"}}  # of a label: never cut
        self.seed = w.BoundedIntText(
            seed, min=0, max=10**9, description="tale number", layout=w.Layout(width="14em"), **whole
        )
        self.tell_button = w.Button(description="Tell it", layout=w.Layout(width="7em"))
        self.page = w.HTML()
        self.number = w.BoundedIntText(
            1, min=1, max=1, description="choice number", layout=w.Layout(width="14em"), **whole
        )
        self.choices = w.Select(rows=9, layout=w.Layout(width="98%"))
        self.choice = w.HTML()
        self.mention = w.Dropdown(description="word", layout=w.Layout(width="auto"), **whole)
        self.other = w.Dropdown(description="becomes", layout=w.Layout(width="auto"), **whole)
        self.break_button = w.Button(description="Break it", layout=w.Layout(width="7em"))
        self.mend_button = w.Button(description="Mend it", layout=w.Layout(width="7em"))
        self.own = w.Textarea(
            placeholder="Write or paste a text of your own, or change the tale here.",
            layout=w.Layout(width="98%", height="6em"),
        )
        self.check_button = w.Button(description="Check this text")
        self.verdict = w.HTML()
        super().__init__(
            [
                w.HBox([self.seed, self.tell_button]),
                self.page,
                self.verdict,
                _heading("Its choices, one by one"),
                self.number,
                self.choices,
                self.choice,
                _heading("Break an agreement"),
                w.HBox([self.mention, self.other, self.break_button, self.mend_button], layout=_WRAP),
                _heading("Or change it by hand"),
                self.own,
                self.check_button,
            ],
            layout=w.Layout(width="100%", max_width="60em"),
        )
        self.tell_button.on_click(lambda _: self.tell(self.seed.value))
        self.number.observe(lambda _: self._go(self.number.value - 1), "value")
        self.choices.observe(lambda _: self._go(self.choices.index), "index")
        self.mention.observe(lambda _: self._offer(), "index")
        self.break_button.on_click(lambda _: self.change(self.mention.index, self.other.value))
        self.mend_button.on_click(lambda _: self.mend())
        self.check_button.on_click(lambda _: self.check(self.own.value))
        self.tell(seed)

    def __repr__(self) -> str:
        state = "consistent" if self.reading.is_consistent else f"{len(self.reading.violations)} violation(s)"
        return f"TaleReader(seed={self.seed.value}, {len(self.steps)} choices, {state})"

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:  # noqa: ANN401
        shown = super()._repr_mimebundle_(**kwargs)
        picture = agreements(self.source.read(self.tale))._repr_mimebundle_() if self.mentions else {}
        return picture | shown  # the picture is for where no view can be

    @_guarded
    def tell(self, seed: int) -> None:
        """Tell another tale."""
        tale = self.source.sample(seed)
        self.tale, self.steps = tale.text, steps(tale.text, self.source)
        self.seed.value = seed
        self.mentions = [m for m in self.source.read(tale.text).mentions if m.distance is not None]
        self._is_filling = True
        so_far, labels = 0.0, []
        for number, step in enumerate(self.steps, 1):
            so_far += step.nats
            labels.append(_label(number, step, so_far))
        self.choices.options = labels
        self.choices.index = 0
        self.number.max, self.number.value = len(labels), 1
        self.mention.options = [_mention_label(number, mention) for number, mention in enumerate(self.mentions, 1)]
        self.mention.index = 0 if self.mentions else None
        self._is_filling = False
        self._offer()
        self.check(self.tale)

    @_guarded
    def change(self, mention: int, words: str) -> None:
        """Write other words for one mention of the tale, and check what comes of it."""
        at = self.mentions[mention]
        self.check(self.tale[: at.start] + words + self.tale[at.end :])

    def mend(self) -> None:
        """Give back the tale as it was told."""
        self.check(self.tale)

    @_guarded
    def check(self, text: str) -> None:
        """Judge any text, and show it as text."""
        self.reading = self.source.read(text)
        self.own.value = text
        self._draw()
        if self.reading.is_consistent:
            nats = -self.reading.log_prob
            self._say(
                f"A tale: it parses, all its mentions agree, and it costs {nats:.3f} nats (p = {math.exp(-nats):.2e})."
            )
            return
        level = "It parses, but it contradicts itself" if self.reading.parses else "It does not parse"
        found = "; ".join(f"{v.kind}: {v.sentence}" for v in self.reading.violations)
        self._say(f"{level}, so log p = -inf. {found}.", is_alert=True)

    def _go(self, index: int | None) -> None:
        """Show a choice, picked in the list or by its number."""
        if self._is_filling or index is None:
            return
        self.choices.index, self.number.value = index, index + 1
        self._draw()

    def _draw(self) -> None:
        """The text with the chosen words and the broken ones marked, and the choice in words."""
        step = self.steps[self.choices.index or 0]
        is_told = self.reading.text == self.tale
        spans = step.spans if is_told and step.spans != ((0, len(self.tale)),) else ()
        self.page.value = _page(self.reading.text, spans, [(v.start, v.end) for v in self.reading.violations])
        where = "" if is_told else " The text above is no longer the tale that was told, so its words are not marked."
        self.choice.value = f'<p role="status" style="line-height: 1.4">{html.escape(_in_words(step) + where)}</p>'

    def _offer(self) -> None:
        """Fill the list of wrong words for the mention that is picked."""
        if self._is_filling or self.mention.index is None:
            return
        at = self.mentions[self.mention.index]
        self.other.options = [option for option in at.options if option != at.words]
        self.other.index = 0  # a list that was empty before would pick nothing

    def _say(self, sentence: str, *, is_alert: bool = False) -> None:
        role, mark = ("alert", "\u2717") if is_alert else ("status", "\u2713")
        self.verdict.value = f'<p role="{role}" style="line-height: 1.4"><b>{mark}</b> {html.escape(sentence)}</p>'


_WRAP = w.Layout(flex_flow="row wrap")


def _heading(text: str) -> w.HTML:
    return w.HTML(f"<b>{html.escape(text)}</b>")


def _label(number: int, step: Step, so_far: float) -> str:
    words = step.choice.text if len(step.choice.text) <= 60 else step.choice.text[:57] + "..."
    return f"{number:>2}. {step.choice.name}: {words}   p = {step.choice.probability:.4g}, {so_far:.2f} nats so far"


def _mention_label(number: int, mention: Mention) -> str:
    return f"{number}. {mention.words} ({mention.kind}, settled {mention.distance} words away)"


def _in_words(step: Step) -> str:
    others = [option for i, option in enumerate(step.options) if i != step.choice.index]
    listed = ", ".join(f'"{option}"' for option in others[:SHOWN_OTHERS])
    rest = f" and {len(others) - SHOWN_OTHERS} more" if len(others) > SHOWN_OTHERS else ""
    instead = f" It could have been {listed}{rest}." if others else " There was no other."
    return (
        f'{step.choice.name} is "{step.choice.text}", one of {len(step.options)}, with probability '
        f"{step.choice.probability:.4g}: {step.nats:.3f} nats.{instead}"
    )


def _page(text: str, chosen: Iterable[Span], broken: Iterable[Span]) -> str:
    """The text as HTML in which nothing of the text is HTML; chosen words and broken ones are marked."""
    marks = [(start, stop, CHOSEN, "underline", "chosen") for start, stop in chosen]
    marks += [(start, stop, BROKEN, "underline wavy", "broken") for start, stop in broken]
    cuts = sorted({0, len(text), *(edge for start, stop, *_ in marks for edge in (start, stop))})
    pieces = []
    for start, stop in pairwise(cuts):
        words = html.escape(text[start:stop])
        for first, last, colour, line, name in reversed(marks):
            if first <= start and stop <= last:
                style = f"background: {colour}; color: #000; text-decoration: {line}"
                words = f'<mark style="{style}" title="{name}">{words}</mark>'
                break
        pieces.append(words)
    style = "font-size: 1.15em; line-height: 1.6; white-space: pre-wrap; overflow-wrap: anywhere"
    return f'<p aria-label="tale" style="{style}">{"".join(pieces) or "(no text)"}</p>'
