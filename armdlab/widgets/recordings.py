"""What do views show before anything is computed? Runs that were recorded by the models that are shipped.

Record them anew when those models change:

    python -m armdlab.widgets.recordings tale race verified    # training knows no shipped model
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from armdlab import load
from armdlab.recipes import Recipe, Session
from armdlab.widgets.acceptance_view import AcceptanceView
from armdlab.widgets.pulled import RECORDED
from armdlab.widgets.stream_viewer import Race, StreamViewer
from armdlab.widgets.training_cockpit import TrainingCockpit

EVERY = 4  # steps of a training between two points of its curve: all that a picture can hold


def tale() -> None:
    """A tale in four streams."""
    StreamViewer(load("tales")).run_now(prompt="", streams=4, temperature=0.7, seed=1).save(RECORDED / "tale.json")


def race() -> None:
    """ARMD, AR and masked diffusion on tales; a first race warms them up."""
    runners = Race({name: load(name) for name in ("tales", "tales_ar", "tales_mdlm")})
    runners.run_now()
    _keep("race", runners.run_now(seed=1))


def verified() -> None:
    """A tale by verified decoding, call by call."""
    _keep("verified", AcceptanceView(load("tales")).run_now(streams=4, seed=1))


def training() -> None:
    """A small model on the manual; no shipped model is in it."""
    recipe = Recipe(corpus="manual", steps=300, length=128, n_layer=4, n_head=4, d_model=128, batch_size=8)
    with tempfile.TemporaryDirectory() as folder:
        frames = TrainingCockpit(Session.begin(recipe, Path(folder) / "run")).run_now().frames
    seen = [frame for frame in frames if frame["step"] % EVERY == 1 or "nats" in frame]
    kept = [{key: frame[key] for key in ("step", "loss", "nats", "said") if key in frame} for frame in seen]
    _keep("training", {"said": f"ARMD of 4 layers, {recipe.steps} steps on the Python manual", "frames": kept})


def _keep(name: str, found: object) -> None:
    (RECORDED / f"{name}.json").write_text(json.dumps(found, ensure_ascii=False), encoding="utf-8")


if __name__ == "__main__":
    for name in sys.argv[1:] or ("tale", "race", "verified", "training"):
        {"tale": tale, "race": race, "verified": verified, "training": training}[name]()
