"""What do views show before anything is computed? Runs that were recorded by the models that are shipped.

Record them anew when those models change:

    python -m armdlab.widgets.recordings
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from armdlab import load
from armdlab.recipes import Recipe, Session
from armdlab.widgets.pulled import RECORDED
from armdlab.widgets.stream_viewer import Race, StreamViewer
from armdlab.widgets.training_cockpit import TrainingCockpit

EVERY = 4  # steps of a training between two points of its curve: all that a picture can hold


def main() -> None:
    """Write a tale, a race and a training into data/traces."""
    RECORDED.mkdir(exist_ok=True)
    tale = StreamViewer(load("tales")).run_now(prompt="", streams=4, temperature=0.7, seed=1)
    tale.save(RECORDED / "tale.json")

    race = Race(
        dict(zip(("tales", "tales_ar", "tales_mdlm"), map(load, ("tales", "tales_ar", "tales_mdlm")), strict=True))
    )
    race.run_now()  # the first run warms up
    found = race.run_now(seed=1)
    (RECORDED / "race.json").write_text(json.dumps(found, ensure_ascii=False), encoding="utf-8")

    recipe = Recipe(corpus="manual", steps=300, length=128, n_layer=4, n_head=4, d_model=128, batch_size=8)
    with tempfile.TemporaryDirectory() as folder:
        cockpit = TrainingCockpit(Session.begin(recipe, Path(folder) / "run")).run_now()
        frames = [frame for frame in cockpit.frames if frame["step"] % EVERY == 1 or "nats" in frame]
        kept = [{key: frame[key] for key in ("step", "loss", "nats", "said") if key in frame} for frame in frames]
        said = f"ARMD of 4 layers, {recipe.steps} steps on the Python manual"
        (RECORDED / "training.json").write_text(json.dumps({"said": said, "frames": kept}), encoding="utf-8")


if __name__ == "__main__":
    main()
