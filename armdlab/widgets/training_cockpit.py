"""How does a model learn, as one watches? Loss, held-out perplexity, meter, sample; pause and stop."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

import traitlets

from armdlab.figures import Picture
from armdlab.figures import lessons as lesson_figures
from armdlab.recipes import Moment, Session
from armdlab.widgets.pulled import RECORDED, PulledView

MOST_POINTS = 2000  # of the curve that a second view or a reload sees


class TrainingCockpit(PulledView):
    """Train a session in view: Play, Pause, Stop and save.

    Args:
        session: what is trained; go on with one that was stopped by `Session.resume`.
        scores: how often held-out text is scored and a sample written, evenly over the run.
    """

    files = ("pull", "training_cockpit")

    plan = traitlets.Dict().tag(sync=True)
    frames = traitlets.List().tag(sync=True)
    recorded = traitlets.Dict().tag(sync=True)
    status = traitlets.Unicode("ready").tag(sync=True)

    def __init__(self, session: Session, *, scores: int = 10) -> None:
        self.session, self._scores = session, scores
        self._moments: Iterator[Moment] | None = None
        self._seen: list[dict[str, Any]] = []
        training = session.training.plan
        curriculum = training.curriculum
        bounds = [0, *(min(mark, training.steps) for mark in (curriculum.i_ar, curriculum.i_strided)), training.steps]
        super().__init__(
            recorded=json.loads((RECORDED / "training.json").read_text(encoding="utf-8")),
            plan={
                "steps": training.steps,
                "done": session.training.step,
                "lessons": [
                    {"name": curriculum.phase(start), "from": start, "to": stop}
                    for start, stop in pairwise(bounds)
                    if stop > start
                ],
                "out": str(session.out),
            },
        )

    def __repr__(self) -> str:
        return f"TrainingCockpit(step {self.session.training.step} of {self.plan['steps']}, {self.status})"

    def run_now(self, steps: int | None = None) -> TrainingCockpit:
        """Train in the calling cell: `steps` of them, or to the end; what the view would show is recorded."""
        goal = self.plan["steps"] if steps is None else self.session.training.step + steps
        with self._by_a_cell():
            while self.status != "finished" and self.session.training.step < goal:
                self.advance(0.0)
        return self

    def answer(self, content: dict[str, Any]) -> dict[str, Any]:
        """As for every pulled run; but whoever may stop and save it, be it trained by a cell."""
        if content.get("want") == "stop":
            self._run_id = content.get("run")
        return super().answer(content)

    def begin(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Nothing is asked for: the session says all. It goes on from where it is."""
        return {}

    def advance(self, seconds: float) -> tuple[dict[str, Any], bool]:
        """Train for about that long, at least one step: what there is to see."""
        frames = self._train(seconds)
        self._keep(frames)
        return {"frames": frames}, self.status != "finished"

    def halt(self, shown: int | None) -> None:
        """Save what there is; Play goes on from it."""
        self.session.save(self.session.last_figure())
        self.frames = list(self._seen)
        self.status = "finished" if self.session.training.step >= self.plan["steps"] else "stopped"

    def picture(self) -> Picture:
        """Loss in training, and held out, in nats and as perplexity; of the recorded run where this has not begun."""
        frames, title = self._seen, f"Training: step {self.session.training.step} of {self.plan['steps']}"
        if not frames:
            frames, title = self.recorded["frames"], f"{title}. Recorded earlier: {self.recorded['said']}"
        curves = {"while training": [(frame["step"], frame["loss"]) for frame in frames]}
        if held_out := [(frame["step"], frame["nats"]) for frame in frames if "nats" in frame]:
            curves["held out"] = held_out
        drawn = lesson_figures.lines(curves, title=title, x="step", y="nats a token", perplexity=True)
        return Picture(drawn.png, f"{title}. {drawn.alt}")

    def _train(self, seconds: float) -> list[dict[str, Any]]:
        """Train for about that long, at least one step: what there is to see."""
        if self._moments is None:
            self._moments = self.session.watch(scores=self._scores)
        self.status = "training"
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
