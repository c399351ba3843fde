"""How does a text come into being, several streams at once? (the stream viewer, and a race of three models)

The view pulls: it asks for the next steps, the kernel decodes for a moment and answers, and the answer makes the view
ask again. Nothing runs between two questions, so Stop is simply not to ask any more.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import traitlets
from matplotlib.figure import Figure

from armdlab import tales
from armdlab.curriculum import seeded
from armdlab.figures import PALETTE, Picture
from armdlab.orders import GenerationOrder
from armdlab.traces import Recorder, Step, Trace
from armdlab.trained import Lab, load
from armdlab.widgets.view import View

RECORDED = Path(__file__).resolve().parents[2] / "data" / "traces" / "tale.json"
ORDERS = ("streams", "left to right", "random")


def start_run(lab: Lab, asked: Mapping[str, Any]) -> Recorder:
    """A run that a view asked for.

    Args:
        lab: who writes.
        asked: `prompt`, `streams`, `temperature`, `order` (one of `ORDERS`) and `seed`, as the view's controls say.

    Raises:
        ValueError: if they do not suit the model; the message says what to change.
    """
    longest, prompt = lab.model.config.max_length, str(asked.get("prompt", ""))
    ids = lab.tokenizer.encode(prompt)
    if len(ids) >= longest:
        raise ValueError(f"the prompt has {len(ids)} tokens and the model can hold {longest}; shorten it")
    streams, kind = int(asked.get("streams", 1)), asked.get("order", "streams")
    if kind not in ORDERS:
        raise ValueError(f"order={kind!r} is unknown; choose {', '.join(ORDERS)}")
    new = longest - len(ids)
    if not 1 <= streams <= new:
        raise ValueError(f"streams={streams} must be from 1 to {new}, the number of tokens that are to be made")
    seed = int(asked.get("seed", 0))
    how: dict[str, Any] = {"temperature": float(asked.get("temperature", 1.0)), "seed": seed, "prompt": ids or None}
    length = len(ids) + new // streams * streams
    if hasattr(lab.model, "block_size"):  # masked diffusion: as many calls as so many streams would take
        how["order"] = lab.denoising_order(streams + length // streams - 1, length=length, n_known=len(ids), seed=seed)
    elif kind == "random":
        first = list(range(len(ids)))
        rest = (GenerationOrder.random(new, generator=seeded(seed)).positions + len(ids)).tolist()
        how["order"], length = GenerationOrder(first + rest, list(range(longest))), longest
    elif kind == "streams":
        how["streams"] = streams
    if kind == "left to right" or type(lab.model).__name__ == "AR":
        how.pop("streams", None)
    settings = {"model": lab.folder.name, "order": kind, "streams": streams, "prompt": prompt}
    return Recorder(lab.engine, lab.tokenizer, settings, length=length, end=lab.tokenizer.end_of_text, **how)


def verdict(text: str) -> str:
    """What a text is as a tale, in words."""
    found = tales.check(text)
    if not found:
        return "a tale, and consistent"
    if any(violation.kind == "grammar" for violation in found):
        return "no tale: the grammar cannot have written it"
    return f"reads as a tale, with {len(found)} contradiction{'s' if len(found) > 1 else ''}"


class StreamViewer(View):
    """Watch a model write: lanes, text, probabilities and alternatives; replay a run step by step.

    Args:
        labs: name -> trained model, or one of them; the lab's tales if left out, loaded at the first run.
        trace: a run to open with; a recorded tale if left out.
    """

    files = ("trace_player", "stream_viewer")

    trace = traitlets.Dict().tag(sync=True)
    names = traitlets.List().tag(sync=True)
    asked = traitlets.Dict().tag(sync=True)

    def __init__(self, labs: Lab | Mapping[str, Lab] | None = None, *, trace: Trace | None = None) -> None:
        self._labs: dict[str, Lab | None] = {"tales": None}
        if labs is not None:
            self._labs = dict(labs) if isinstance(labs, Mapping) else {labs.folder.name: labs}
        self._run: Recorder | None = None
        self._steps: Iterator[Step] | None = None
        self._run_id: object = None
        opened = trace or Trace.from_json(RECORDED.read_text(encoding="utf-8"))
        asked = {"prompt": "It was a", "streams": 4, "temperature": 1.0, "order": "streams", "seed": 1}
        super().__init__(trace=opened.to_dict(), names=list(self._labs), asked=asked)

    def __repr__(self) -> str:
        return f"StreamViewer({', '.join(self.names)}; {len(self.trace['steps'])} steps)"

    def run_now(self, **asked: Any) -> Trace:  # noqa: ANN401
        """Run in the calling cell, to the end; the view shows it. Arguments as for `start_run`, and `model`."""
        self._begin({**self.asked, **asked}, run=object())
        for _ in self._steps or ():
            pass
        return self._finish()

    def answer(self, content: dict[str, Any]) -> dict[str, Any]:
        """Start, go on, or stop: `want` is "run", "steps" or "stop"; steps of an older run are answered by none."""
        want, run = content.get("want"), content.get("run")
        if want == "run":
            self._begin(content.get("asked", {}), run)
            return {"run": run, "given": self._run.given, "lanes": self._run.lanes, "frames": [], "status": "running"}
        if run != self._run_id or self._steps is None:
            return {"run": run, "frames": [], "status": "old"}
        if want == "stop":
            self._finish()
            return {"run": run, "frames": [], "status": "stopped"}
        frames, until = [], time.perf_counter() + float(content.get("budget_ms", 40)) / 1000
        for step in self._steps:
            frames.append(asdict(step))
            if time.perf_counter() >= until:
                return {"run": run, "frames": frames, "status": "running"}
        self._finish()
        return {"run": run, "frames": frames, "status": "finished"}

    def _begin(self, asked: Mapping[str, Any], run: object) -> None:
        name = asked.get("model") or self.names[0]
        if name not in self._labs:
            raise ValueError(f"model={name!r} is not here; choose {', '.join(self._labs)}")
        self._labs[name] = self._labs[name] or load(name)
        self._run = start_run(self._labs[name], asked)
        self._steps, self._run_id = iter(self._run), run

    def _finish(self) -> Trace:
        """Keep the run, with alternatives where one pass gives them, for views that open later."""
        self._steps = None
        trace = self._run.with_others()
        self.trace = trace.to_dict()
        return trace

    def picture(self) -> Picture:
        """Which position was made at which step, and how sure the model was."""
        return drawn(Trace.from_dict(self.trace))


class Race(View):
    """Several models write at the same time, each by its own clock: ARMD in streams, AR, masked diffusion.

    Args:
        labs: name -> trained model; ARMD, AR and MDLM on tales if left out, loaded at the first start.
        streams: S of ARMD; masked diffusion takes as many calls as it.
        is_tale: whether a verdict of the grammar is given at the end.
    """

    files = ("trace_player", "race")

    names = traitlets.List().tag(sync=True)
    asked = traitlets.Dict().tag(sync=True)
    result = traitlets.List().tag(sync=True)

    def __init__(self, labs: Mapping[str, Lab] | None = None, *, streams: int = 8, is_tale: bool = True) -> None:
        self._labs: dict[str, Lab | None] = dict(labs or dict.fromkeys(("tales", "tales_ar", "tales_mdlm")))
        self._is_tale, self._run_id = is_tale, object()
        self._runners: dict[str, tuple[Recorder, Iterator[Step]]] = {}
        asked = {"prompt": "It was a", "streams": streams, "temperature": 1.0, "seed": 1}
        super().__init__(names=list(self._labs), asked=asked)

    def __repr__(self) -> str:
        return f"Race({', '.join(self.names)}; {self.asked['streams']} streams)"

    def run_now(self, **asked: Any) -> list[dict[str, Any]]:  # noqa: ANN401
        """The whole race in the calling cell: a result for each runner."""
        run = object()
        said = self.answer({"want": "run", "run": run, "asked": {**self.asked, **asked}})
        while said["status"] == "running":
            said = self.answer({"want": "steps", "run": run, "budget_ms": 1000})
        return self.result

    def answer(self, content: dict[str, Any]) -> dict[str, Any]:
        """Start, go on, or stop, as for the stream viewer; each runner gets the same share of the time."""
        want, run = content.get("want"), content.get("run")
        if want == "run":
            for name in self._labs:
                self._labs[name] = self._labs[name] or load(name)
            runs = {name: start_run(lab, content.get("asked", {})) for name, lab in self._labs.items()}
            self._runners = {name: (recorder, _timed(recorder)) for name, recorder in runs.items()}
            self._run_id, self.result = run, []
            given = {name: recorder.given for name, recorder in runs.items()}
            return {"run": run, "given": given, "frames": {}, "done": [], "status": "running"}
        if run != self._run_id:
            return {"run": run, "frames": {}, "done": [], "status": "old"}
        if want == "stop":
            self._run_id = object()
            return {"run": run, "frames": {}, "done": [], "status": "stopped"}
        share = float(content.get("budget_ms", 60)) / 1000 / max(1, len(self._runners))
        frames = {}
        for name, (_, steps) in list(self._runners.items()):
            until, frames[name] = time.perf_counter() + share, []
            for step in steps:
                frames[name].append(asdict(step))
                if time.perf_counter() >= until:
                    break
            else:
                self.result = [*self.result, self._arrived(name, *self._runners.pop(name))]
        status = "running" if self._runners else "finished"
        return {"run": run, "frames": frames, "done": self.result, "status": status}

    def _arrived(self, name: str, recorder: Recorder, _: Iterator[Step]) -> dict[str, Any]:
        trace = recorder.trace
        lab = self._labs[name]
        text = lab.read([token for token in recorder.ids if token >= 0])
        return {
            "name": name,
            "steps": len(trace.steps),
            "seconds": trace.steps[-1].elapsed if trace.steps else 0.0,
            "text": text,
            "verdict": verdict(text) if self._is_tale else "",
        }

    def picture(self) -> Picture:
        """Seconds of each runner, as far as it has run."""
        figure = Figure(figsize=(6, 0.6 + 0.5 * len(self.names)))
        axes, done = figure.subplots(), {found["name"]: found for found in self.result}
        seconds = [done[name]["seconds"] if name in done else 0.0 for name in self.names]
        axes.barh(self.names, seconds, color=PALETTE[: len(self.names)])
        axes.set_xlabel("seconds for one text")
        axes.set_title("A race of models" if done else "A race of models, not yet run")
        said = ", ".join(f"{name} {done[name]['seconds']:.2f} s" for name in self.names if name in done)
        return Picture.of(figure, f"A race of models: {said or 'not yet run'}.")


def _timed(recorder: Recorder) -> Iterator[Step]:
    """Steps by the runner's own clock, which stands while the others run."""
    spent = 0.0
    steps = iter(recorder)
    while True:
        started = time.perf_counter()
        step = next(steps, None)
        spent += time.perf_counter() - started
        if step is None:
            return
        recorder.done[-1] = Step(spent, step.made)
        yield recorder.done[-1]


def drawn(trace: Trace) -> Picture:
    """Position against step, coloured by probability: streams are lines that rise side by side."""
    figure = Figure(figsize=(8, 3))
    axes = figure.subplots()
    dots = [(m.position, n + 1, math.exp(m.log_prob)) for n, step in enumerate(trace.steps) for m in step.made]
    if dots:
        x, y, p = zip(*dots, strict=True)
        shown = axes.scatter(x, y, c=p, cmap="viridis", vmin=0, vmax=1, s=14)
        figure.colorbar(shown, label="probability of the token")
    axes.set_xlabel("position in the text")
    axes.set_ylabel("step")
    model, streams = trace.settings.get("model", "a model"), max([0, *trace.lanes]) + 1
    axes.set_title(f"{model}: {len(dots)} tokens in {len(trace.steps)} steps, {streams} streams")
    alt = (
        f"A run of {model}: {len(dots)} tokens made in {len(trace.steps)} steps by {streams} streams, position by step."
    )
    return Picture.of(figure, alt)
