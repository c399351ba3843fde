"""How does a text come into being, several streams at once? (the stream viewer, and a race of three models)"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import traitlets
from matplotlib.figure import Figure

from armdlab.figures import PALETTE, Picture
from armdlab.traces import Recorder, Step, Trace
from armdlab.trained import Lab, load
from armdlab.widgets.pulled import RECORDED, PulledView
from armdlab.widgets.runs import start_run, verdict


class StreamViewer(PulledView):
    """Watch a model write: lanes, text, probabilities and alternatives; replay a run step by step.

    Args:
        labs: name -> trained model, or one of them; the lab's tales if left out, loaded at the first run.
        trace: a run to open with; a recorded tale if left out.
    """

    files = ("pull", "trace_player", "stream_viewer")

    trace = traitlets.Dict().tag(sync=True)
    names = traitlets.List().tag(sync=True)
    asked = traitlets.Dict().tag(sync=True)
    compared = traitlets.Unicode("").tag(sync=True)

    def __init__(self, labs: Lab | Mapping[str, Lab] | None = None, *, trace: Trace | None = None) -> None:
        self._labs: dict[str, Lab | None] = {"tales": None}
        if labs is not None:
            self._labs = dict(labs) if isinstance(labs, Mapping) else {labs.folder.name: labs}
        self._run: Recorder | None = None
        self._steps: Iterator[Step] | None = None
        self._before: Trace | None = None  # the run before this one, to compare with
        opened = trace or Trace.from_json((RECORDED / "tale.json").read_text(encoding="utf-8"))
        asked = {"prompt": "", "streams": 4, "temperature": 1.0, "order": "streams", "seed": 1}
        super().__init__(trace=opened.to_dict(), names=list(self._labs), asked=asked)

    def __repr__(self) -> str:
        return f"StreamViewer({', '.join(self.names)}; {len(self.trace['steps'])} steps)"

    def run_now(self, **asked: Any) -> Trace:  # noqa: ANN401
        """Run in the calling cell, to the end; the view shows it. Arguments as for `start_run`, and `model`."""
        with self._by_a_cell():
            self.begin({**self.asked, **asked})
            for _ in self._steps or ():
                pass
            self._finish()
            return self._with_others()

    def begin(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Start a run: what is given, and the lane of each position."""
        name = asked.get("model") or self.names[0]
        if name not in self._labs:
            raise ValueError(f"model={name!r} is not here; choose {', '.join(self._labs)}")
        self._labs[name] = self._labs[name] or load(name)
        run = start_run(self._labs[name], asked)
        self._before = self._run.trace if self._run else None
        self._run, self._steps = run, iter(run)
        return {"given": run.given, "lanes": run.lanes}

    def advance(self, seconds: float) -> tuple[dict[str, Any], bool]:
        """Write for about that long, at least one step."""
        frames, until = [], time.perf_counter() + seconds
        for step in self._steps:
            frames.append(step.to_dict())
            if time.perf_counter() >= until:
                return {"frames": frames}, True
        self._finish()
        return {"frames": frames}, False

    def halt(self, shown: int | None) -> None:
        """Keep the steps that were seen."""
        if shown is not None:
            self._run.cut(shown)
        self._finish()

    def look_up(self) -> dict[str, Any]:
        """Add what else each token could have been, where one pass of the model tells it."""
        self._with_others()
        return {}

    def _finish(self) -> None:
        """Keep the run for views that open later, and say how it differs from the one before."""
        self.trace = self._run.trace.to_dict()
        self.compared = self._before.against(self._run.trace) if self._before else ""

    def _with_others(self) -> Trace:
        trace = self._run.with_others()
        self.trace = trace.to_dict()
        return trace

    def picture(self) -> Picture:
        """Which position was made at which step, and how sure the model was."""
        return drawn(Trace.from_dict(self.trace))


class Race(PulledView):
    """Several models write at the same time, each by its own clock: ARMD in streams, AR, masked diffusion.

    Args:
        labs: name -> trained model; ARMD, AR and MDLM on tales if left out, loaded at the first start.
        streams: S of ARMD; masked diffusion takes as many calls as it.
        is_tale: whether a verdict of the grammar is given at the end.
    """

    files = ("pull", "trace_player", "race")

    names = traitlets.List().tag(sync=True)
    asked = traitlets.Dict().tag(sync=True)
    result = traitlets.List().tag(sync=True)
    recorded = traitlets.Bool(False).tag(sync=True)

    def __init__(self, labs: Mapping[str, Lab] | None = None, *, streams: int = 8, is_tale: bool = True) -> None:
        self._labs: dict[str, Lab | None] = dict(labs or dict.fromkeys(("tales", "tales_ar", "tales_mdlm")))
        self._is_tale = is_tale
        self._runners: dict[str, tuple[Recorder, Iterator[Step]]] = {}
        self._arrived: list[dict[str, Any]] = []
        asked = {"prompt": "", "streams": streams, "temperature": 1.0, "seed": 1}
        opened = [] if labs else json.loads((RECORDED / "race.json").read_text(encoding="utf-8"))
        super().__init__(names=list(self._labs), asked=asked, result=opened, recorded=bool(opened))

    def __repr__(self) -> str:
        return f"Race({', '.join(self.names)}; {self.asked['streams']} streams)"

    def run_now(self, **asked: Any) -> list[dict[str, Any]]:  # noqa: ANN401
        """The whole race in the calling cell: a result for each runner."""
        self._to_the_end({**self.asked, **asked})
        return self.result

    def begin(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Start all runners: what is given to each."""
        for name in self._labs:
            self._labs[name] = self._labs[name] or load(name)
        runs = {name: start_run(lab, asked) for name, lab in self._labs.items()}
        self._runners = {name: (recorder, _timed(recorder)) for name, recorder in runs.items()}
        self._arrived = []
        return {"given": {name: recorder.given for name, recorder in runs.items()}}

    def advance(self, seconds: float) -> tuple[dict[str, Any], bool]:
        """Let each runner write for the same share of the time, at least one step."""
        share, frames = seconds / max(1, len(self._runners)), {}
        for name, (recorder, steps) in list(self._runners.items()):
            until, frames[name] = time.perf_counter() + share, []
            for step in steps:
                frames[name].append(step.to_dict())
                if time.perf_counter() >= until:
                    break
            else:
                del self._runners[name]
                self._arrived.append(self._result_of(name, recorder))
        done = [{key: value for key, value in found.items() if key != "trace"} for found in self._arrived]
        if not self._runners:
            self.halt(None)
        return {"frames": frames, "done": done}, bool(self._runners)

    def halt(self, shown: int | None) -> None:
        """Keep the results of those who have arrived."""
        self._runners, self.recorded, self.result = {}, False, list(self._arrived)

    def _result_of(self, name: str, recorder: Recorder) -> dict[str, Any]:
        trace = recorder.trace
        text = self._labs[name].read([token for token in recorder.ids if token >= 0])
        return {
            "name": name,
            "steps": len(trace.steps),
            "seconds": trace.steps[-1].elapsed if trace.steps else 0.0,
            "text": text,
            "verdict": verdict(text) if self._is_tale else "",
            "trace": trace.to_dict(),
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
        recorder.done[-1] = replace(step, elapsed=spent)
        yield recorder.done[-1]


def drawn(trace: Trace) -> Picture:
    """Position against step, coloured by probability: streams are lines that rise side by side."""
    figure = Figure(figsize=(8, 3))
    axes = figure.subplots()
    dots = [
        (made.position, n, math.exp(made.log_prob))
        for n, (step, changed) in enumerate(zip(trace.steps, trace.changed, strict=True), 1)
        for made in step.made
        if made.position in changed
    ]
    if dots:
        x, y, p = zip(*dots, strict=True)
        shown = axes.scatter(x, y, c=p, cmap="viridis", vmin=0, vmax=1, s=14)
        figure.colorbar(shown, label="probability of the token")
    axes.set_xlabel("position in the text")
    axes.set_ylabel("step")
    model, streams = trace.settings.get("model", "a model"), max([0, *trace.lanes]) + 1
    said = f"{streams} stream{'s' * (streams > 1)}"
    axes.set_title(f"{model}: {len(dots)} tokens in {len(trace.steps)} steps, {said}")
    alt = f"A run of {model}: {len(dots)} tokens made in {len(trace.steps)} steps by {said}, position by step."
    return Picture.of(figure, alt)
