"""What did a run of decoding do, so that it can be shown, kept and compared without the model?"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from armdlab.decoding import DecodeStep, decode_steps, default_order, given_tokens, streams_of
from armdlab.engine import Engine
from armdlab.inference import evaluating
from armdlab.model import Transformer
from armdlab.orders import UNKNOWN, GenerationOrder

VERSION = 1
PLAYER = Path(__file__).parent / "widgets"


class Reader(Protocol):
    """What turns ids into text, as `Tokenizer` does."""

    def decode(self, ids: Sequence[int]) -> str:
        """Text of some ids."""


@dataclass(frozen=True)
class Made:
    """One token of a run.

    Args:
        position: where it stands in the text.
        piece: its text.
        log_prob: the model's own, at temperature 1, in nats.
        others: the likeliest tokens that could have stood there, with their probabilities; empty if not known.
    """

    position: int
    piece: str
    log_prob: float
    others: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Step:
    """What one step made.

    Args:
        elapsed: seconds since the run began.
        made: its tokens.
    """

    elapsed: float
    made: tuple[Made, ...]

    def to_dict(self) -> dict[str, Any]:
        """All of it, as JSON has it (written out: a view sends one at each step, and `asdict` copies every leaf)."""
        made = [
            {
                "position": m.position,
                "piece": m.piece,
                "log_prob": m.log_prob,
                "others": [list(pair) for pair in m.others],
            }
            for m in self.made
        ]
        return {"elapsed": self.elapsed, "made": made}


@dataclass(frozen=True)
class Trace:
    """A run of decoding as a value.

    Args:
        settings: what was asked: model, streams, temperature, seed and their kin, for people to read.
        given: text of each position that was known before; None where a token was to be made.
        lanes: stream of each position, from 0; -1 where it was given.
        steps: what happened. A position that was made before is read again: its piece may be another then, and its
            log-probability is what it costs in the order of reading.

    Raises:
        ValueError: if parts contradict each other.
    """

    settings: dict[str, Any]
    given: tuple[str | None, ...]
    lanes: tuple[int, ...]
    steps: tuple[Step, ...]

    def __post_init__(self) -> None:
        """Refuse a trace that no run could have left."""
        if len(self.lanes) != len(self.given):
            raise ValueError(
                f"lanes has {len(self.lanes)} entries but given has {len(self.given)}; one for each position"
            )
        for number, step in enumerate(self.steps):
            seen: set[int] = set()
            for made in step.made:
                if not 0 <= made.position < len(self.given) or self.given[made.position] is not None:
                    raise ValueError(f"step {number} makes position {made.position}, where there is nothing to make")
                if made.position in seen:
                    raise ValueError(f"step {number} makes position {made.position} twice")
                seen.add(made.position)

    @property
    def length(self) -> int:
        """Number of positions N."""
        return len(self.given)

    @property
    def log_prob(self) -> float:
        """Of everything that was made, in nats; where the text was read again, of that."""
        last = {made.position: made.log_prob for step in self.steps for made in step.made}
        return math.fsum(last.values())

    def after(self, n_steps: int) -> list[str | None]:
        """The text as it stood after so many steps: one piece a position, None where nothing was yet.

        Raises:
            ValueError: if the run had fewer steps.
        """
        if not 0 <= n_steps <= len(self.steps):
            raise ValueError(f"n_steps={n_steps} must be from 0 to {len(self.steps)}, the steps of this trace")
        pieces = list(self.given)
        for step in self.steps[:n_steps]:
            for made in step.made:
                pieces[made.position] = made.piece
        return pieces

    @property
    def changed(self) -> list[set[int]]:
        """The positions at which another piece stands after each step than before it."""
        texts = [self.after(n) for n in range(len(self.steps) + 1)]
        return [{i for i, (a, b) in enumerate(zip(*both, strict=True)) if a != b} for both in pairwise(texts)]

    @property
    def text(self) -> str:
        """What was written, with what was given; without what was never made."""
        return "".join(piece for piece in self.after(len(self.steps)) if piece is not None)

    def compare(self, other: Trace) -> dict[str, Any]:
        """Two runs side by side: the first position where they differ, and steps, seconds and nats of both."""
        here, there = self.after(len(self.steps)), other.after(len(other.steps))
        differs = [i for i, (a, b) in enumerate(zip(here, there, strict=False)) if a != b]
        first = differs[0] if differs else None if len(here) == len(there) else min(len(here), len(there))
        both = [(t.steps, t.steps[-1].elapsed if t.steps else 0.0, -t.log_prob) for t in (self, other)]
        (steps, seconds, nats) = zip(*((len(s), e, n) for s, e, n in both), strict=True)
        return {"first_difference": first, "steps": steps, "seconds": seconds, "nats": nats}

    def against(self, other: Trace) -> str:
        """What `compare` finds, in a sentence about the other run, which came later."""
        found, n = self.compare(other), min(self.length, other.length)
        first = found["first_difference"]
        where = "the same text" if first is None else f"the texts part at position {first} of {n}"
        told = [
            f"{word} {here:{form}}, before {there:{form}}"
            for word, form, (there, here) in (
                ("steps", "d", found["steps"]),
                ("seconds", ".2f", found["seconds"]),
                ("nats", ".1f", found["nats"]),
            )
        ]
        return f"Against the run before: {where}; {'; '.join(told)}."

    # ---------------------------------------------------------------------------------------------- keeping

    def to_json(self) -> str:
        """All of it, as JSON that `from_json` reads."""
        return json.dumps(self.to_dict(), ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Trace:
        """Read what `to_json` wrote.

        Raises:
            ValueError: if it is no trace, or one of another version.
        """
        try:
            found = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(
                f"this is no trace: JSON ends or breaks at character {error.pos}; record the run anew"
            ) from error
        return cls.from_dict(found)

    def to_dict(self) -> dict[str, Any]:
        """All of it, as JSON has it: what views take."""
        steps = [step.to_dict() for step in self.steps]
        return {
            "version": VERSION,
            "settings": self.settings,
            "given": list(self.given),
            "lanes": list(self.lanes),
            "steps": steps,
        }

    @classmethod
    def from_dict(cls, found: object) -> Trace:
        """Read what `to_dict` gave; raises as `from_json`."""
        version = found.get("version") if isinstance(found, dict) else None
        if version != VERSION:
            raise ValueError(f"this is no trace of version {VERSION} (it says {version!r}); record it anew")
        try:
            steps = tuple(
                Step(
                    float(step["elapsed"]),
                    tuple(
                        Made(
                            int(made["position"]),
                            str(made["piece"]),
                            float(made["log_prob"]),
                            tuple((str(piece), float(p)) for piece, p in made["others"]),
                        )
                        for made in step["made"]
                    ),
                )
                for step in found["steps"]
            )
            given = tuple(None if piece is None else str(piece) for piece in found["given"])
            return cls(dict(found["settings"]), given, tuple(int(lane) for lane in found["lanes"]), steps)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            what = f"lacks {error}" if isinstance(error, KeyError) else f"holds what no trace does: {error}"
            raise ValueError(f"this trace {what}; record the run anew") from error

    def save(self, path: str | Path) -> None:
        """Write it by its ending: .json, .html (an animation that needs no network), .gif (the same, as a picture).

        Raises:
            ValueError: if the ending is another.
        """
        path = Path(path)
        kinds = {".json": self.to_json, ".html": self.to_html, ".gif": self.to_gif}
        if path.suffix not in kinds:
            raise ValueError(f"path={path} ends in {path.suffix or 'nothing'}; choose one of {', '.join(kinds)}")
        content = kinds[path.suffix]()
        path.write_bytes(content if isinstance(content, bytes) else content.encode())

    def to_html(self) -> str:
        """A page of its own that plays the run: no network, keys and reduced motion as in the notebook's view."""
        files = [
            (PLAYER / name).read_text(encoding="utf-8") for name in ("shared.js", "trace_player.js", "trace_page.js")
        ]
        # "<" as an escape, so that no text can close the script that holds it
        data = self.to_json().replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
        style = (PLAYER / "trace_player.css").read_text(encoding="utf-8")
        return (
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>A run of armdlab</title>\n'
            '<meta name="viewport" content="width=device-width"><meta name="color-scheme" content="light dark">\n'
            f"<style>body {{ background: Canvas; color: CanvasText; }}\n{style}</style></head>\n"
            f'<body><main id="run"></main>\n<script>\n{"".join(files[:-1])}\nconst trace = {data};\n{files[-1]}'
            "</script></body></html>\n"
        )

    def to_gif(self, *, milliseconds: int = 250) -> bytes:
        """The run as an animated picture, one frame a step, by Pillow, which comes with matplotlib.

        Args:
            milliseconds: for each frame; the last one stays ten times as long.
        """
        from armdlab.animation import gif

        return gif(self.after, [set(), *self.changed], milliseconds)


class Recorder:
    """A run that is recorded while it goes: iterate over it, then ask for its `trace`.

    Args:
        model: what writes, as `decode_steps` takes it.
        tokenizer: of the model.
        settings: what people should read about the run.
        length: number of text positions N, whatever is given included.
        how: other arguments of `decode_steps`; one row.

    Raises:
        ValueError: as `decode_steps`; or if there is more than one row.
    """

    def __init__(
        self,
        model: Transformer | Engine,
        tokenizer: Reader,
        settings: dict[str, Any] | None = None,
        *,
        length: int,
        **how: Any,  # noqa: ANN401
    ) -> None:
        rows = given_tokens(length, how.get("prompt"), how.get("known"), how.get("batch_size", 1))
        if len(rows) != 1:
            raise ValueError(f"{len(rows)} rows cannot be recorded together; record one text at a time")
        how = {"length": length} | how
        self.model, self.tokenizer, self.how, self.done = model, tokenizer, how, []
        self._steps, self._said, self._before = decode_steps(model, **how), [], rows[0].tolist()
        self.ids = list(self._before)
        self.given = given_pieces(tokenizer, self.ids)
        shown = {name: value for name, value in how.items() if isinstance(value, int | float | str) and name != "end"}
        self.settings = shown | (settings or {})

    @property
    def lanes(self) -> tuple[int, ...]:
        """Stream of each position that is to be made, from 0; -1 where it is given."""
        known = torch.tensor([piece is not None for piece in self.given])
        return tuple(streams_of(known, self.how.get("streams", 1)).tolist())

    def __iter__(self) -> Iterator[Step]:
        for step in self._steps:
            seen = self._read(step)
            self._said.append(step)
            self.done.append(seen)
            yield seen

    def cut(self, n_steps: int) -> None:
        """Forget what was made after so many steps: whoever watched had seen no more when they stopped it."""
        del self.done[n_steps:], self._said[n_steps:]
        self.ids = self._after(n_steps)

    def _after(self, n_steps: int) -> list[int]:
        """The ids as they stood after so many steps."""
        ids = torch.tensor([self._before])
        for step in self._said[:n_steps]:
            step.write_into(ids)
        return ids[0].tolist()

    def _read(self, step: DecodeStep) -> Step:
        made = []
        columns = zip(
            step.positions.flatten().tolist(), step.tokens[0].tolist(), step.log_probs[0].tolist(), strict=True
        )
        for position, token, log_prob in columns:
            if position != UNKNOWN:
                self.ids[position] = token
                made.append(Made(position, self.tokenizer.decode([token]), log_prob))
        return Step(step.elapsed, tuple(made))

    @property
    def trace(self) -> Trace:
        """What happened until now."""
        return Trace(self.settings, self.given, self.lanes, tuple(self.done))

    @torch.no_grad()
    def with_others(self, n: int = 5) -> Trace:
        """The trace, with the `n` likeliest tokens that each one was chosen from.

        One pass of the model over the text gives the very predictions that the steps drew from, where the run followed
        an order that is known; elsewhere (gated, masked diffusion) none are given. So does one for each time that the
        text was read again: what is likeliest there left to right.
        """
        model, trace = getattr(self.model, "model", self.model), self.trace
        if self.how.get("gate") or hasattr(model, "block_size"):
            return trace
        n_written = sum(not step.is_reading for step in self._said)
        known = torch.tensor([piece is not None for piece in self.given])
        seen = [(n_written, self._order(known))] if n_written else []  # so many steps, then a pass in this order
        seen += [(n, default_order(known.unsqueeze(0), 1)) for n in range(n_written + 1, len(self._said) + 1)]
        steps: list[Step] = []
        for stop, order in seen:
            tokens = torch.tensor([self._after(stop)]).clamp(min=0).to(model.bos.device)  # what was never made is last
            with evaluating(model):
                log_p = model(tokens, order)[0].log_softmax(-1)
            for step in self.done[len(steps) : stop]:
                made = tuple(self._among(made, log_p[made.position], n) for made in step.made)
                steps.append(Step(step.elapsed, made))
        return Trace(trace.settings, trace.given, trace.lanes, tuple(steps))

    def _order(self, known: Tensor) -> GenerationOrder:
        if self.how.get("order") is not None:
            order = self.how["order"]
        else:
            order = default_order(known.unsqueeze(0), self.how.get("streams", 1))
        return order.one_by_one() if self.how.get("verify") is True else order

    def _among(self, made: Made, log_p: Tensor, n: int) -> Made:
        values, tokens = log_p.topk(min(n, len(log_p)))
        others = zip(tokens.tolist(), values.exp().tolist(), strict=True)
        named = tuple((self.tokenizer.decode([token]), p) for token, p in others)
        return Made(made.position, made.piece, made.log_prob, named)


def given_pieces(tokenizer: Reader, ids: Sequence[int]) -> tuple[str | None, ...]:
    """What each known id adds to the text, None where one is unknown.

    A letter that takes several ids, as an emoji does, belongs to the last of them: alone they are no letters.
    """
    pieces: list[str | None] = []
    begun: list[int] = []
    for i, token in enumerate(ids):
        if token == UNKNOWN:
            pieces.append(None)
            continue
        begun.append(token)
        text, goes_on = tokenizer.decode(begun), i + 1 < len(ids) and ids[i + 1] != UNKNOWN
        is_whole = not (text.endswith("\ufffd") and goes_on)
        pieces.append(text if is_whole else "")
        begun = [] if is_whole else begun
    return tuple(pieces)


def record(
    model: Transformer | Engine,
    tokenizer: Reader,
    settings: dict[str, Any] | None = None,
    *,
    length: int,
    **how: Any,  # noqa: ANN401
) -> Trace:
    """Run `decode_steps` to its end, and keep what it did; arguments as for `Recorder`."""
    run = Recorder(model, tokenizer, settings, length=length, **how)
    for _ in run:
        pass
    return run.with_others()
