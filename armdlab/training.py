"""How does a model learn, so that it can be watched, stopped, resumed and repeated? (a loop on `accelerate`)

Batches and orders are pure functions of the seed and the step, so weights, optimiser state and a step count are all
that a run has to remember: resumed training equals uninterrupted training.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import accelerate
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from armdlab.checkpoints import read_json, write_json, written_whole
from armdlab.curriculum import Curriculum, seeded
from armdlab.model import Transformer
from armdlab.objectives import nll
from armdlab.orders import GenerationOrder
from armdlab.rows import Rows, Text

STATE, PLAN = "training_state.safetensors", "training.json"


@dataclass(frozen=True)
class Plan:
    """Everything that decides a training run, besides the model and the text.

    Args:
        steps: optimiser steps.
        curriculum: which order is learnt at which step; its `length` is the row length N.
        batch_size: rows of each process at each step.
        learning_rate: at the top of the schedule.
        warm_up: share of the steps over which the learning rate grows; then it falls as a cosine to a tenth.
        weight_decay: on matrices only.
        clip: largest norm of the gradient.
        seed: of batches and dropout.
        bf16: whether to compute in bfloat16 (weights stay in float32).

    Raises:
        ValueError: if a value is out of range.
    """

    steps: int
    curriculum: Curriculum
    batch_size: int = 16
    learning_rate: float = 2e-3
    warm_up: float = 0.05
    weight_decay: float = 0.1
    clip: float = 1.0
    seed: int = 0
    bf16: bool = False

    def __post_init__(self) -> None:
        """Refuse a plan that cannot be trained."""
        for name, low in (("steps", 1), ("batch_size", 1)):
            if getattr(self, name) < low:
                raise ValueError(f"{name}={getattr(self, name)} must be at least {low}")
        if not 0 < self.learning_rate < 1:
            raise ValueError(f"learning_rate={self.learning_rate} must be above 0 and below 1; 2e-3 is a good start")

    def rate(self, step: int) -> float:
        """The learning rate of a step: linear warm-up, then a cosine to a tenth."""
        rising = max(1, round(self.warm_up * self.steps))
        if step < rising:
            return self.learning_rate * (step + 1) / rising
        progress = (step - rising) / max(1, self.steps - rising)
        return self.learning_rate * (0.1 + 0.45 * (1 + math.cos(math.pi * progress)))


@dataclass(frozen=True)
class TrainStep:
    """What one step did.

    Args:
        step: counted from 1.
        loss: nats per token on this batch, before the step; in rows of whole texts, per token of text.
        tokens_per_second: of all processes, in this step; padding counts, as it takes as long.
        phase: what the curriculum teaches at this step.
    """

    step: int
    loss: float
    tokens_per_second: float
    phase: str


class Training:
    """A run that a person can watch: iterate over `run()`, stop when you like, `save()`, and resume.

    Args:
        model: what learns.
        text: what it learns from: running text, of which rows are cut, or rows of whole texts.
        plan: how.

    Raises:
        ValueError: if rows are longer than the model's `max_length`, or than the text, or were laid out for another
            length.
    """

    def __init__(self, model: Transformer, text: Text | Rows, plan: Plan) -> None:
        length = plan.curriculum.length
        if length > model.config.max_length:
            raise ValueError(f"rows of length={length} do not fit max_length={model.config.max_length}; shorten them")
        text.windows(length, 1, seeded(0))  # or say now that the text is too short, or its rows are of another length
        self.text, self.plan, self.step = text, plan, 0
        self.accelerator = accelerate.Accelerator()
        matrices = [p for p in model.parameters() if p.dim() == 2]
        vectors = [p for p in model.parameters() if p.dim() != 2]
        self.optimizer = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": plan.weight_decay}, {"params": vectors, "weight_decay": 0.0}],
            lr=plan.learning_rate,
            betas=(0.9, 0.95),
            fused=True,
        )
        self.model, self.optimizer = self.accelerator.prepare(model, self.optimizer)

    def run(self) -> Iterator[TrainStep]:
        """Train from the present step to the last of the plan, yielding after each.

        Raises:
            FloatingPointError: if a loss is no finite number; the weights are then those of the step before.
        """
        while self.step < self.plan.steps:
            started = time.perf_counter()
            tokens, order = self.batch(self.step)
            loss = self._learn(tokens, order)
            self.step += 1
            n_tokens = tokens.numel() * self.accelerator.num_processes
            phase = self.plan.curriculum.phase(self.step - 1)
            yield TrainStep(self.step, loss, n_tokens / (time.perf_counter() - started), phase)

    def batch(self, step: int) -> tuple[Tensor, GenerationOrder]:
        """Tokens int64 (B, N) and the order of a step, for this process."""
        plan, process = self.plan, self.accelerator.process_index
        generator = seeded(plan.seed, step, process, 1)
        tokens = self.text.windows(plan.curriculum.length, plan.batch_size, generator)
        return tokens, plan.curriculum.order(step, plan.batch_size, process=process)

    def _learn(self, tokens: Tensor, order: GenerationOrder) -> float:
        self.model.train()
        device = self.accelerator.device
        dropout = seeded(self.plan.seed, self.step, self.accelerator.process_index, 2)
        torch.manual_seed(dropout.initial_seed())
        for group in self.optimizer.param_groups:
            group["lr"] = self.plan.rate(self.step)
        with torch.autocast(device.type, torch.bfloat16, enabled=self.plan.bf16):
            loss = _nats_per_token(self.model, self.text, tokens.to(device), order.to(device))
        self.accelerator.backward(loss)
        self.accelerator.clip_grad_norm_(self.model.parameters(), self.plan.clip)
        mean = float(self.accelerator.reduce(loss.detach(), "mean"))
        if not math.isfinite(mean):
            self.optimizer.zero_grad()
            raise FloatingPointError(
                f"the loss of step {self.step + 1} is {mean}; nothing was learnt from it. "
                f"Try a learning rate below {self.plan.learning_rate:g}"
            )
        self.optimizer.step()
        self.optimizer.zero_grad()
        return mean

    @property
    def bare_model(self) -> Transformer:
        """The model without the wrappers of several processes."""
        return self.accelerator.unwrap_model(self.model)

    def save(self, folder: str | Path) -> None:
        """Write weights, optimiser state and plan into a folder; from there `resume` goes on."""
        if not self.accelerator.is_main_process:
            return
        folder = Path(folder)
        self.bare_model.save_pretrained(folder)
        with written_whole(folder / STATE) as path:
            save_file(self._moments(), path, metadata={"step": str(self.step)})
        write_json(folder / PLAN, {"step": self.step, "plan": asdict(self.plan)})

    def resume(self, folder: str | Path) -> None:
        """Continue where `save` left off.

        Raises:
            FileNotFoundError: if the folder holds no saved training.
            ValueError: if it was saved under another plan or by a model of another shape.
        """
        folder = Path(folder)
        saved = read_json(folder / PLAN)
        plan = load_plan(folder)
        if plan != self.plan:
            ours, theirs = asdict(self.plan), asdict(plan)
            changed = [f"{name} was {theirs[name]}, now {ours[name]}" for name in ours if ours[name] != theirs[name]]
            raise ValueError(f"{folder} was trained by another plan ({'; '.join(changed)}); resume with the same one")
        self.bare_model.load_state_dict(type(self.bare_model).from_pretrained(folder).state_dict())
        moments = load_file(folder / STATE)
        for name, parameter in self.bare_model.named_parameters():
            state = self.optimizer.state[parameter]
            state["step"] = torch.tensor(float(saved["step"]), device=parameter.device)
            for key in ("exp_avg", "exp_avg_sq"):
                state[key] = moments[f"{key}.{name}"].to(parameter.device)
        self.step = saved["step"]

    def _moments(self) -> dict[str, Tensor]:
        state = self.optimizer.state
        return {
            f"{key}.{name}": state[parameter][key].detach().cpu().contiguous()
            for name, parameter in self.bare_model.named_parameters()
            for key in ("exp_avg", "exp_avg_sq")
            if key in state[parameter]
        }


def load_plan(folder: str | Path) -> Plan:
    """Read the plan of a saved training.

    Raises:
        FileNotFoundError: if the folder holds none.
    """
    saved = dict(read_json(Path(folder) / PLAN)["plan"])
    curriculum = saved.pop("curriculum")
    return Plan(curriculum=Curriculum(**{**curriculum, "streams": tuple(curriculum["streams"])}), **saved)


def _nats_per_token(model: Transformer, text: Text | Rows, tokens: Tensor, order: GenerationOrder) -> Tensor:
    """The loss: what a batch costs, over its tokens of text.

    Padding is learnt where it is paid for, so what is learnt is what evaluation scores and decoding samples. The sum is
    over tokens of text and not over all that is paid for: else a text would weigh less in strided orders, where much
    padding is paid for that is certain and costs next to nothing.
    """
    if isinstance(text, Text):
        return nll(model, tokens, order)
    return (nll(model, tokens, order, "none") * text.is_paid(tokens, order)).sum() / text.is_text(tokens).sum()


def seconds_per_step(model: Transformer, text: Text | Rows, plan: Plan, *, repeats: int = 3) -> float:
    """Time forward and backward passes of a plan's batch, learning nothing: the median of `repeats`, after one more.

    Args:
        model: what would learn; its weights and gradients are left as they are.
        text: what it would learn from.
        plan: batch size, row length and precision.
        repeats: how many passes to time.
    """
    device, length = model.bos.device, plan.curriculum.length
    tokens = text.windows(length, plan.batch_size, seeded(0)).to(device)
    order = GenerationOrder.shuffled(length, min(2, length), batch_size=plan.batch_size, generator=seeded(0)).to(device)
    seconds = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16, enabled=plan.bf16):
            loss = _nats_per_token(model, text, tokens, order)
        torch.autograd.grad(loss, list(model.parameters()))
        if device.type != "cpu":
            torch.accelerator.synchronize()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[1:])
