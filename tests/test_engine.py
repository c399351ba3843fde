"""Laws of engines: what is packed is packed for good, and a cache is taken once."""

import re

import pytest
import torch
from strategies import tiny

from armdlab import AR, ARMD, Gate, GenerationOrder, decode_steps, generate
from armdlab.baselines import MDLM
from armdlab.engine import Engine, KVCache
from armdlab.objectives import nll

N = 32


def train(model):
    """A step that every weight feels."""
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight))


@pytest.mark.parametrize("cls", [ARMD, AR, MDLM])
def test_an_engine_writes_as_it_was_packed_however_its_model_learns(cls):
    model = tiny(cls)
    engine = Engine.of(model)
    expected = list(decode_steps(engine, length=8, seed=1))
    between = decode_steps(model, length=8, seed=1)
    seen = [next(between)]
    train(model)
    for steps in (decode_steps(engine, length=8, seed=1), [*seen, *between]):
        for step, other in zip(steps, expected, strict=True):
            assert torch.equal(step.tokens, other.tokens)
            assert torch.equal(step.log_probs, other.log_probs)
    assert not engine.is_current


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"streams": 2},
        {"streams": 2, "verify": True},
        {"streams": 2, "gate": Gate(min_probability=0.4)},
        {"streams": 4, "gate": Gate(max_entropy=1.0)},
    ],
    ids=str,
)
def test_rows_that_leave_take_no_second_cache_and_change_nothing_for_those_that_stay(how, monkeypatch):
    model, moved, keep = tiny(ARMD, max_length=N, vocab_size=5), [], KVCache.keep

    def spy(self, rows):
        before = self._slots.data_ptr(), self.prefix.data_ptr()
        keep(self, rows)
        assert (self._slots.data_ptr(), self.prefix.data_ptr()) == before
        assert len(self._slots[0]) == len(self.prefix) == len(rows)
        moved.append((rows != torch.arange(len(rows))).any())

    monkeypatch.setattr(KVCache, "keep", spy)
    prompt = torch.tensor([[0, 1], [1, 2], [3, 4], [4, 3], [2, 1], [1, 1]])
    how = {"length": N, "end": 0, "temperature": 0, **how}  # no chance: rows can be made by themselves, too
    text, said = written(model, prompt, **how)
    assert any(moved), "no row has moved up"
    for row in range(len(prompt)):
        alone, said_alone = written(model, prompt[row : row + 1], **how)
        assert torch.equal(text[row], alone[0])
        torch.testing.assert_close(said[row], said_alone[0], atol=1e-5, rtol=1e-5)
    if "gate" not in how:
        order = GenerationOrder.strided(N, how.get("streams", 1)).behind(torch.arange(N) < 2)
        full = -nll(model, text, order.one_by_one() if "verify" in how else order, "none").detach().double()
        torch.testing.assert_close(said[said != 0], full[said != 0], atol=1e-4, rtol=1e-4)


def written(model, prompt, **how):
    """Text (B, N), and what its steps said: log-probabilities, 0 where nothing was made."""
    text, said = generate(model, prompt=prompt, **how), torch.zeros(len(prompt), N, dtype=torch.float64)
    for step in decode_steps(model, prompt=prompt, **how):
        row, column = (step.positions.expand_as(step.tokens) != -1).nonzero(as_tuple=True)
        said[row, step.positions.expand_as(step.tokens)[row, column]] = step.log_probs[row, column]
    return text, said


@pytest.mark.parametrize("way", [{"verify": True}, {"gate": Gate(min_probability=0.5)}], ids=str)
def test_ways_that_are_not_compiled_say_so(way):
    name = "verify=True" if "verify" in way else "gate=Gate(min_probability=0.5, max_entropy=None)"
    sentence = (
        f"{name} runs no compiled steps, and an engine with compiled=True gives up its fast layout for them; "
        "give the model, or Engine.of(model)"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        decode_steps(Engine.of(tiny(ARMD), compiled=True), length=8, streams=2, **way)
