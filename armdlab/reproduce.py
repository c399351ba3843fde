"""Do the paper's relations hold here? (ARMD, Tables 1 to 3, at a budget that one has)

A budget names the runs and what they are measured on. `table1`, `table2` and `table3` train what is missing, resume
what stopped, measure what was not measured yet, and return a `Table` that shows the paper's figures beside ours. What a
small machine can reproduce is how models relate, so each figure stands beside its ratio to the autoregressive
baseline's.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from armdlab import corpora
from armdlab.budgets import Budget
from armdlab.checkpoints import differences, read_json
from armdlab.correcting import Corrector
from armdlab.evaluation import any_order, bound, likelihood, spread_rows
from armdlab.folders import recipe_in
from armdlab.generative import Generated, generated
from armdlab.measured import Measured
from armdlab.recipes import VALIDATION_TOKENS, Recipe, Session
from armdlab.rows import Text, encode
from armdlab.scores import perplexity_of
from armdlab.tables import Cell, Line, Table
from armdlab.trained import CARD, Lab, load

Trainer = Callable[[Session], bool]  # trains a session while someone watches; whether it was stopped


class Stopped(KeyboardInterrupt):
    """Training was stopped by whoever watches, and what there is has been saved."""


class Runs:
    """The runs of a budget in a folder, each trained at most once, and `measured`, which measures each thing once.

    Args:
        budget: what the runs are.
        folder: where they are kept, one folder each.
        train: trains a session while someone watches.
        command: what was typed, for the cards.
        device: where models are measured; None for the CPU. Accelerate chooses where they are trained.
        say: takes a sentence about what is being done.
    """

    def __init__(
        self,
        budget: Budget,
        folder: str | Path,
        train: Trainer,
        command: str = "",
        *,
        device: torch.device | None = None,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.budget, self.folder, self.train, self.command = budget, Path(folder), train, command
        self.device, self.say = device, say
        self.measured = Measured(self.folder / "measured", device=device, say=say)

    def __getitem__(self, name: str) -> Lab:
        """A trained model, trained now if it is not yet.

        Raises:
            Stopped: if training was stopped; what there is has been saved.
            ValueError: if the folder holds a run by another recipe.
        """
        out, recipe = self.folder / name, self.budget.recipes[name]
        if not (out / CARD).is_file():
            session = Session.begin(recipe, out, command=self.command)
        else:
            card = read_json(out / CARD)
            found = recipe_in(out, card, Recipe)
            left_open = [key for key in ("layout", "dropout", "d_position") if getattr(recipe, key) is None]
            chosen = {key: getattr(found, key) for key in left_open}
            asked = replace(recipe, **chosen)
            if found != asked:
                changed = differences(asdict(found), asdict(asked))
                raise ValueError(f"{out} was trained by another recipe ({changed}); choose another --out")
            session = Session.resume(out) if not _is_finished(card) else None
        if session is not None and self.train(session):
            session.save()  # at once: scoring takes a while, in which a second Ctrl-C may come
            session.save(session.last_figure())
            at = f"step {session.training.step:,} of {session.training.plan.steps:,}"
            raise Stopped(f"stopped at {at} of {name}; saved in {out}")
        return load(out, device=self.device or "cpu")

    def gather(self, names: Iterable[str], *corpora_to_score: str) -> None:
        """Load every corpus that is needed: one that cannot be had fails now, not after hours of training.

        Args:
            names: of runs; those that are trained already need no text.
            corpora_to_score: what is measured on.
        """
        cards = {name: self.folder / name / CARD for name in names}
        is_missing = {name: not path.is_file() or not _is_finished(read_json(path)) for name, path in cards.items()}
        needed = [self.budget.recipes[name].corpus for name in cards if is_missing[name]]
        for corpus in dict.fromkeys([*needed, *corpora_to_score]):
            self.say(f"loading {corpus}")
            corpora.load(corpus)

    def seeds(self, model: str) -> list[str]:
        """Names of the runs of a model that differ by their seed alone: "armd" -> ["armd_0", "armd_1", ...]."""
        recipes = self.budget.recipes
        first = recipes[f"{model}_0"]
        return [name for name, recipe in recipes.items() if replace(recipe, seed=first.seed) == first]


def _is_finished(card: Mapping[str, Any]) -> bool:
    return card["steps"] >= card["planned_steps"]


def _averaged(values: list[float], errors: list[float], conditions: Iterable[str], over: str) -> Cell:
    """Mean and its standard error: over seeds if there are several, else what was measured, over rows or samples."""
    error, n = errors[0], len(values)
    if n > 1:
        error, over = statistics.stdev(values) / math.sqrt(n), f"{n} seeds"
    return Cell(statistics.fmean(values), error, tuple(conditions), over=over)


def _cell(figures: Iterable[Any], over: str = "rows") -> Cell:
    """Average perplexities of several seeds."""
    figures = list(figures)
    spreads = [figure.perplexity * figure.standard_error for figure in figures]
    return _averaged([figure.perplexity for figure in figures], spreads, map(str, figures), over)


def table3(runs: Runs) -> Table:
    """Perplexity of held-out text of the training corpus, also under other orders (Table 3)."""
    budget, suffix = runs.budget, "_news" if "armd_news" in runs.budget.recipes else "_0"
    names = {
        model: runs.seeds(model) if suffix == "_0" else [model + suffix] for model in ("ar", "armd", "mdlm", "block")
    }
    length = budget.recipes[names["armd"][0]].length
    trained = [name for group in names.values() for name in group]
    runs.gather(trained, budget.test)
    labs = {name: runs[name] for name in trained}
    text, said = _held_out(budget.test, labs[names["ar"][0]], length)
    n_few = f"on {budget.n_rows} rows"
    few, few_said = Text(spread_rows(text, length, budget.n_rows).flatten(), 0), f"{said}, {n_few}"

    runs.say(f"scoring {len(labs)} models on {said}")

    def figure(run: str, measure: Callable[..., Any], of: Text = text, name: str = said, **how: int) -> Any:  # noqa: ANN401
        return runs.measured(run, measure, labs[run].model, of, length, name=name, **how)

    def score(model: str, **how: int) -> Cell:
        return _cell(figure(name, likelihood, **how) for name in names[model])

    streams = [count for count in (2, 4, 8) if length % count == 0]
    fine_tuned = {"held out": score("armd"), "random orders": score("armd", shuffled=length)}
    fine_tuned |= {f"S = {count}": score("armd", streams=count) for count in streams}
    diffusion = names["mdlm"][0]
    exact = figure(diffusion, any_order, name=few_said, n_orders=budget.n_orders, n_rows=budget.n_rows)

    def score_few(model: str) -> Cell:
        return _cell(figure(name, likelihood, few, few_said) for name in names[model])

    steps = {model: budget.recipes[group[0]].steps for model, group in names.items()}
    before = runs.budget.recipes[names["armd"][0]].plan.curriculum.i_strided
    lines = (
        Line(
            f"AR, {steps['ar']:,} steps",
            {"held out": score("ar"), n_few: score_few("ar")},
            "Transformer 22.83 (1M steps)",
        ),
        Line(
            f"ARMD, {before:,} steps, before streams",
            _before_streams(runs, names["armd"], before),
            "23.64 (300K; 1.035 x), 22.36 (1M; 0.979 x)",
        ),
        Line(f"ARMD, {steps['armd']:,} steps", fine_tuned | {n_few: score_few("armd")}),
        Line(
            f"MDLM, {steps['mdlm']:,} steps, bound",
            {"held out": _cell([figure(diffusion, bound)]), n_few: _cell([exact.bound])},
            "at most 31.78 (1M; 1.392 x)",
        ),
        Line(f"MDLM, log-mean-exp over {budget.n_orders} orders", {n_few: _cell([exact])}),
        Line(
            f"Block diffusion of {budget.recipes[names['block'][0]].block_size}, {steps['block']:,} steps, bound",
            {"held out": _cell(figure(name, bound) for name in names["block"])},
            "at most 30.60 (1M; 1.340 x)",
        ),
    )
    curves = {name: lab.card.get("history", []) for name, lab in labs.items()}
    title = f"Table 3, {budget.name}: held-out perplexity of {budget.test}, rows of {length}"
    return Table(title, lines, lines[0].name, curves)


def table1(runs: Runs) -> Table:
    """Perplexity of texts of another kind, none of which was trained on (Table 1)."""
    budget = runs.budget
    runs.gather(("ar_0", "armd_0", "mdlm_0"), *budget.zero_shot)
    labs = {model: runs[f"{model}_0"] for model in ("ar", "armd", "mdlm")}
    length = labs["ar"].model.config.max_length
    cells: dict[str, dict[str, Cell]] = {model: {} for model in labs}
    for corpus in budget.zero_shot:
        runs.say(f"scoring on {corpus}")
        text, said = _held_out(corpus, labs["ar"], length)
        for model, lab in labs.items():
            measure, name = bound if model == "mdlm" else likelihood, f"{said}, not trained on"
            cells[model][corpus] = _cell([runs.measured(f"{model}_0", measure, lab.model, text, length, name=name)])
    lines = (
        Line("AR", cells["ar"], "GPT-2 45.04 / 42.43 / 138.43 / 41.60 / 75.20"),
        Line("ARMD", cells["armd"], "45.35 / 35.64 / 123.43 / 35.15 / 52.94 (400K steps)"),
        Line(
            "MDLM, bound",
            cells["mdlm"],
            "SEDD, RADD: 50.92, 51.70 / 41.84, 39.98 / 114.24, 107.85 / 40.62, 37.98 / 79.29, 72.99",
        ),
    )
    said = "the paper: LAMBADA / WikiText2 / PTB / WikiText103 / 1BW"
    return Table(f"Table 1, {budget.name}: zero-shot perplexity, rows of {length} ({said})", lines, "AR")


def table2(runs: Runs) -> Table:
    """Perplexity of what the models write, by a judge, beside the entropy of their texts (Table 2).

    Raises:
        ValueError: if the judge's rows are shorter than a text, which it would read in parts, blind across their seams.
    """
    budget = runs.budget
    rows, lengths = budget.recipes[budget.judge].length, {run: budget.recipes[run].length for run in budget.writers}
    if longer := [f"{run} writes {length}" for run, length in lengths.items() if length > rows]:
        raise ValueError(
            f"judge={budget.judge!r} has rows of {rows} tokens, and {' and '.join(longer)}: it would read these texts "
            f"in parts, blind across their seams; give it length={max(lengths.values())}"
        )
    runs.gather((budget.judge, *budget.writers))
    judge = runs[budget.judge]
    paper = {  # of AR and ARMD by the number of streams, of MDLM by the place among its lines
        ("ar_0", 1): "AR ~36 (entropy 8.1 bits)",
        ("armd_0", 1): "36.5 (7.9), ~1.01 x AR",
        ("armd_0", 2): "37.8 (8.0), 1.036 x sequential",
        ("armd_0", 4): "39.4 (8.0), 1.079 x sequential",
        ("mdlm_0", 0): "~103 in N steps, ~2.9 x AR",
        ("mdlm_0", 1): "~113 in N/2 steps, ~3.1 x AR, ~1.10 x its first line",
    }
    lines, sequential = [], {}
    for run, counts in budget.writers.items():
        writer = runs[run]
        is_diffusion = run.startswith("mdlm")
        ways = [(count, None) for count in counts] + [(count, Corrector()) for count in budget.corrected.get(run, ())]
        for place, (count, correct) in enumerate(ways):
            told = f"{count} {'steps' if is_diffusion else 'streams'}{', corrected' if correct else ''}"
            runs.say(f"{budget.n_samples} texts by {run} in {told}")
            found = runs.measured(
                run,
                generated,
                writer,
                judge,
                length=writer.model.config.max_length,
                n_samples=budget.n_samples,
                correct=correct,
                **({"steps": count} if is_diffusion else {"streams": count}),
            )
            base = sequential.setdefault(run, found)
            in_paper = "" if correct else paper.get((run, place if is_diffusion else count), "")
            lines.append(_written(run, found, base, in_paper))
    return Table(f"Table 2, {budget.name}: generative perplexity", tuple(lines), lines[0].name)


def _written(run: str, found: Generated, base: Generated, paper: str) -> Line:
    cost, entropy = found.perplexity / base.perplexity - 1, found.entropy / base.entropy - 1
    own = math.exp(found.own_nats_per_token - base.own_nats_per_token) - 1
    against = "" if found is base else f"; against its first line: perplexity {cost:+.1%}, entropy {entropy:+.1%}"
    first = "sequential" if base.order == "left to right" else "its first line"
    note = f" ({found.entropy_in_bits:.2f} bits)" + ("" if found is base else f", {cost + 1:.3f} x {first}")
    own_said = "" if found is base else f", by itself {own:+.1%}"
    cell = replace(_cell([found], "samples"), conditions=(f"{found}{against}{own_said}",), note=note)
    return Line(f"{run}, N = {found.length}, {found.order}", {"by the judge": cell}, paper)


def _before_streams(runs: Runs, names: list[str], step: int) -> dict[str, Cell]:
    """What runs scored at the end of progressive permutation, from their cards; nothing if one did not score there."""
    cards = {name: read_json(runs.folder / name / CARD) for name in names}
    scored = {name: {entry["step"]: entry for entry in card.get("history", [])} for name, card in cards.items()}
    for name in names:
        if step not in scored[name]:
            runs.say(f"the card of {name} has no score at step {step:,}, before streams; its cell is left empty")
            return {}
    found = [scored[name][step] for name in names]
    values = [perplexity_of(entry["nats_per_token"]) for entry in found]
    relative = [entry.get("standard_error") for entry in found]
    errors = [math.nan if e is None else value * e for value, e in zip(values, relative, strict=True)]
    said = (entry.get("said", "exact, left to right") for entry in found)  # cards of older runs do not tell
    conditions = tuple(
        f"{of_figure}; scored while training, at step {step}: card of {name}"
        for name, of_figure in zip(names, said, strict=True)
    )
    return {"held out": _averaged(values, errors, conditions, "rows")}


def _held_out(corpus: str, lab: Lab, length: int) -> tuple[Any, str]:
    """What a corpus holds out, as running rows by a model's tokenizer, and what it is, in words."""
    splits = corpora.load(corpus, seed=lab.card.get("split_seed", 0))
    text = encode(splits["validation"]["text"], lab.tokenizer, length, "running", VALIDATION_TOKENS)
    return text, corpora.held_out_in_words(corpus, corpora.held_out_split(splits))


TABLES = {"table1": table1, "table2": table2, "table3": table3}
