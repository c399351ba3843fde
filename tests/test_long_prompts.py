"""Laws of reading what is given: in chunks, so that nothing grows with its square, and the chunks change nothing."""

import pytest
import torch
from strategies import tiny
from torch.utils._python_dispatch import TorchDispatchMode

from armdlab import AR, ARMD, Gate, GenerationOrder, decode_steps, generate
from armdlab.engine import Engine
from armdlab.objectives import nll

N = 32
GIVEN = torch.randint(7, (N,), generator=torch.Generator().manual_seed(3)).tolist()
PROMPT = {"prompt": GIVEN[:23]}
GAPS = {"known": [token if position % 3 else -1 for position, token in enumerate(GIVEN)]}
AT_THE_END = {"known": [-1] * 5 + GIVEN[5:], "order": GenerationOrder.left_to_right(N)}
BLOCKS = {"known": GIVEN[:20] + [-1] * 12, "order": GenerationOrder.blockwise(N, 4)}
WAYS = {
    "one by one": (ARMD, PROMPT),
    "streams": (ARMD, {**PROMPT, "streams": 3}),
    "gaps": (ARMD, {**GAPS, "streams": 2}),
    "at the end": (ARMD, AT_THE_END),
    "blocks": (ARMD, BLOCKS),
    "AR": (AR, PROMPT),
    "verified": (ARMD, {**PROMPT, "streams": 3, "verify": True}),
    "verified heads": (ARMD, {**PROMPT, "streams": 3, "verify": "heads"}),
    "verified, gaps": (ARMD, {**GAPS, "streams": 4, "verify": True}),
    "gated": (ARMD, {**PROMPT, "streams": 3, "gate": Gate(0.2)}),
    "gated, gaps": (ARMD, {**GAPS, "streams": 3, "gate": Gate(0.0)}),
}


@pytest.mark.parametrize("size", [1, 4, 7, 21, 22, 23])
@pytest.mark.parametrize("way", WAYS)
def test_what_is_given_is_read_in_chunks_that_change_nothing(way, size, monkeypatch):
    kind, how = WAYS[way]
    model = tiny(kind, max_length=N)
    how = {"length": N, "seed": 5, "batch_size": 2, **how}
    whole = list(decode_steps(model, **how))
    for room in ("calls", "speculative", "gated"):
        monkeypatch.setattr(f"armdlab.{room}.CHUNK", size)
    rows, hidden = [], Engine.of(model).__class__.hidden

    def spy(self, tokens, token_at, target_at, *others):
        rows.append(tokens.shape[1])
        return hidden(self, tokens, token_at, target_at, *others)

    monkeypatch.setattr(type(Engine.of(model)), "hidden", spy)
    chunked = list(decode_steps(model, **how))
    assert len(chunked) == len(whole)
    for one, other in zip(chunked, whole, strict=True):
        assert torch.equal(one.positions, other.positions)
        assert torch.equal(one.tokens, other.tokens)
        assert (one.log_probs - other.log_probs).abs().max() <= 1e-5
    n_together = 4 if way in ("blocks", "verified, gaps") else 3  # a block is read whole, and drafts are read at once
    assert max(rows) <= size + n_together


def test_a_long_prompt_conditions_what_follows_as_one_full_pass_says(monkeypatch):
    monkeypatch.setattr("armdlab.calls.CHUNK", 6)
    model = tiny(ARMD, max_length=N)
    text = generate(model, length=N, seed=1, **PROMPT)
    said = torch.cat([step.log_probs for step in decode_steps(model, length=N, seed=1, **PROMPT)], 1)
    with torch.no_grad():
        full = -nll(model, text, GenerationOrder.left_to_right(N), "none")[:, 23:]
    assert (said - full).abs().max() <= 1e-5


class Largest(TorchDispatchMode):
    """Remembers how many numbers the largest tensor has that was made meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self.n_numbers = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor):
            self.n_numbers = max(self.n_numbers, made.untyped_storage().nbytes() // made.element_size())
        return made


@pytest.mark.parametrize("way", ["one by one", "streams", "verified", "gated"])
def test_a_long_prompt_never_meets_itself_in_one_matrix(way):
    length, n_prompt = 2048, 2042
    model = tiny(ARMD, max_length=length, d_model=4, d_position=4)
    engine, how = Engine.of(model), {key: value for key, value in WAYS[way][1].items() if key != "prompt"}
    with Largest() as largest:
        steps = decode_steps(engine, length=length, prompt=[1] * n_prompt, batch_size=2, **{**how})
        next(steps)
    assert largest.n_numbers <= 2 * 512 * (length + 8) < length**2
