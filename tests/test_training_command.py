"""Laws of `armdlab train` itself: whatever is asked for reaches the recipe."""

from dataclasses import fields

import pytest
import typer

from armdlab.cli import app, main
from armdlab.recipes import Recipe, Session

# What is typed, and what it means. Every value is another than the default, and no two are alike.
ASKED = [
    (
        "--corpus tales:77 --layout padded --steps 40 --length 64 --vocab-size 333 --n-layer 3 --n-head 2 --d-model 48 "
        "--dropout 0.05 --batch-size 5 --learning-rate 0.004 --muon 0.03 --fine-tuning 0.6 --cool-down 0.02 "
        "--weight-decay 0.07 --beta2 0.98 --soft-targets --unlikelihood 12 --rho 6 --streams 16 --streams 8 "
        "--prompts 0.25 --marks 10 20 30 --orders cut=9 --orders strided=0.5 --seed 11",
        {
            "corpus": "tales:77",
            "layout": "padded",
            "steps": 40,
            "length": 64,
            "vocab_size": 333,
            "n_layer": 3,
            "n_head": 2,
            "d_model": 48,
            "dropout": 0.05,
            "batch_size": 5,
            "learning_rate": 0.004,
            "muon": 0.03,
            "fine_tuning": 0.6,
            "cool_down": 0.02,
            "weight_decay": 0.07,
            "beta2": 0.98,
            "soft_targets": True,
            "unlikelihood": 12.0,
            "rho": 6,
            "streams": (16, 8),
            "prompts": 0.25,
            "marks": (10, 20, 30),
            "mixture": (("cut", 9.0), ("strided", 0.5)),
            "seed": 11,
        },
    ),
    ("--model block --block-size 7 --steps 41", {"model": "block", "block_size": 7, "steps": 41}),
    ("--start manual --deepen 9 --minutes 3", {"start": "manual", "deepen": 9}),
]


@pytest.fixture
def asked(monkeypatch, capsys):
    """What a line of options makes of a training: recipe, folder, precisions and minutes; nothing is trained."""

    def ask(line):
        found = []

        class Begun:
            def rehearse(self, precisions, minutes, say):
                found.extend([precisions, minutes])
                raise ValueError("enough")

        monkeypatch.setattr(Session, "begin", lambda recipe, out, command: found.extend([recipe, out]) or Begun())
        monkeypatch.setattr("sys.argv", ["armdlab", "train", "--out", "a folder", *line.split()])
        with pytest.raises(SystemExit):
            main()
        assert capsys.readouterr().err.endswith("error: enough\n")
        return found

    return ask


@pytest.mark.parametrize(("line", "meant"), ASKED)
def test_a_recipe_is_what_was_typed_and_defaults_elsewhere(asked, line, meant):
    recipe, out, precisions, minutes = asked(line)
    assert recipe == Recipe(**meant)
    assert str(out) == "a folder"
    assert precisions == (False, True)
    assert minutes == (3.0 if "--minutes" in line else None)


@pytest.mark.parametrize(("precision", "tried"), [("float32", (False,)), ("bf16", (True,)), ("auto", (False, True))])
def test_a_rehearsal_tries_the_precision_that_was_typed(asked, precision, tried):
    assert asked(f"--steps 5 --precision {precision}")[2] == tried


def test_no_option_is_left_out_above():
    """A new one joins by a value in ASKED."""
    options = {option.name for option in typer.main.get_command(app).commands["train"].params}
    typed = {word[2:].replace("-", "_") for line, _ in ASKED for word in line.split() if word.startswith("--")}
    assert options - typed == {"out", "resume", "precision", "as_json"}
    said = {name for _, meant in ASKED for name in meant}
    assert {field.name for field in fields(Recipe)} - said == {
        "d_position",
        "tie_weights",
        "micro_batch_size",
        "bf16",
        "split_seed",
    }
    defaults = Recipe()
    assert not [name for _, meant in ASKED for name, value in meant.items() if value == getattr(defaults, name)]
