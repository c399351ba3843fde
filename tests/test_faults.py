"""Laws of runs that go wrong: they stop, say at which step, and what was saved before is whole and said to be."""

import json

import pytest
import torch

from armdlab.recipes import Recipe, Session

TEXT = "\n\n".join(
    f"The {kind} number {i} sits on the mat by the old door." for i in range(150) for kind in ("cat", "dog")
)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    path = tmp_path_factory.mktemp("faults") / "cats.txt"
    path.write_text(TEXT)
    sizes = {"length": 16, "n_layer": 2, "n_head": 2, "d_model": 32, "vocab_size": 300, "batch_size": 4}
    return Recipe(corpus=f"file:{path}", steps=12, learning_rate=1e-2, dropout=0.0, block_size=4, **sizes)


def test_a_perplexity_that_no_number_can_hold_is_infinite(recipe, tmp_path):
    session = Session.begin(recipe, tmp_path / "run")
    with torch.no_grad():
        session.model.head.weight.mul_(1e5)
    figure = session.figure()
    assert 710 < figure.nats_per_token < 1e6
    assert str(figure).startswith("perplexity inf (")
    session.save(figure)
    assert json.loads((tmp_path / "run" / "card.json").read_text())["validation"]["perplexity"] is None
