"""Laws of devices: nothing assumes a CPU. On a GPU the real thing runs; elsewhere a fake one finds mistakes."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from strategies import random_tokens, tiny

from armdlab import ARMD, GenerationOrder, decode_steps, generate
from armdlab.engine import Engine
from armdlab.objectives import nll

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here: run this file on a GPU")
ORDERS = [
    GenerationOrder.left_to_right(8),
    GenerationOrder.strided(8, 2),
    GenerationOrder.random(8, batch_size=2, generator=torch.Generator().manual_seed(0)),
    GenerationOrder.from_masking_times(torch.tensor([[1, 2, 2, 3, 1, 1, 3, 2], [1, 1, 1, 2, 2, 2, 3, 3]])),
]


@needs_gpu
@pytest.mark.parametrize("order", ORDERS, ids=repr)
def test_gpu_and_cpu_agree_on_every_logit(order):
    model, tokens = tiny(ARMD), random_tokens(tiny(ARMD), 2, 8)
    on_cpu = model(tokens, order)
    torch.testing.assert_close(model.cuda()(tokens.cuda(), order).cpu(), on_cpu, atol=2e-4, rtol=2e-4)


@needs_gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_cached_decoding_on_a_gpu_equals_one_full_pass(dtype):
    model = tiny(ARMD, max_length=64).cuda()
    with torch.autocast("cuda", torch.bfloat16, enabled=dtype == torch.bfloat16):
        text = generate(model, length=64, streams=4, batch_size=4, seed=0)
        steps = list(decode_steps(model, length=64, streams=4, batch_size=4, seed=0))
        full = -nll(model, text, GenerationOrder.strided(64, 4), "none").double()
    for step in steps:
        difference = (step.log_probs - full[:, step.positions]).abs().max()
        assert difference < (1e-4 if dtype == torch.float32 else 0.5)


@needs_gpu
@pytest.mark.parametrize("streams", [1, 4])
def test_a_captured_graph_writes_what_its_kernels_write_one_by_one(streams):
    model = tiny(ARMD, max_length=64).cuda()
    how = {"length": 64, "streams": streams, "batch_size": 3, "seed": 1}
    captured = Engine.of(model, compiled=True)
    for _ in range(2):  # the second run has a cache of its own, at other addresses
        assert torch.equal(generate(captured, **how), generate(model, **how))
    for one, other in zip(decode_steps(captured, **how), decode_steps(model, **how), strict=True):
        assert (one.log_probs - other.log_probs).abs().max() <= 1e-5


FAKE = """
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils import backend_registration as registration

class Module(registration._DummyBackendModule):
    def get_amp_supported_dtype(self):
        return [torch.bfloat16, torch.float16]

registration._setup_privateuseone_for_python_backend("fakegpu", backend_module=Module())
keep = torch.library.Library("_", "IMPL", "AutocastPrivateUse1")
keep.fallback(torch.library.fallthrough_kernel)

from armdlab import AR, ARMD, ARMDConfig, GenerationOrder
from armdlab.masks import ALL_VISIBLE
from armdlab.engine import Engine
from armdlab.baselines import MDLM, BlockDiffusion
from armdlab.objectives import diffusion_bound, nll
from armdlab.soft_targets import Targets
from armdlab.steps import Writing
from armdlab.widgets.leak_detector import movement

config = ARMDConfig(7, 8, n_layer=3, n_head=2, d_model=16)
orders = [
    GenerationOrder.left_to_right(8),
    GenerationOrder.strided(8, 2),
    GenerationOrder.random(8, batch_size=2),
    GenerationOrder.from_masking_times(torch.tensor([[1, 2, 2, 3, 1, 1, 3, 2], [1, 1, 1, 2, 2, 2, 3, 3]])),
]
for order in orders:  # what the host asks of an order, it asks before the order moves
    _ = order.n_blocks, order.is_sequential, order.is_left_to_right
real_to = GenerationOrder.to

def to(self, device):
    # what a real .to would do, for tensors that only claim to be somewhere
    if str(device) != "fakegpu:0":
        return real_to(self, device)
    out = object.__new__(GenerationOrder)
    for name, value in vars(self).items():
        is_tensor = isinstance(value, torch.Tensor)
        out.__dict__[name] = torch.empty(value.shape, dtype=value.dtype, device="fakegpu") if is_tensor else value
    return out

GenerationOrder.to = to


def move(model):
    for module in model.modules():
        for name, value in list(module._parameters.items()):
            if value is not None:
                fake = torch.empty(value.shape, dtype=value.dtype, device="fakegpu")
                module._parameters[name] = torch.nn.Parameter(fake)
        for name, value in list(module._buffers.items()):
            module._buffers[name] = torch.empty(value.shape, dtype=value.dtype, device="fakegpu")


for model in (MDLM(config), BlockDiffusion(config, 3)):
    with FakeTensorMode(allow_non_fake_inputs=True):
        move(model)
        tokens = torch.empty(2, 8, dtype=torch.int64, device="fakegpu")
        loss = diffusion_bound(model, tokens)
        assert loss.device.type == "fakegpu", loss.device
        loss.backward()

for cls in (AR, ARMD):
    model = cls(config)
    with FakeTensorMode(allow_non_fake_inputs=True):
        move(model)
        if PLANT:
            model.rotary.cos = torch.empty(9, 4)
        tokens = torch.empty(2, 8, dtype=torch.int64, device="fakegpu")
        for order in orders[: 1 if cls is AR else None]:
            loss = nll(model, tokens, order)
            assert loss.device.type == "fakegpu", loss.device
            loss.backward()
        log_chances, at = model(tokens, orders[0]).log_softmax(-1), torch.zeros(3, dtype=torch.int64)
        targets = Targets(at, at, at, torch.ones(3)).to(tokens.device)
        costs = targets.expected(-log_chances[..., 0], log_chances)
        assert costs.device.type == "fakegpu", costs.device
        costs.sum().backward()
        optimizer = torch.optim.AdamW(model.parameters())
        optimizer.step()
        engine = Engine.of(model)
        at = torch.empty(0, dtype=torch.int64, device="fakegpu")
        first = torch.empty(1, dtype=torch.int64, device="fakegpu")
        logits = engine.head(engine.hidden(tokens[:, :0], at, first, ALL_VISIBLE, engine.new_cache(2, 8)))
        assert logits.device.type == "fakegpu"
        if cls is ARMD:  # what people look at comes back to the host
            moved = movement(model, torch.tensor([[0, 1, 2, 3, 4, 5, 6, 0]]), orders[1], 0, 1)
            assert moved.device.type == "cpu", moved.device

with FakeTensorMode(allow_non_fake_inputs=True):  # on devices without float64 chance is the host's
    there = torch.empty(1, 2, dtype=torch.int64, device="fakegpu")
    writing = Writing(torch.empty(2, 8, dtype=torch.int64, device="fakegpu"), None)
    writing.rows = there[0, :1]
    step = writing.step(there[0], there, torch.empty(1, 2, dtype=torch.float64))
    assert (step.tokens.device.type, step.log_probs.device.type) == ("fakegpu", "cpu")
    step.write_into(torch.empty(2, 8, dtype=torch.int64))
print("ran on a fake accelerator")
"""


def on_fake_accelerator(plant):
    script = f"PLANT = {plant}\n{FAKE}"
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)


fake_works = pytest.mark.skipif(
    not torch.__version__.startswith("2.13"), reason="the fake accelerator uses private parts of torch 2.13"
)


@fake_works
def test_scoring_learning_and_decoding_keep_every_tensor_on_the_device_and_never_wait_for_it():
    run = on_fake_accelerator(plant=False)
    assert run.returncode == 0, run.stderr
    assert "ran on a fake accelerator" in run.stdout


@fake_works
def test_the_fake_accelerator_catches_a_tensor_forgotten_on_the_cpu():
    run = on_fake_accelerator(plant=True)
    assert run.returncode != 0
    assert "device" in run.stderr


DECODE = """
import pytest
import torch
from fake_accelerator import FakeAccelerator
from strategies import tiny

from armdlab import ARMD, Gate, GenerationOrder, decode_steps, decoding, generate
from armdlab.baselines import MDLM
from armdlab.engine import Engine
from armdlab.sampling import Sampler


class Mine(ARMD):
    def embed(self, *args, **how):
        return super().embed(*args, **how)


def on_the_host(*how):  # as on MPS
    return Sampler(*how[:-1], "cpu")


decoding.Sampler = on_the_host
known = torch.tensor([[3, -1, -1, 1, -1, -1, -1, -1], [5, -1, -1, 2, -1, -1, -1, -1]])
ragged = torch.tensor([[3, -1, -1, 1, -1, -1, -1, -1], [5, 2, -1, -1, -1, -1, -1, -1]])
ways = [
    {"batch_size": 3},
    {"batch_size": 3, "streams": 2, "end": 2},
    {"known": ragged, "end": 2},
    {"batch_size": 2, "order": GenerationOrder.random(8, batch_size=2)},
]
of_armd = [
    {"known": known, **way, **rows}
    for way in (
        {"streams": 2, "verify": True},
        {"streams": 3, "gate": Gate(min_probability=0.3)},
        {"streams": 3, "gate": Gate(max_entropy=1.5)},
        {"streams": 3, "gate": Gate(0.3, 1.5), "temperature": 0.5, "top_k": 3},
    )
    for rows in ({"end": 2}, {"known": known[:1]}, {"known": None, "batch_size": 3, "end": 2, "streams": 4})
]
for cls in (ARMD, Mine, MDLM):
    model = tiny(cls)
    for way in ways + of_armd * (cls is ARMD):
        how = {"length": 8, "seed": 1, **way}
        expected = list(decode_steps(model, **how))
        expected_text = generate(model, **how)
        with FakeAccelerator() as accelerator:
            there = tiny(cls).to("fakegpu")
            if "order" in how:
                how["order"] = how["order"].to("fakegpu")
            text = generate(there, **how)
            assert text.device.type == "fakegpu"
            assert torch.equal(text.cpu(), expected_text), (cls, way)
            assert accelerator.n_waits == 0, "generate asks for no seconds"
            steps = list(decode_steps(there, **how))
            assert accelerator.n_waits == len(steps) == len(expected)
            for step, other in zip(steps, expected, strict=True):
                assert torch.equal(step.positions.cpu(), other.positions)
                assert torch.equal(step.tokens.cpu(), other.tokens)
                torch.testing.assert_close(step.log_probs.cpu(), other.log_probs, atol=1e-5, rtol=1e-5)

with FakeAccelerator():
    with pytest.raises(RuntimeError, match="meets tensors of two devices"):
        torch.zeros(2, device="fakegpu") + torch.zeros(2)
    with pytest.raises(TypeError, match="has no float64"):
        torch.zeros(2, device="fakegpu").double()
print("wrote on a fake accelerator")
"""


@fake_works
def test_every_way_of_decoding_writes_the_same_on_a_device_that_has_no_float64_and_generate_never_waits_for_it():
    tests = Path(__file__).parent
    run = subprocess.run([sys.executable, "-c", DECODE], capture_output=True, text=True, check=False, cwd=tests)
    assert run.returncode == 0, run.stderr
    assert "wrote on a fake accelerator" in run.stdout


SCORE = """
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import torch
from fake_accelerator import FakeAccelerator
from strategies import tiny

from armdlab import AR, ARMD, GenerationOrder, decoding, infilling, load
from armdlab.baselines import MDLM
from armdlab.evaluation import any_order, bound, likelihood
from armdlab.figures import leak_matrix
from armdlab.generative import generated
from armdlab.infilling import surest_first
from armdlab.rows import Rows, Text
from armdlab.sampling import Sampler
from armdlab.traces import record
from armdlab.trained import Lab
from armdlab.widgets.gaps import COMMON, Candidate, How, Page, common_log_probs, walked_order


def on_the_host(temperature=1.0, top_k=None, top_p=None, seed=None, device=None):  # as on MPS
    return Sampler(temperature, top_k, top_p, seed, "cpu")


decoding.Sampler = infilling.Sampler = on_the_host
tokenizer = load("tales").tokenizer
page = Page.of(tokenizer, "A brave goose named Gus had a small yellow rug.", 24).without([1, 2, 8])
V, ids = tokenizer.vocab_size, page.ids
running = Text(torch.randint(V, (30,), generator=torch.Generator().manual_seed(0)), 60)
rows = Rows(torch.tensor([3, 1, 0, 5, 4, 2, 6, 0, 2, 0]), torch.tensor([0, 3, 8, 10]), 8, "padded", 0, 3, 20)
with_gaps, words = torch.tensor([3, -1, -1, 1, -1, -1, 2, -1]), torch.arange(8)


def figures(labs):
    armd, ar, mdlm = labs
    for text in (running, rows):
        for how in ({}, {"streams": 2}, {"shuffled": 8}):
            found = likelihood(armd.model, text, 8, **how)
            yield found.nats_per_token, found.standard_error
        yield bound(mdlm.model, text, 8).nats_per_token,
        yield any_order(armd.model, text, 8, n_orders=2).nats_per_token,
    for how in ({"streams": 2, "seed": 1}, {"words": words}):
        for step in surest_first(armd.model, with_gaps, **how):
            yield *step.positions.tolist(), *step.tokens[0].tolist(), *step.log_probs[0].tolist()
    for how in (How("surest first"), How("right to left", 2)):
        order = walked_order(page, how, list(how.steps(armd, page)))
        filled = Candidate.scored(armd, page, ids.tolist(), order, str(how), ["here"])
        yield filled.log_prob, *(common_log_probs(armd, page, [filled], common)[0] for common in COMMON)
    for writer, how in ((armd, {"streams": 2}), (mdlm, {"steps": 3})):
        found = generated(writer, ar, length=8, n_samples=3, batch_size=2, **how)
        yield found.nats_per_token, found.own_nats_per_token
    yield leak_matrix(armd.model, torch.tensor([[1, 2, 3]]), GenerationOrder.strided(3, 1)).flatten().tolist()
    trace = record(armd.model, tokenizer, length=8, seed=1, streams=2)
    yield trace.log_prob, *(p for step in trace.steps for made in step.made for _, p in made.others)


here = [Lab(tiny(cls, vocab_size=V, max_length=24), tokenizer, {}, Path()) for cls in (AR, ARMD, MDLM)]
here = [here[1], here[0], here[2]]
expected = list(figures(here))
with FakeAccelerator():
    there = [replace(lab, model=deepcopy(lab.model).to("fakegpu")) for lab in here]
    found = list(figures(there))
assert len(found) == len(expected)
for one, other in zip(found, expected, strict=True):
    torch.testing.assert_close(torch.tensor(one), torch.tensor(other), atol=1e-4, rtol=1e-4, equal_nan=True)
print("scored on a fake accelerator")
"""


@fake_works
def test_all_that_is_scored_is_the_same_on_a_device_that_has_no_float64():
    tests = Path(__file__).parent
    run = subprocess.run([sys.executable, "-c", SCORE], capture_output=True, text=True, check=False, cwd=tests)
    assert run.returncode == 0, run.stderr
    assert "scored on a fake accelerator" in run.stdout
