"""How does a model learn, as one watches? Loss, held-out perplexity, the curriculum's meter, a sample; pause and stop.

The view pulls: it asks for the next steps, the kernel trains for a moment and answers, and the answer makes the view
ask again. There is no thread, so cells still run in between, and Colab shows what JupyterLab shows.
"""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from armdlab.recipes import Moment, Session

HERE = Path(__file__).parent
MOST_POINTS = 2000  # of the curve that a second view or a reload sees


class TrainingCockpit(anywidget.AnyWidget):
    """Train a session in view: Play, Pause, Stop and save.

    Args:
        session: what is trained; go on with one that was stopped by `Session.resume`.
        scores: how often held-out text is scored and a sample written, evenly over the run.
    """

    _esm = HERE / "training_cockpit.js"
    _css = HERE / "training_cockpit.css"

    plan = traitlets.Dict().tag(sync=True)
    frames = traitlets.List().tag(sync=True)
    status = traitlets.Unicode("ready").tag(sync=True)
    message = traitlets.Unicode("").tag(sync=True)

    def __init__(self, session: Session, *, scores: int = 10) -> None:
        self.session, self.last_error, self._scores = session, "", scores
        self._moments: Iterator[Moment] | None = None
        self._failed: object = None  # the run of the view that ended in an error
        self._one_at_a_time = threading.Lock()  # ipykernel 7 answers two messages on two threads
        self._seen: list[dict[str, Any]] = []
        training = session.training.plan
        curriculum = training.curriculum
        bounds = [0, *(min(mark, training.steps) for mark in (curriculum.i_ar, curriculum.i_strided)), training.steps]
        super().__init__(
            plan={
                "steps": training.steps,
                "done": session.training.step,
                "lessons": [
                    {"name": curriculum.phase(start), "from": start, "to": stop}
                    for start, stop in pairwise(bounds)
                    if stop > start
                ],
                "out": str(session.out),
            }
        )
        self.on_msg(self._asked)

    def __repr__(self) -> str:
        return f"TrainingCockpit(step {self.session.training.step} of {self.plan['steps']}, {self.status})"

    def run_now(self, steps: int | None = None) -> TrainingCockpit:
        """Train in the calling cell: `steps` of them, or to the end; what the view would show is recorded."""
        goal = self.plan["steps"] if steps is None else self.session.training.step + steps
        while self.status != "finished" and self.session.training.step < goal:
            self._keep(self._advance(0.0))
        return self

    def _asked(self, _: object, content: dict[str, Any], buffers: object) -> None:
        """Answer a message of the view; an error becomes a sentence in it, and leaves it usable."""
        with self._one_at_a_time:
            try:
                frames = []
                if content.get("want") == "steps" and content.get("ask") != self._failed:
                    frames = self._advance(content.get("budget_ms", 80) / 1000)
                    self._keep(frames)
                elif content.get("want") == "stop":
                    self._stop()
                answer = {"frames": frames, "status": self.status}
            except (Exception, KeyboardInterrupt) as error:
                self.last_error = traceback.format_exc()
                self._failed = content.get("ask")  # what was asked in the same breath would fail again
                self._moments, self.status, self.message = None, "ready", str(error) or type(error).__name__
                answer = {"frames": [], "status": "failed"}
        self.send(answer | {"ask": content.get("ask")})

    def _advance(self, seconds: float) -> list[dict[str, Any]]:
        """Train for about that long, at least one step: what there is to see."""
        if self._moments is None:
            self._moments, self.status = self.session.watch(scores=self._scores), "training"
        frames, until = [], time.perf_counter() + seconds
        while True:
            try:
                moment = next(self._moments, None)
            except BaseException:  # an interrupt too: a generator that raised would look like one that has ended
                self._moments, self.status = None, "ready"
                raise
            if moment is None:
                self._moments = None
                break
            self.message = ""
            frames.append(self._frame(moment))
            if time.perf_counter() >= until or moment.figure is not None:
                break
        if self.session.training.step >= self.plan["steps"]:
            self.status = "finished"
        return frames

    def _frame(self, moment: Moment) -> dict[str, Any]:
        curriculum = self.session.training.plan.curriculum
        seen = {
            "step": moment.step.step,
            "loss": moment.loss,
            "rate": moment.step.tokens_per_second,
            "seconds": moment.seconds,
            "order": curriculum.in_words(moment.step.step - 1),
        }
        if moment.figure is not None:
            seen |= {
                "nats": moment.figure.nats_per_token,
                "perplexity": moment.figure.perplexity,
                "said": str(moment.figure),
                "sample": moment.sample,
            }
        return seen

    def _keep(self, frames: list[dict[str, Any]]) -> None:
        """Remember frames for views that open later, and sync them where a score or an end is reached.

        Of a long run every second frame between scores is let go.
        """
        self._seen += frames
        if len(self._seen) > MOST_POINTS:
            self._seen = [frame for i, frame in enumerate(self._seen) if i % 2 == 0 or "nats" in frame]
        if self.status != "training" or any("nats" in frame for frame in frames):
            self.frames = list(self._seen)

    def _stop(self) -> None:
        """Save what there is; Play goes on from it."""
        self.session.save(self.session.last_figure())
        self.frames = list(self._seen)
        self.status = "finished" if self.session.training.step >= self.plan["steps"] else "stopped"
