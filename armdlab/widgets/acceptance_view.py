"""Which drafts stay, and why? Step through the network calls of a verified run. (lesson 06; armdlab.speculative)"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from itertools import accumulate
from typing import Any

import torch
import traitlets

from armdlab.engine import ARMDEngine
from armdlab.figures import Picture
from armdlab.figures import acceptance as acceptance_figures
from armdlab.orders import UNKNOWN, GenerationOrder
from armdlab.sampling import Sampler
from armdlab.speculative import Judgement, verified_steps
from armdlab.trained import Lab, load
from armdlab.widgets.order_picker import labels
from armdlab.widgets.pulled import RECORDED, PulledView
from armdlab.widgets.runs import whole

MOST_STREAMS = 16  # tokens of a call that are still read side by side
DRAWN = 6  # calls that a picture holds


class AcceptanceView(PulledView):
    """Watch verified decoding judge its drafts: q, p, the die, and what became of each.

    Args:
        lab: a trained ARMD; the lab's tales if left out, loaded at the first run.

    Raises:
        ValueError: if `lab` holds another model, which cannot judge.
    """

    files = ("pull", "trace_player", "acceptance_view")

    verified = traitlets.Dict().tag(sync=True)
    asked = traitlets.Dict().tag(sync=True)

    def __init__(self, lab: Lab | None = None) -> None:
        if lab is not None and not isinstance(lab.engine, ARMDEngine):
            raise ValueError(
                f"lab holds the model {type(lab.model).__name__}, which cannot judge drafts; give one with an ARMD"
            )
        self._lab = lab
        self._judged: dict[str, Any] = {}
        self._calls: Iterator[dict[str, Any]] = iter(())
        opened = json.loads((RECORDED / "verified.json").read_text(encoding="utf-8"))
        super().__init__(verified=opened, asked={name: opened[name] for name in ("streams", "seed")})

    def __repr__(self) -> str:
        streams, seed, calls = (self.verified[name] for name in ("streams", "seed", "calls"))
        made = sum(n_made(call) for call in calls)
        return f"AcceptanceView({streams} streams, seed {seed}; {made} tokens in {len(calls)} calls)"

    def run_now(self, **asked: Any) -> dict[str, Any]:  # noqa: ANN401
        """Run in the calling cell, to the end; the view shows it.

        Args:
            asked: `streams`, tokens that a call makes at most, and `seed`.

        Raises:
            ValueError: if one of them cannot be; the message says what to change.
        """
        self._to_the_end({**self.asked, **asked})
        return self.verified

    def begin(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Start a run: its length, streams and seed, and no call yet."""
        streams, seed = whole("streams", asked.get("streams", 4)), whole("seed", asked.get("seed", 1))
        if streams > MOST_STREAMS:
            raise ValueError(f"streams={streams} are too many to be read side by side; choose 1 to {MOST_STREAMS}")
        if not 0 <= seed < 2**32:
            raise ValueError(f"seed={seed} must be from 0 to {2**32 - 1}; choose another")
        self._lab = self._lab or load("tales")
        order = GenerationOrder.strided(self._lab.model.config.max_length, streams)
        begun = {"length": order.length, "streams": streams, "seed": seed}
        self._judged, self._calls = begun | {"calls": []}, judged(self._lab, order, streams, seed)
        return {"begun": begun}

    def advance(self, seconds: float) -> tuple[dict[str, Any], bool]:
        """Write for about that long, at least one call."""
        new, until = [], time.perf_counter() + seconds
        for call in self._calls:
            new.append(call)
            self._judged["calls"].append(call)
            if time.perf_counter() >= until:
                return {"calls": new}, True
        self.halt(None)
        return {"calls": new}, False

    def halt(self, shown: int | None) -> None:
        """Keep the calls that were seen, for views that open later; the first one in any case."""
        calls = self._judged["calls"]
        self.verified = self._judged | {"calls": calls if shown is None else calls[: max(1, shown)]}
        self.asked = {name: self._judged[name] for name in ("streams", "seed")}

    def picture(self) -> Picture:
        """Calls in a row that make about half of what they could: what was kept, drawn, drafted anew."""
        calls = self.verified["calls"]
        firsts = list(accumulate((n_made(call) for call in calls), initial=0))
        start = acceptance_figures.half_kept([n_made(call) for call in calls], self.verified["streams"], DRAWN)
        shown = []
        for first, call in list(zip(firsts, calls, strict=False))[start : start + DRAWN]:
            drafts = [draft["piece"] for draft in call["drafts"]]
            tokens = drafts[: call["passed"]] + [call["drawn"]["piece"]] * (call["drawn"] is not None)
            shown.append((first, _words(drafts), _words(tokens)))
        return acceptance_figures.acceptance(shown, f"{len(calls)} calls", number=start + 1)


def judged(lab: Lab, order: GenerationOrder, streams: int, seed: int) -> Iterator[dict[str, Any]]:
    """Write a text by verified decoding, and tell each call.

    Args:
        lab: an ARMD.
        order: its length is that of the text.
        streams: W, tokens that a call makes at most.
        seed: as of `generate`, which writes the same text from it.

    Yields:
        Of each call `drafts` (`piece`, `at` in the text, and the chances `q`, `p` and die `u`), how many `passed`, and
        what was `drawn` behind them (`piece`, `at`): in the place of a refused draft, or as one more if all passed;
        None at the end of the text.
    """
    seen: list[Judgement] = []
    tokens, end = torch.full((1, order.length), UNKNOWN), lab.tokenizer.end_of_text
    choose = Sampler(seed=seed, device=lab.engine.device)
    for _ in verified_steps(lab.engine, tokens, order, choose, end, streams, seen.append):
        yield told(lab, seen.pop())


def told(lab: Lab, judgement: Judgement) -> dict[str, Any]:
    """One call as the view shows it: a `Judgement` of one row, without what lies behind the end."""
    is_inside, passed = judgement.is_inside[0], int(judgement.n_passed)
    pieces, tokens = (
        [lab.tokenizer.decode([v]) for v in ids[0].tolist()] for ids in (judgement.drafts, judgement.tokens)
    )
    places = judgement.positions[0].tolist()
    columns = zip(pieces, places[:-1], judgement.q[0], judgement.p[0], judgement.u[0], strict=True)
    drafts = [
        {"piece": piece, "at": at, "q": _short(q), "p": _short(p), "u": _short(u)} for piece, at, q, p, u in columns
    ]
    return {
        "drafts": drafts[: int(is_inside[:-1].sum())],
        "passed": passed,
        "drawn": {"piece": tokens[passed], "at": places[passed]} if is_inside[passed] else None,
    }


def n_made(call: Mapping[str, Any]) -> int:
    """Tokens that a call made: all that passed, and the one that it drew."""
    return call["passed"] + (call["drawn"] is not None)


def _short(chance: torch.Tensor) -> float:
    return float(f"{float(chance):.6g}")  # what a recording need not hold is left out


def _words(pieces: list[str]) -> list[str]:
    """Pieces as labels of a figure."""
    shown = ["(end)" if piece == "<|endoftext|>" else piece.strip() or "_" for piece in pieces]
    return labels(shown)
