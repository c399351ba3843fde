"""What must be said to repeat a training run, and what is left of it on disk?

A `Recipe` is that sentence as a value. `Session` is a recipe at work: model, tokenizer, texts and loop, saved into a
folder with a card that tells how it was made and how well it does. Terminal, lessons and tables all train by it.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast_object_list

import armdlab
from armdlab import corpora
from armdlab.baselines import BlockDiffusion
from armdlab.checkpoints import CONFIG, PLAN, write_json
from armdlab.curriculum import Curriculum
from armdlab.decoding import generate
from armdlab.evaluation import Bound, Likelihood, held_out_figure
from armdlab.folders import recipe_in, refuse_another, refuse_taken, saying_what_is_kept
from armdlab.model import ARMDConfig, Transformer
from armdlab.networks import MODELS, SIZES, brought_by, deepened, fresh, redropped, with_waves
from armdlab.orders import GenerationOrder
from armdlab.plans import Plan, load_plan
from armdlab.processes import accelerator_of_all
from armdlab.rows import Rows, Text, encode
from armdlab.sampling import seeded
from armdlab.soft_targets import SoftTargets
from armdlab.tokenization import Tokenizer
from armdlab.trained import CARD, load
from armdlab.training import Training, TrainStep, seconds_per_step

VALIDATION_TOKENS = 50_000  # enough for a standard error of about 0.01 nats, and seconds on a laptop
SMALL_TEXT = 3_000_000  # characters: less is read many times over in minutes, and learnt by heart without dropout


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a run: same recipe, same device, same versions, same weights.

    Args:
        model: "armd", "ar", "mdlm" or "block" (block diffusion).
        corpus: as `corpora.load` takes it.
        start: a folder or the name of a shipped model, whose weights, sizes and tokenizer the run starts from; None for
            weights drawn by `seed`.
        deepen: layers that the model to start from is deepened to (`networks.deepened`); None for as many as it has.
        steps: optimiser steps in all.
        length: tokens in a row, N.
        layout: "running", "padded" or "packed"; None for padded tales, and rows cut from all other texts.
        vocab_size: token ids wanted of the tokenizer that is trained; the name of one on the Hub in its place.
        n_layer: layers L.
        n_head: attention heads H.
        d_model: width D.
        d_position: of the position embeddings; None for three quarters of `length`.
        tie_weights: whether the head reuses the token embedding.
        dropout: share of features dropped; None for 0.4 where the text is small, else 0.
        batch_size: rows at each step, B.
        micro_batch_size: rows in one pass; None for all.
        learning_rate: at the top of the schedule.
        muon: of Muon, for the matrices of the layers; None for AdamW alone.
        fine_tuning: share of `learning_rate` at which the schedule of the strided lesson starts.
        cool_down: share of its top that the learning rate ends at.
        weight_decay: on matrices.
        beta2: share of AdamW's second moment that a step keeps; 0.999 for long runs.
        soft_targets: whether all that the grammar of tales could have said is learnt; for "armd" and "ar".
        unlikelihood: weight in the loss, falling with the rate to a tenth, of tokens said before; for "armd" and "ar".
        bf16: whether to compute in bfloat16.
        rho: shuffled tokens at the end of the ramp; None for N/32.
        streams: numbers of streams of the strided lesson; None for those of 1, 2, 4, 8 that divide N.
        mixture: families of orders of the strided lesson with their weights; None for strided blocks alone.
        prompts: share of rows in streams that stand behind a prompt.
        marks: (i_AR, i_perm, i_strided) in steps; None for `Curriculum.for_steps`.
        block_size: tokens in a block of block diffusion.
        seed: of weights, batches, orders and dropout.
        split_seed: of what is held out (and of which tales are told), so that runs of several seeds share their data.

    Raises:
        ValueError: if `model` is unknown, `marks` are not three, there is nothing to deepen, or there are no soft
            targets for the corpus or the layout.
    """

    model: str = "armd"
    corpus: str = "manual"
    start: str | None = None
    deepen: int | None = None
    steps: int = 1
    length: int = 256
    layout: str | None = None
    vocab_size: int | str = 1024
    n_layer: int = 4
    n_head: int = 4
    d_model: int = 128
    d_position: int | None = None
    tie_weights: bool = False
    dropout: float | None = None
    batch_size: int = 16
    micro_batch_size: int | None = None
    learning_rate: float = 2e-3
    muon: float | None = None
    fine_tuning: float = 1.0
    cool_down: float = 0.1
    weight_decay: float = 0.1
    beta2: float = 0.95
    soft_targets: bool = False
    unlikelihood: float = 0.0
    bf16: bool = False
    rho: int | None = None
    streams: tuple[int, ...] | None = None
    mixture: tuple[tuple[str, float], ...] | None = None
    prompts: float = 0.0
    marks: tuple[int, int, int] | None = None
    block_size: int = 16
    seed: int = 0
    split_seed: int = 0

    def __post_init__(self) -> None:
        """Refuse a model that is not known, and read lists (of JSON) as tuples."""
        if self.model not in MODELS:
            raise ValueError(f"model={self.model!r} is unknown; choose {', '.join(MODELS)}")
        if self.deepen is not None and self.start is None:
            raise ValueError(f"deepen={self.deepen} is for a model to start from; name one by start, or set n_layer")
        if self.soft_targets:
            corpora.refuse_soft_targets(self.corpus, self.layout)
        for name in ("streams", "marks"):
            value = getattr(self, name)
            object.__setattr__(self, name, None if value is None else tuple(value))
        if self.marks is not None and len(self.marks) != 3:
            raise ValueError(f"marks={self.marks} must be three steps: (i_AR, i_perm, i_strided)")
        if self.mixture is not None:
            object.__setattr__(self, "mixture", tuple((family, weight) for family, weight in self.mixture))

    @property
    def plan(self) -> Plan:
        """How the loop trains: a model that knows one order only learns nothing else."""
        how = {"streams": self.streams, "rho": self.rho, "seed": self.seed}
        if self.model != "armd":
            curriculum = Curriculum.left_to_right(self.length, seed=self.seed)
        else:
            curriculum = Curriculum.for_steps(self.steps, self.length, **how)
            if self.marks:
                curriculum = replace(curriculum, **dict(zip(("i_ar", "i_perm", "i_strided"), self.marks, strict=True)))
            if self.mixture:
                curriculum = replace(curriculum, mixture=self.mixture)
            curriculum = replace(curriculum, prompts=self.prompts)
        shared = {field.name: getattr(self, field.name) for field in fields(Plan) if hasattr(self, field.name)}
        return Plan(curriculum=curriculum, **shared)


@dataclass
class Session:
    """A recipe at work in a folder.

    Args:
        recipe: what is done.
        out: folder for model, tokenizer, state and card.
        tokenizer: of the model.
        text: what is learnt from.
        held_out: what is scored.
        training: the loop.
        card: how it was made, and how well it does: what `save` writes.
        split: name of the part of the corpus that is held out.
    """

    recipe: Recipe
    out: Path
    tokenizer: Tokenizer
    text: Text | Rows
    held_out: Text | Rows
    training: Training
    card: dict[str, Any] = field(default_factory=dict)
    split: str = "validation"
    _scored: tuple[int, Likelihood | Bound] | None = field(default=None, init=False, repr=False)  # at which step, what

    @classmethod
    def begin(cls, recipe: Recipe, out: str | Path, *, command: str = "") -> Session:
        """Set up a new run: texts, tokenizer, model.

        Args:
            recipe: what to do.
            out: folder to write to.
            command: what was typed, for the card.

        Raises:
            FileNotFoundError: if there is no such corpus file, or nothing to start from.
            ValueError: if `out` holds a model already or cannot be written, the corpus is too small for a row, the
                recipe contradicts itself, or processes were launched of which Accelerate does not know.
        """
        out, where = Path(out), accelerator_of_all().device
        refuse_taken(out)
        splits = corpora.load(recipe.corpus, seed=recipe.split_seed)
        if "train" not in splits:
            raise ValueError(f"corpus={recipe.corpus} has nothing to train on, only a split for evaluation")
        started = None if recipe.start is None else load(recipe.start)
        if started is not None:
            network = with_waves(started.model)
            if recipe.deepen is not None:
                network = deepened(network, recipe.deepen)
            started = replace(started, model=network)
            brought = brought_by(started, start=recipe.start, model=recipe.model, length=recipe.length)
            recipe, tokenizer = replace(recipe, **brought), started.tokenizer
        elif isinstance(recipe.vocab_size, str):
            tokenizer = Tokenizer.from_hub(recipe.vocab_size)
        else:
            tokenizer = Tokenizer.train(splits["train"]["text"], recipe.vocab_size)
        if recipe.dropout is None:
            n_characters = sum(map(len, splits["train"]["text"]))
            recipe = replace(recipe, dropout=0.4 if n_characters < SMALL_TEXT else 0.0)
        recipe = replace(recipe, layout=recipe.layout or corpora.usual_layout(recipe.corpus))
        if started is None:
            sizes = {name: getattr(recipe, name) for name in (*SIZES, "dropout")}
            config = ARMDConfig(tokenizer.vocab_size, recipe.length, **sizes)
            recipe = replace(recipe, d_position=config.d_position)
            model = fresh(recipe.model, config, block_size=recipe.block_size, seed=recipe.seed)
        else:
            model = redropped(started.model, recipe.dropout)
        model.to(where)
        text, held_out = _texts(recipe, splits, tokenizer)
        training = Training(model, text, recipe.plan)
        session = cls(recipe, out, tokenizer, text, held_out, training, split=corpora.held_out_split(splits))
        session.card = {"command": command, "recipe": asdict(recipe), "corpus": recipe.corpus, "layout": recipe.layout}
        session.card |= {"seed": recipe.seed, "split_seed": recipe.split_seed, "seconds": 0.0}
        if started is not None:
            told = ("command", "recipe", "steps", "processes", "seconds", "versions", "validation", "started_from")
            session.card["started_from"] = {name: started.card[name] for name in told if name in started.card}
        return session

    @classmethod
    def resume(cls, out: str | Path) -> Session:
        """Set up what `save` left in a folder.

        Raises:
            FileNotFoundError: if the folder holds no saved run.
            ValueError: if a file is torn or does not belong to the others, the corpus has changed, or processes were
                launched of which Accelerate does not know.
        """
        lab = load(out, device=accelerator_of_all().device)
        if lab.card.get("tokenizer", lab.tokenizer.fingerprint) != lab.tokenizer.fingerprint:
            raise ValueError(
                f"{out} holds another tokenizer than the one that its model was trained with; restore tokenizer.json"
            )
        recipe, plan = recipe_in(Path(out), lab.card, Recipe), load_plan(out)
        refuse_another(Path(out), PLAN, asdict(recipe.plan), asdict(plan))
        sizes = {name: getattr(recipe, name) for name in (*SIZES, "dropout", "block_size")}
        sizes["architecture"] = MODELS[recipe.model].__name__
        refuse_another(Path(out), CONFIG, sizes, lab.model.description)
        splits = corpora.load(recipe.corpus, seed=recipe.split_seed)
        text, held_out = _texts(recipe, splits, lab.tokenizer)
        training = Training(lab.model, text, plan)
        training.resume(out)
        return cls(recipe, Path(out), lab.tokenizer, text, held_out, training, lab.card, corpora.held_out_split(splits))

    @property
    def model(self) -> Transformer:
        """What learns, without the wrappers of several processes."""
        return self.training.bare_model

    def rehearse(self, precisions: Sequence[bool], minutes: float | None, *, say: Callable[[str], None]) -> None:
        """Measure what a step costs, take the faster of some precisions, and turn minutes into steps.

        Args:
            precisions: bfloat16 (True) or float32 (False); one alone is taken as it is.
            minutes: how long training may take; None keeps the recipe's steps.
            say: takes a sentence about what was found.
        """
        seconds = dict.fromkeys(precisions, 0.0)
        if minutes is not None or len(precisions) > 1:
            plans = [replace(self.training.plan, bf16=bf16) for bf16 in precisions]
            measured = [seconds_per_step(self.model, self.text, plan) for plan in plans]
            broadcast_object_list(measured)  # processes that disagree would train by different plans
            seconds = dict(zip(precisions, measured, strict=True))
            found = ", ".join(f"{'bf16' if key else 'float32'} {value:.2f} s" for key, value in seconds.items())
            say(f"a step takes {found}")
        bf16, steps = min(seconds, key=seconds.get), self.recipe.steps
        if minutes is not None:
            steps = max(1, int(60 * minutes / (1.08 * seconds[bf16])))  # optimiser and batches cost about 8 % more
            say(f"{minutes:g} minutes are about {steps} steps (--steps {steps} repeats it)")
        self.recipe = replace(self.recipe, bf16=bf16, steps=steps)
        self.training.plan = self.recipe.plan
        self.card["recipe"] = asdict(self.recipe)

    def figure(self) -> Likelihood | Bound:
        """How well the model does on held-out text by now.

        Raises:
            FloatingPointError: if that is no finite number.
        """
        name = corpora.held_out_in_words(self.recipe.corpus, self.split)
        found = held_out_figure(self.model, self.held_out, self.recipe.length, name=name)
        if not math.isfinite(found.nats_per_token):
            with saying_what_is_kept(self.out):
                raise FloatingPointError(
                    f"after step {self.training.step} the {name} costs {found.nats_per_token} nats a token. Try a "
                    f"learning rate below {self.recipe.learning_rate:g}"
                )
        return found

    def last_figure(self) -> Likelihood | Bound:
        """What `watch` scored last, if nothing was learnt since; else a new figure."""
        step = self.training.step
        if self._scored is None or self._scored[0] != step:
            self._scored = step, self.figure()
        return self._scored[1]

    def sample(self, *, length: int = 64) -> str:
        """What the model writes by now, from the same stream of chance each time."""
        length = min(length, self.recipe.length)
        if isinstance(self.model, BlockDiffusion):
            order = GenerationOrder.masking_process(
                length, length, block_size=self.model.block_size, generator=seeded(self.recipe.seed)
            )
        else:
            order = GenerationOrder.left_to_right(length)
        ids = generate(self.model, length=length, order=order, seed=self.recipe.seed)[0]
        return self.tokenizer.decode(ids.tolist())

    def watch(self, *, scores: int = 10, save_every: float = 300.0) -> Iterator[Moment]:
        """Train to the end, and say after each step what there is to see; the caller may stop at any.

        Held-out text is scored `scores` times, evenly over the run, and where a lesson of the curriculum ends; a text
        is written then too. What was scored goes into the card as "history", and the run is saved.

        Args:
            scores: how often to score; 0 for the ends of lessons alone.
            save_every: seconds of training after which the run is saved as well.

        Raises:
            FloatingPointError: if a loss, a weight or a score is no finite number; what was saved before is kept.
        """
        plan, since_save = self.training.plan, 0.0
        marks = {round(plan.steps * i / scores) for i in range(1, scores + 1)} if scores else {plan.steps}
        smooth: float | None = None
        for step in self._steps():
            smooth = step.loss if smooth is None else 0.95 * smooth + 0.05 * step.loss
            self.card["seconds"] += step.seconds
            since_save += step.seconds
            is_scored = step.step in marks or plan.curriculum.phase(step.step) != step.phase
            figure = self.figure() if is_scored else None
            if figure is not None:
                self._scored = step.step, figure
                past = {"step": step.step, "seconds": self.card["seconds"], "phase": step.phase, "said": str(figure)}
                past |= {"nats_per_token": figure.nats_per_token, "standard_error": figure.standard_error}
                self.card.setdefault("history", []).append(past)
            if is_scored or since_save > save_every:
                self.save(figure)
                since_save = 0.0
            yield Moment(step, smooth, self.card["seconds"], figure, self.sample() if is_scored else None)

    def save(self, figure: Likelihood | Bound | None = None) -> None:
        """Write tokenizer, model, state and card; from there `resume` goes on.

        Args:
            figure: how well the model does, where it is known.

        Raises:
            FloatingPointError: if a weight is no finite number; what was saved before is kept.
            OSError: if a file could not be written; what was saved before is kept.
        """
        with saying_what_is_kept(self.out):
            self._write(figure)

    def _write(self, figure: Likelihood | Bound | None) -> None:
        self.training.save(self.out)
        if not self.training.accelerator.is_main_process:
            return
        self.tokenizer.save(self.out)
        self.card |= {
            "steps": self.training.step,
            "planned_steps": self.training.plan.steps,
            "parameters": self.model.n_parameters,
            "processes": self.training.accelerator.num_processes,  # each learns from a batch of its own
            "tokenizer": self.tokenizer.fingerprint,
            "versions": {"armdlab": armdlab.__version__, "torch": torch.__version__, "python": sys.version.split()[0]},
        }
        if figure is not None:
            self.card["validation"] = {**asdict(figure), "perplexity": figure.perplexity}
        write_json(self.out / CARD, self.card)

    def _steps(self) -> Iterator[TrainStep]:
        with saying_what_is_kept(self.out):
            yield from self.training.run()


@dataclass(frozen=True)
class Moment:
    """What there is to see after a step.

    Args:
        step: what it did.
        loss: smoothed over about 20 steps, nats per token.
        seconds: of training so far; scoring and writing left out.
        figure: how well the model does on held-out text, where it was scored.
        sample: what it writes, where it was scored.
    """

    step: TrainStep
    loss: float
    seconds: float
    figure: Likelihood | Bound | None
    sample: str | None


def _texts(recipe: Recipe, splits: corpora.DatasetDict, tokenizer: Tokenizer) -> tuple[Text | Rows, Text | Rows]:
    layout = recipe.layout or corpora.usual_layout(recipe.corpus)
    how = (tokenizer, recipe.length, layout)
    held_out = encode(splits["validation"]["text"], *how, VALIDATION_TOKENS)
    if not held_out.n_characters:
        raise ValueError(f"corpus={recipe.corpus} holds out no text to score; give more text, or another corpus")
    if layout == "running":
        return corpora.encoded(splits["train"], tokenizer), held_out
    text = encode(splits["train"]["text"], *how)
    return replace(text, soft_targets=SoftTargets(tokenizer) if recipe.soft_targets else None), held_out
