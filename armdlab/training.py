"""How does a model learn, so that it can be watched, stopped, resumed and repeated? (a loop on `accelerate`)

Batches and orders are pure functions of the seed and the step, so weights, optimiser state and a step count are all
that a run has to remember: resumed training equals uninterrupted training.
"""

from __future__ import annotations

import math
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
from armdlab.tokenization import Tokenizer

STATE, PLAN = "training_state.safetensors", "training.json"


@dataclass(frozen=True)
class Text:
    """A corpus as a model sees it: one row of ids, an end-of-text id after each document.

    Args:
        ids: int64 (T,).
        n_characters: how many characters the ids stand for, ends of texts not counted.
    """

    ids: Tensor
    n_characters: int

    @classmethod
    def encode(cls, texts: list[str], tokenizer: Tokenizer) -> Text:
        """Encode documents and join them."""
        ids = [i for document in tokenizer.encode_all(texts) for i in (*document, tokenizer.end_of_text)]
        return cls(torch.tensor(ids, dtype=torch.int64), sum(map(len, texts)))

    def windows(self, length: int, count: int, generator: torch.Generator) -> Tensor:
        """Draw int64 (count, length) stretches that start anywhere.

        Raises:
            ValueError: if the text is shorter than one stretch.
        """
        if len(self.ids) < length:
            raise ValueError(
                f"the training text has {len(self.ids)} tokens, fewer than one row of length={length}; "
                "give more text, or shorter rows"
            )
        starts = torch.randint(len(self.ids) - length + 1, (count, 1), generator=generator)
        return self.ids[starts + torch.arange(length)]


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
        loss: nats per token on this batch, before the step.
        tokens_per_second: of all processes, in this step.
        phase: what the curriculum teaches at this step.
    """

    step: int
    loss: float
    tokens_per_second: float
    phase: str


@dataclass(frozen=True)
class Validation:
    """Exact negative log-likelihood of held-out text, read left to right, each token scored once in its row.

    Args:
        nats_per_token: mean over tokens, ends of texts included.
        nats_per_character: the same total over characters, so that tokenizers can be compared.
        n_tokens: how many tokens were scored.
    """

    nats_per_token: float
    nats_per_character: float
    n_tokens: int

    @property
    def perplexity(self) -> float:
        """exp of the nats per token."""
        return math.exp(self.nats_per_token)


class Training:
    """A run that a person can watch: iterate over `run()`, stop when you like, `save()`, and resume.

    Args:
        model: what learns.
        text: what it learns from.
        plan: how.

    Raises:
        ValueError: if rows are longer than the model's `max_length`, or than the text.
    """

    def __init__(self, model: Transformer, text: Text, plan: Plan) -> None:
        length = plan.curriculum.length
        if length > model.config.max_length:
            raise ValueError(f"rows of length={length} do not fit max_length={model.config.max_length}; shorten them")
        text.windows(length, 1, seeded(0))  # or say now that the text is too short
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
        torch.manual_seed(seeded(self.plan.seed, self.step, self.accelerator.process_index, 2).initial_seed())  # dropout
        for group in self.optimizer.param_groups:
            group["lr"] = self.plan.rate(self.step)
        with torch.autocast(device.type, torch.bfloat16, enabled=self.plan.bf16):
            loss = nll(self.model, tokens.to(device), order.to(device))
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
            state["step"] = torch.tensor(float(saved["step"]))
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


@torch.no_grad()
def validate(
    model: Transformer, text: Text, length: int, *, batch_size: int = 16, order: GenerationOrder | None = None
) -> Validation:
    """Score held-out text: neighbouring rows of `length` tokens, the last one shorter, each token once.

    Args:
        model: what predicts; put into evaluation mode for the while.
        text: what is held out.
        length: tokens in a row, N.
        batch_size: rows scored together.
        order: for rows of `length` tokens; None for left to right. The shorter last row is read left to right.

    Raises:
        ValueError: if the text is empty.
    """
    if not len(text.ids):
        raise ValueError("the validation text is empty; hold out a larger share, or give more text")
    was_training, device = model.training, model.bos.device
    model.eval()
    n_whole = len(text.ids) // length
    rows, rest = text.ids[: n_whole * length].view(n_whole, length), text.ids[n_whole * length :]
    total = sum(
        nll(model, batch.to(device), order, "sum").double().item() for batch in rows.split(batch_size) if len(batch)
    )
    if len(rest):
        total += nll(model, rest.unsqueeze(0).to(device), None, "sum").double().item()
    model.train(was_training)
    return Validation(total / len(text.ids), total / text.n_characters, len(text.ids))
