"""Laws of figures that are kept: the same comes back, and whatever decides a figure decides whether it is read."""

import functools
import json
import math
import re

import pytest
import torch
from strategies import tiny

from armdlab import AR, ARMD
from armdlab.baselines import MDLM
from armdlab.evaluation import any_order, bound, likelihood
from armdlab.measured import Measured
from armdlab.rows import Text

TEXT = Text(torch.arange(40, dtype=torch.int32) % 7, 99)


@pytest.fixture
def calls():
    return []


@pytest.fixture
def counted(calls):
    @functools.wraps(likelihood)
    def counting(*args, **how):
        calls.append(args)
        return likelihood(*args, **how)

    return counting


@pytest.mark.parametrize(("cls", "measure"), [(AR, likelihood), (MDLM, bound), (MDLM, any_order)])
@pytest.mark.parametrize("n_tokens", [40, 8], ids=["rows", "a row, whose error is nan"])
def test_what_comes_back_is_what_was_measured(tmp_path, cls, measure, n_tokens):
    model, text = tiny(cls), Text(TEXT.ids[:n_tokens], 0)
    measured = Measured(tmp_path / "measured")
    first = measured("a", measure, model, text, 8)
    again = measured("a", measure, model, text, 8)
    assert again is not first
    assert repr(again) == repr(first) == repr(measure(model, text, 8))  # to the last digit; nan is no equal of itself
    assert math.isnan(again.standard_error) == (n_tokens == 8)


def test_a_figure_is_measured_once_and_said_to_be_kept(tmp_path, calls, counted):
    model, said = tiny(AR), []
    for _ in range(3):
        found = Measured(tmp_path, say=said.append)("ar_0", counted, model, TEXT, 8)
    assert len(calls) == 1
    assert said == 2 * [f"kept from before: ar_0, left to right, perplexity {found.perplexity:.2f}"]


def test_whatever_decides_a_figure_has_it_measured_anew_if_it_changes(tmp_path, calls, counted, monkeypatch):
    model, measured = tiny(ARMD), Measured(tmp_path)
    measured("a", counted, model, TEXT, 8)
    with torch.no_grad():
        next(model.parameters()).mul_(2)
    measured("a", counted, model, TEXT, 8)
    measured("a", counted, model, Text(TEXT.ids.flip(0), 99), 8)
    measured("a", counted, model, TEXT, 4)
    measured("a", counted, model, TEXT, 8, streams=2)
    measured("a", counted, model, TEXT, 8, name="another text")
    Measured(tmp_path, device=torch.device("meta"))("a", counted, model, TEXT, 8)
    monkeypatch.setattr("armdlab.__version__", "next")
    measured("a", counted, model, TEXT, 8)
    monkeypatch.undo()
    assert len(calls) == 8
    measured("another name", counted, model, TEXT, length=8, streams=1)  # a default that is said changes nothing
    assert len(calls) == 8


@pytest.mark.parametrize("torn", ["", '{"figure": {"na', "{}", '{"figure": {"nats_per_token": 1.0}}', '{"figure": 1}'])
def test_a_torn_file_is_measured_anew_and_that_is_said(tmp_path, calls, counted, torn):
    model, said = tiny(AR), []
    measured = Measured(tmp_path, say=said.append)
    expected = measured("ar_0", counted, model, TEXT, 8)
    (path,) = tmp_path.iterdir()
    path.write_text(torn)
    assert measured("ar_0", counted, model, TEXT, 8) == expected
    assert len(calls) == 2
    assert said == [f"{path} is torn; measuring ar_0 anew"]
    assert measured("ar_0", counted, model, TEXT, 8) == expected
    assert len(calls) == 2


def test_a_file_says_whose_figure_it_holds_and_what_decided_it(tmp_path):
    model = tiny(AR)
    found = Measured(tmp_path)("ar_0", likelihood, model, TEXT, 8)
    (path,) = tmp_path.iterdir()
    assert re.fullmatch(r"likelihood_[0-9a-f]{16}\.json", path.name)
    told = json.loads(path.read_text())
    assert (told["run"], told["figure"]["nats_per_token"]) == ("ar_0", found.nats_per_token)
    decided_by = {"model": model.fingerprint, "text": TEXT.fingerprint, "length": 8, "streams": 1, "device": "cpu"}
    assert decided_by.items() <= told["decided_by"].items()
