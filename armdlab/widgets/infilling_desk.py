"""What would the model write into these gaps, and how likely is each alternative, given all the rest? (infilling desk)

Click words away, choose in which order the gaps are filled, and compare what comes: the model's own fillings, the
words that stood there, words of your own. Run this module to record anew what the desk opens with.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import traitlets
from matplotlib.figure import Figure
from torch import Tensor

from armdlab import tales
from armdlab.figures import INK, PALETTE, Picture
from armdlab.orders import GenerationOrder
from armdlab.trained import Lab, load
from armdlab.widgets.gaps import (
    COMMON,
    ORDERS,
    SUREST,
    Candidate,
    How,
    Page,
    common_log_probs,
    verdict,
    walked_order,
    whole_characters,
)
from armdlab.widgets.order_picker import labels
from armdlab.widgets.view import View

RECORDED = Path(__file__).resolve().parents[2] / "data" / "traces" / "infill.json"
FIRST_TALE = 300  # short, and with words that only its end gives away
GAPS = (8, 9, 12, 21, 101)  # in that tale
MOST = 40  # candidates that a list can hold and a reader can compare


class InfillingDesk(View):
    """Leave words out of a text, have the gaps filled in an order of your choice, and compare the candidates.

    Args:
        text: what to start from; a recorded example if None.
        without: words to leave out at the start, by number (from 0) or by spelling, each one that is spelt so.
        lab: whose model fills; the lab's tales if None, loaded when first needed.

    Raises:
        ValueError: if the text is empty or too long, or `without` names a word that is not there.
    """

    files = ("order_picker", "infilling_desk")

    state = traitlets.Dict().tag(sync=True)
    asked = traitlets.Dict().tag(sync=True)

    def __init__(self, text: str | None = None, without: Sequence[int | str] = (), *, lab: Lab | None = None) -> None:
        self._lab, self._page, self._run_id = lab, None, None
        self._work: Iterator[list[dict[str, Any]]] | None = None
        self._common, self._kept, self._tale = COMMON[0], {}, FIRST_TALE
        asked = {"order": ORDERS[0], "streams": 1, "temperature": 1.0, "seed": 1, "common": self._common}
        if text is None and not without and lab is None:
            recorded = json.loads(RECORDED.read_text(encoding="utf-8"))
            super().__init__(state=recorded["state"], asked=asked)
            self._recorded = recorded["candidates"]
            return
        self._recorded = []
        page = self._read(tales.sample(FIRST_TALE).text if text is None else text)
        self._page = page.without(_numbers(page, without))
        super().__init__(state=self._shown(), asked=asked)

    def __repr__(self) -> str:
        n_gaps, n_open = len(self.state["gaps"]), sum(gap["tokens"] for gap in self.state["gaps"])
        n_candidates, n_tokens = len(self.state["candidates"]), sum(self.state["n_tokens"])
        gaps = "1 gap" if n_gaps == 1 else f"{n_gaps} gaps"
        return f"InfillingDesk({n_tokens} tokens, {gaps} of {n_open} tokens, {n_candidates} candidates)"

    @property
    def candidates(self) -> list[Candidate]:
        """Fillings of the present gaps, in the order in which they came."""
        return list(self._listed())

    def run_now(self, **asked: Any) -> Candidate:  # noqa: ANN401
        """Fill the gaps in the calling cell, to the end; the view lists what came.

        Args:
            asked: `order`, `streams`, `temperature` and `seed`, as the view's controls say them; `own`, a dict of
                `gap` (its number) and `words`, to weigh words of your own instead of the model's.

        Returns:
            The candidate, with its exact log-probabilities.

        Raises:
            ValueError: if nothing or everything is left out, or an argument does not suit the gaps.
        """
        with self._one_at_a_time:
            self._begin({**self.asked, **asked}, run=object())
            for _ in self._work or ():
                pass
            self._work = None
            return self._newest

    def answer(self, content: dict[str, Any]) -> dict[str, Any]:
        """Follow the page, or start, go on, or stop a run; steps of an older run are answered by none."""
        want, run = content.get("want"), content.get("run")
        match want:
            case "page" | "tale" | "keep" | "clear" | "common":
                self._follow(want, content)
                return {}
            case "run":
                self._begin(content.get("asked", {}), run, content)
                return {"run": run, "status": "running", "made": [], "started": True}
        if run != self._run_id:
            return {"run": run, "made": [], "status": "old"}
        if self._work is None:  # the second question in flight may be answered first, and ends nothing
            return {"run": run, "made": [], "status": "over"}
        if want == "stop":
            self._work = None
            return {"run": run, "made": [], "status": "stopped"}
        return {"run": run} | self._go_on(float(content.get("budget_ms", 40)) / 1000)

    def _go_on(self, seconds: float) -> dict[str, Any]:
        made, until = [], time.perf_counter() + seconds
        try:
            for step in self._work:
                made.append(step)
                if time.perf_counter() >= until:
                    return {"made": made, "status": "running"}
        except BaseException:
            self._work = self._run_id = None  # a run that fails is over: another question in flight ends nothing
            raise
        self._work = None
        return {"made": made, "status": "finished", "newest": self._listed().index(self._newest)}

    # ------------------------------------------------------------------------------------------------- the page

    def _follow(self, want: str, content: Mapping[str, Any]) -> None:
        """Another text, other gaps, a candidate that becomes the text, an empty list, or another common order."""
        page, common = self._now(), self._common
        if want == "page":
            page = self._asked_page(content)
        elif want == "tale":
            page = self._next_tale()
        elif want == "keep":
            listed, number = self._listed(), int(content["candidate"])
            if not 0 <= number < len(listed):
                raise ValueError(f"candidate={number} is not listed; choose 0 to {len(listed) - 1}")
            candidate = listed[number]
            page = self._read(self._lab.tokenizer.decode(candidate.ids))
        elif want == "clear":
            self._kept[_key(page)] = []
        else:
            common = content["common"]
            common_log_probs(self._lab, page, self._listed(), common)  # or say that there is no such order
        self._work, self._run_id, self._page, self._common = None, None, page, common
        self.state = self._shown()

    def _next_tale(self) -> Page:
        """The next one that the model can hold; of 100, or none may be short enough."""
        for _ in range(100):
            self._tale += 1
            try:
                return self._read(tales.sample(self._tale).text)
            except ValueError:
                continue
        longest = self._lab.model.config.max_length
        raise ValueError(
            f"none of 100 tales fits max_length={longest}, all that the model can hold; write a shorter text, or open "
            "the desk with a model of longer texts"
        )

    def _asked_page(self, content: Mapping[str, Any]) -> Page:
        page = self._now()
        if content.get("text", page.text) != page.text:
            page = self._read(content["text"]).moved_from(page)
        return page if content.get("masked") is None else page.without(content["masked"])

    def _now(self) -> Page:
        """The page; of what was recorded, the model is loaded and the candidates are priced by it."""
        if self._page is None:
            masked = self.state["masked"]
            self._page = page = self._read(self.state["text"]).without(masked)
            for found in self._recorded:
                order = GenerationOrder(found["positions"], found["blocks"])
                self._listed().append(
                    Candidate.scored(self._lab, page, found["ids"], order, found["how"], found["labels"])
                )
        return self._page

    def _read(self, text: str) -> Page:
        self._lab = self._lab or load("tales")
        return Page.of(self._lab.tokenizer, text, self._lab.model.config.max_length)

    # -------------------------------------------------------------------------------------------------- a run

    def _begin(self, asked: Mapping[str, Any], run: object, content: Mapping[str, Any] | None = None) -> None:
        page = self._asked_page(content or {})
        page.refuse_nothing_to_do()
        if len(self._kept.get(_key(page), ())) >= MOST:
            raise ValueError(f"{MOST} candidates are listed already; clear the list to make more")
        how = How(
            str(asked.get("order", ORDERS[0])),
            int(asked.get("streams", 1)),
            float(asked.get("temperature", 1.0)),
            int(asked.get("seed", 1)),
        )
        words, label = None, f"seed {how.seed}"
        if own := asked.get("own"):
            like = self._listed(page)[int(own["like"])].ids if own.get("like") is not None else page.ids.tolist()
            words, label = page.with_words(self._lab.tokenizer, like, int(own.get("gap", 0)), own["words"]), "yours"
        steps = how.steps(self._lab, page, words)
        if page != self._page:
            self._page = page
            self.state = self._shown()
        self._run_id, self._newest = run, None
        self._work = self._filling(page, how, words, label, steps)

    def _filling(
        self, page: Page, how: How, words: Tensor | None, label: str, steps: Iterator[Any]
    ) -> Iterator[list[dict[str, Any]]]:
        """Fill and list one candidate; list the text's own words too, so that there is something to compare with."""
        ids, done, decode = (page.ids if words is None else words).clone(), [], self._lab.tokenizer.decode
        for step in steps:
            step.write_into(ids[None])
            done.append(step)
            columns = zip(step.positions.tolist(), step.tokens[0].tolist(), step.log_probs[0].tolist(), strict=True)
            yield [{"position": p, "piece": decode([i]), "log_prob": log_p} for p, i, log_p in columns]
        said = str(how) if words is not None or how.temperature == 1 else f"{how}, temperature {how.temperature:g}"
        order = walked_order(page, how, done)
        new = Candidate.scored(self._lab, page, ids.tolist(), order, said, [label])
        if not any(candidate.ids == tuple(page.ids.tolist()) for candidate in self._listed(page)):
            done = []
            for step in how.steps(self._lab, page, page.ids):
                done.append(step)
                yield []
            order = walked_order(page, how, done)
            own = Candidate.scored(self._lab, page, page.ids.tolist(), order, str(how), ["the text's own"])
            self._list(page, own)
        self._newest = self._list(page, new)
        self.state = self._shown()

    def _list(self, page: Page, new: Candidate) -> Candidate:
        """Put a candidate on the list; one that is there already gets one more label."""
        listed = self._listed(page)
        for n, old in enumerate(listed):
            if old.is_like(new):
                named = tuple(dict.fromkeys(old.labels + new.labels))
                listed[n] = Candidate(old.ids, old.order, old.how, named, old.log_probs, old.others)
                return listed[n]
        listed.append(new)
        return new

    def _listed(self, page: Page | None = None) -> list[Candidate]:
        return self._kept.setdefault(_key(page or self._now()), [])

    # ---------------------------------------------------------------------------------------------- what is seen

    def _shown(self) -> dict[str, Any]:
        page, listed = self._page, self._listed(self._page)
        common = common_log_probs(self._lab, page, listed, self._common)
        shares = _shares([candidate.ids for candidate in listed], common)
        return {
            "model": self._lab.folder.name,
            "text": page.text,
            "words": list(page.pieces),
            "n_tokens": [len(word) for word in page.words],
            "masked": list(page.masked),
            "gaps": [
                {
                    "words": gap,
                    "tokens": len(page.positions(gap)),
                    "start": page.positions(gap)[0],
                    "original": "".join(page.pieces[w] for w in gap),
                }
                for gap in page.gaps
            ],
            "common": self._common,
            "candidates": [self._candidate(page, *found) for found in zip(listed, common, shares, strict=True)],
        }

    def _candidate(self, page: Page, candidate: Candidate, common: float, share: float) -> dict[str, Any]:
        steps = candidate.steps(page)
        step_of = {p: number for number, step in enumerate(steps, 1) for p in step}
        cells = [self._cells(candidate, page.positions(gap), step_of) for gap in page.gaps]
        is_right, said = verdict(self._lab.tokenizer.decode(candidate.ids))
        if not (is_right or tales.load_grammar().read(page.text).parses):
            said = ""  # of a text that never was a tale, that it is none is no news
        return {
            "labels": list(candidate.labels),
            "how": candidate.how,
            "cells": cells,
            "fills": ["".join(cell["piece"] for cell in gap) for gap in cells],
            "steps": len(steps),
            "log_prob": candidate.log_prob,
            "common": common,
            "share": share,
            "is_tale": is_right,
            "verdict": said,
        }

    def _cells(self, candidate: Candidate, at: Sequence[int], step_of: Mapping[int, int]) -> list[dict[str, Any]]:
        ids, tokenizer = [candidate.ids[p] for p in at], self._lab.tokenizer
        found = []
        for group in whole_characters(tokenizer, ids):
            places = [at[g] for g in group]
            found.append(
                {
                    "piece": tokenizer.decode([ids[g] for g in group]),
                    "positions": places,
                    "steps": [step_of[p] for p in places],
                    "log_prob": float(candidate.log_probs[places].sum()),
                    "others": [list(other) for other in candidate.others[places[0]]] if len(places) == 1 else [],
                }
            )
        return found

    def picture(self) -> Picture:
        """The candidates and their log-probabilities under the common order, best first."""
        found = sorted(self.state["candidates"], key=lambda candidate: -candidate["common"])[:12]
        named = [" … ".join(fill.strip() for fill in candidate["fills"]) for candidate in found]
        figure = Figure(figsize=(8.5, 1.4 + 0.36 * max(1, len(found))), layout="constrained")
        axes = figure.subplots()
        above = [found[0]["common"] - candidate["common"] for candidate in found]
        axes.barh(range(len(found)), above, color=PALETTE[0])
        for y, nats in enumerate(above):
            axes.annotate(f" {nats:.2f}", (nats, y), va="center", fontsize=9)
        axes.set_yticks(range(len(found)), [" … ".join(labels(one["fills"])) for one in found], fontsize=9)
        axes.invert_yaxis()
        axes.margins(x=0.12)
        axes.set_xlim(left=0)
        axes.set_xlabel(f"nats above the likeliest ({self.state['common']})", fontsize=9)
        if not found:
            axes.set_axis_off()
        axes.spines[["top", "right"]].set_visible(False)
        n = len(self.state["gaps"])
        title = f"{n} gap{'' if n == 1 else 's'} in a text" + ("" if found else ", not yet filled")
        axes.set_title(title, loc="left", fontsize=11, color=INK)
        said = "; ".join(
            f"{name} ({', '.join(candidate['labels'])}): {nats:.2f} nats above the likeliest"
            for name, candidate, nats in zip(named, found, above, strict=True)
        )
        return Picture.of(figure, f"What could fill {title}. {said or 'Nothing is filled yet'}.")


def _key(page: Page) -> tuple[tuple[tuple[int, ...], ...], frozenset[int]]:
    return page.words, frozenset(page.masked)


def _numbers(page: Page, without: Sequence[int | str]) -> list[int]:
    """Numbers of words that are named by number or by spelling."""
    found: list[int] = []
    for word in without:
        same = [word] if isinstance(word, int) else [n for n, p in enumerate(page.pieces) if p.strip() == word.strip()]
        if not same:
            raise ValueError(f"without holds {word!r}, which the text does not; name a word as the text spells it")
        found += [n for n in same if n not in found]
    return found


def _shares(texts: Sequence[tuple[int, ...]], log_probs: Sequence[float]) -> list[float]:
    """The chance of each text among those that are listed: each text counts once, however often it was filled."""
    if not texts:
        return []
    top = max(log_probs)
    weights = {text: math.exp(log_prob - top) for text, log_prob in zip(texts, log_probs, strict=True)}
    return [weights[text] / sum(weights.values()) for text in texts]


def recorded_example() -> dict[str, Any]:
    """What the desk opens with: a tale, gaps in it, fillings in two orders, and words of a reader."""
    lab = load("tales")
    desk = InfillingDesk(tales.sample(FIRST_TALE).text, GAPS, lab=lab)
    for how in ({"order": "left to right"}, {"order": SUREST}):
        for seed in (1, 2, 3):
            desk.run_now(seed=seed, **how)
    desk.run_now(own={"gap": 0, "words": "blue rug"})
    kept = [
        {
            "ids": list(candidate.ids),
            "positions": candidate.order.positions.tolist(),
            "blocks": candidate.order.blocks.tolist(),
            "how": candidate.how,
            "labels": list(candidate.labels),
        }
        for candidate in desk.candidates
    ]
    return {"state": desk.state, "candidates": kept}


if __name__ == "__main__":
    torch.set_num_threads(1)  # one machine's rounding is like another's
    RECORDED.write_text(json.dumps(recorded_example(), ensure_ascii=False) + "\n", encoding="utf-8")
