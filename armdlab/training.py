"""How does a model learn, so that it can be watched, stopped, resumed and repeated? (a loop on `accelerate`)

Batches and orders are pure functions of the seed and the step, so weights, optimiser state and a step count are all
that a run has to remember: resumed training equals uninterrupted training.
"""

from __future__ import annotations

import itertools
import math
import statistics
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from armdlab.baselines import BlockDiffusion
from armdlab.checkpoints import CONFIG, PLAN, WEIGHTS, differences, read_json, step_of, to_json, written_whole
from armdlab.costs import n_tokens_of_text, nats_to_learn
from armdlab.model import Transformer
from armdlab.orders import GenerationOrder
from armdlab.plans import Plan, load_plan
from armdlab.processes import accelerator_of_all
from armdlab.rows import Rows, Text
from armdlab.sampling import DROPOUT, MASKING, ROWS, seeded

STATE = "training_state.safetensors"
MOMENTS = ("exp_avg", "exp_avg_sq", "momentum_buffer")  # what AdamW and Muon remember of a parameter


@dataclass(frozen=True)
class TrainStep:
    """What one step did.

    Args:
        step: counted from 1.
        loss: nats per token on this batch, before the step, without what unlikelihood adds to them; in rows of whole
            texts, per token of text.
        tokens_per_second: of all processes, in this step; padding counts, as it takes as long.
        phase: what the curriculum teaches at this step.
        seconds: that it took.
    """

    step: int
    loss: float
    tokens_per_second: float
    phase: str
    seconds: float


class Training:
    """A run that a person can watch: iterate over `run()`, stop when you like, `save()`, and resume.

    Args:
        model: what learns.
        text: what it learns from: running text, of which rows are cut, or rows of whole texts.
        plan: how.

    Raises:
        ValueError: if rows are longer than the model's `max_length`, or than the text, or were laid out for another
            length; if masked diffusion is to learn by unlikelihood or soft targets; if there is no Muon in this torch;
            or as `processes.accelerator_of_all`.
    """

    def __init__(self, model: Transformer, text: Text | Rows, plan: Plan) -> None:
        length = plan.curriculum.length
        if length > model.config.max_length:
            raise ValueError(f"rows of length={length} do not fit max_length={model.config.max_length}; shorten them")
        if plan.unlikelihood and isinstance(model, BlockDiffusion):
            raise ValueError(
                f"unlikelihood={plan.unlikelihood} is for models that know what was said before, and "
                f"{type(model).__name__} is trained by masks; leave it out"
            )
        if isinstance(text, Rows) and text.soft_targets and isinstance(model, BlockDiffusion):
            raise ValueError(
                f"soft_targets=True is for models that are trained by orders, and {type(model).__name__} is trained by "
                "masks; leave it out"
            )
        text.windows(length, 1, seeded(0))  # or say now that the text is too short, or its rows are of another length
        self.text, self.plan, self.step = text, plan, 0
        self.accelerator = accelerator_of_all()
        self.model, *self.optimizers = self.accelerator.prepare(model, *_optimizers(model, plan))

    def run(self) -> Iterator[TrainStep]:
        """Train from the present step to the last of the plan, yielding after each.

        Raises:
            FloatingPointError: if a loss or a gradient is no finite number; the weights are then those of the step
                before. Or if a step left such a number in a weight.
        """
        while self.step < self.plan.steps:
            started = time.perf_counter()
            tokens, order = self.batch(self.step)
            loss = self._learn(tokens, order)
            self.step += 1
            self.refuse_infinite_weights()
            n_tokens = tokens.numel() * self.accelerator.num_processes
            phase = self.plan.curriculum.phase(self.step - 1)
            seconds = time.perf_counter() - started
            yield TrainStep(self.step, loss, n_tokens / seconds, phase, seconds)

    def batch(self, step: int) -> tuple[Tensor, GenerationOrder]:
        """Tokens int64 (B, N) and the order of a step, for this process."""
        plan, process = self.plan, self.accelerator.process_index
        generator = seeded(plan.seed, step, process, ROWS)
        tokens = self.text.windows(plan.curriculum.length, plan.batch_size, generator)
        return tokens, plan.curriculum.order(step, plan.batch_size, process=process)

    def _learn(self, tokens: Tensor, order: GenerationOrder) -> float:
        self.model.train()
        self._forget_gradients()  # an interrupted step may have left some behind
        device = self.accelerator.device
        unlikelihood = self.plan.weight_of_unlikelihood(self.step)
        process = self.accelerator.process_index
        chance, dropout = (seeded(self.plan.seed, self.step, process, use) for use in (MASKING, DROPOUT))
        torch.manual_seed(dropout.initial_seed())
        for group in itertools.chain(*(optimizer.param_groups for optimizer in self.optimizers)):
            group["lr"] = self.plan.rate(self.step) * group["share"]
        mean = torch.zeros((), device=device)
        n_tokens, size = n_tokens_of_text(self.text, tokens), self.plan.micro_batch_size or len(tokens)
        for start in range(0, len(tokens), size):
            rows = slice(start, start + size)
            part, part_order = tokens[rows].to(device), order.rows(rows).to(device)
            is_last = start + size >= len(tokens)  # only then do processes exchange their gradients
            with nullcontext() if is_last else self.accelerator.no_sync(self.model):
                with torch.autocast(device.type, torch.bfloat16, enabled=self.plan.bf16):
                    nats, costs = nats_to_learn(self.model, self.text, part, part_order, chance, unlikelihood)
                    loss = costs.sum() / n_tokens
                self.accelerator.backward(loss)
            mean += nats.detach().sum() / n_tokens
        norm = self.accelerator.clip_grad_norm_(self.model.parameters(), self.plan.clip)
        mean = float(self.accelerator.reduce(mean, "mean"))
        if not math.isfinite(mean) or not math.isfinite(float(norm)):
            self._forget_gradients()
            what = "loss" if not math.isfinite(mean) else "gradient"
            raise FloatingPointError(
                f"the {what} of step {self.step + 1} is {mean if what == 'loss' else float(norm)}; nothing was learnt "
                f"from it. Try a learning rate below {self.plan.learning_rate:g}"
            )
        for optimizer in self.optimizers:
            optimizer.step()
        self._forget_gradients()
        return mean

    def refuse_infinite_weights(self) -> None:
        """Say so if a weight is no finite number: no step mends it.

        Raises:
            FloatingPointError: if there is one.
        """
        weights = {name: weight.detach() for name, weight in self.bare_model.named_parameters()}
        extremes = torch.stack([torch.stack(weight.aminmax()) for weight in weights.values()])  # nan if one is
        are_good = extremes.isfinite().all(-1)
        if not are_good.all():
            name = next(name for name, is_good in zip(weights, are_good.tolist(), strict=True) if not is_good)
            value = float(weights[name][~weights[name].isfinite()][0])
            raise FloatingPointError(
                f"after step {self.step} {name} holds {value}; such weights are neither trained on nor saved. Try a "
                f"learning rate below {self.plan.learning_rate:g}"
            )

    def _forget_gradients(self) -> None:
        for optimizer in self.optimizers:
            optimizer.zero_grad()

    @property
    def bare_model(self) -> Transformer:
        """The model without the wrappers of several processes."""
        return self.accelerator.unwrap_model(self.model)

    def save(self, folder: str | Path) -> None:
        """Write weights, optimiser state and plan into a folder; from there `resume` goes on.

        Raises:
            FloatingPointError: if a weight is no finite number; the folder is left as it is.
            OSError: if a file could not be written; what was saved before is whole.
        """
        self.refuse_infinite_weights()
        if not self.accelerator.is_main_process:
            return
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        # The three take their names only once all are on the disk: one that runs full leaves the last checkpoint whole.
        with written_whole(folder / STATE) as state:
            save_file(self._moments(), state, metadata={"step": str(self.step)})
            with written_whole(folder / PLAN) as plan:
                saved = {"step": self.step, "plan": asdict(self.plan), "text": self.text.fingerprint}
                saved |= {"processes": self.accelerator.num_processes, "config": self.bare_model.description}
                plan.write_text(to_json(saved) + "\n", encoding="utf-8")
                self.bare_model.save_pretrained(folder, step=self.step)

    def resume(self, folder: str | Path) -> None:
        """Continue where `save` left off.

        Raises:
            FileNotFoundError: if the folder holds no saved training.
            ValueError: if it was saved under another plan, by another number of processes, by a model of another config
                or on another text, or a file is torn or of another step.
        """
        folder = Path(folder)
        saved = read_json(folder / PLAN)
        plan = load_plan(folder)
        if plan != self.plan:
            changed = differences(asdict(plan), asdict(self.plan))
            raise ValueError(f"{folder} was trained by another plan ({changed}); resume with the same one")
        if saved.get("text", self.text.fingerprint) != self.text.fingerprint:
            raise ValueError(
                f"{folder} was trained on another text than its corpus holds now; restore the corpus as it was, or "
                "train anew into another folder"
            )
        here, then = self.accelerator.num_processes, saved.get("processes", self.accelerator.num_processes)
        if then != here:
            launch = f"torchrun --nproc_per_node {then} -m -- armdlab.cli" if then > 1 else "armdlab"
            raise ValueError(
                f"{folder} was trained with processes={then}, each with batches of its own, and here are {here}; "
                f"resume with as many: `{launch} train --out {folder} --resume`"
            )
        model = type(self.bare_model).from_pretrained(folder)
        if model.config != self.bare_model.config:
            raise ValueError(f"{folder} holds {model.config}, not {self.bare_model.config}; resume with the same model")
        if changed := differences(saved.get("config", {}), model.description):
            raise ValueError(f"{folder / CONFIG} has changed since {PLAN} was saved ({changed}); restore it")
        if not (folder / STATE).is_file():
            raise FileNotFoundError(f"{folder} holds no {STATE}: it was exported for use, not saved to train on")
        for path in (folder / WEIGHTS, folder / STATE):
            if step_of(path) not in (None, saved["step"]):
                raise ValueError(
                    f"{path} is of step {step_of(path)} and {PLAN} of step {saved['step']}: saving was cut off between "
                    f"them; train again, or start from its weights: `armdlab train --start {folder} --out ...`"
                )
        moments = load_file(folder / STATE)
        self.bare_model.load_state_dict(model.state_dict())
        self.step = saved["step"]
        if not self.step:
            return  # nothing was learnt, so the optimiser remembers nothing
        for name, optimizer, parameter in self._learnt_by():
            state = optimizer.state[parameter]
            if isinstance(_bare(optimizer), torch.optim.AdamW):
                state["step"] = torch.tensor(float(saved["step"]), device=parameter.device)
            for key in MOMENTS:
                if f"{key}.{name}" in moments:
                    state[key] = moments[f"{key}.{name}"].to(parameter.device)

    def _moments(self) -> dict[str, Tensor]:
        return {
            f"{key}.{name}": optimizer.state[parameter][key].detach().cpu().contiguous()
            for name, optimizer, parameter in self._learnt_by()
            for key in MOMENTS
            if key in optimizer.state[parameter]
        }

    def _learnt_by(self) -> Iterator[tuple[str, torch.optim.Optimizer, nn.Parameter]]:
        """Every parameter's name, and the optimiser that moves it."""
        names = {parameter: name for name, parameter in self.bare_model.named_parameters()}
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                yield from ((names[parameter], optimizer, parameter) for parameter in group["params"])


def _optimizers(model: Transformer, plan: Plan) -> list[torch.optim.Optimizer]:
    """AdamW, and Muon beside it if the plan says so; "share" is a group's part of the plan's learning rate."""
    in_layers = set() if plan.muon is None else {p for p in model.layers.parameters() if p.dim() == 2}
    groups = [
        {"params": [p for p in model.parameters() if p.dim() == 2 and p not in in_layers]},
        {"params": [p for p in model.parameters() if p.dim() != 2], "weight_decay": 0.0},
    ]
    how = {"lr": plan.learning_rate, "weight_decay": plan.weight_decay}
    adamw = torch.optim.AdamW([{"share": 1.0, **group} for group in groups], betas=(0.9, plan.beta2), fused=True, **how)
    if plan.muon is None:
        return [adamw]
    if not hasattr(torch.optim, "Muon"):
        raise ValueError(f"muon={plan.muon} needs torch 2.9 or newer, and this is {torch.__version__}; leave it out")
    group = {"params": [p for p in model.parameters() if p in in_layers], "share": plan.muon / plan.learning_rate}
    return [adamw, torch.optim.Muon([group], **how)]


def _bare(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    return getattr(optimizer, "optimizer", optimizer)  # without the wrapper of accelerate


def seconds_per_step(model: Transformer, text: Text | Rows, plan: Plan, *, repeats: int = 3) -> float:
    """Time forward and backward passes of a plan's batch, learning nothing: the median of `repeats`, after one more.

    Args:
        model: what would learn; its weights and gradients are left as they are.
        text: what it would learn from.
        plan: batch size, rows in one pass, row length and precision.
        repeats: how many passes to time.
    """
    device, length, size = model.bos.device, plan.curriculum.length, plan.micro_batch_size or plan.batch_size
    tokens = text.windows(length, plan.batch_size, seeded(0))
    order = plan.curriculum.order(min(plan.curriculum.i_perm, plan.steps - 1), plan.batch_size)
    seconds = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        for start in range(0, plan.batch_size, size):
            rows = slice(start, start + size)
            part, part_order = tokens[rows].to(device), order.rows(rows).to(device)
            with torch.autocast(device.type, torch.bfloat16, enabled=plan.bf16):
                _, costs = nats_to_learn(model, text, part, part_order, seeded(0), plan.unlikelihood)
                loss = costs.sum() / tokens.numel()
            torch.autograd.grad(loss, list(model.parameters()))
        if device.type != "cpu":
            torch.accelerator.synchronize()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[1:])
