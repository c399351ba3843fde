"""How much chance does a model of tales leave to tokens that cannot be there, and to names that are taken?

Run it from the root of the repository: `python tests/benchmarks/rare_tokens.py tales tales_ar runs/mine` (half a minute
each).
"""

from __future__ import annotations

import argparse

import torch

import armdlab
from armdlab import tales
from armdlab.baselines import BlockDiffusion
from armdlab.rows import Rows
from armdlab.tale_evaluation import excess_nats
from armdlab.trained import Lab

SEED = 2026
RARE = 1e-3  # a tale's rarest word has some 1 %: what gets less hardly belongs to it
SURE = 0.9  # chance of any name at all
MANY = 3.0  # nats; a name out of sixty has 4.1


def predictions(lab: Lab, texts: list[str]) -> tuple[Rows, torch.Tensor, torch.Tensor]:
    """Texts as rows and as tokens (R, N), and the log-probability of every token at each position, left to right.

    Raises:
        ValueError: if the model is masked diffusion, which does not read left to right.
    """
    if isinstance(lab.model, BlockDiffusion):
        raise ValueError(f"{type(lab.model).__name__} does not read left to right; measure ARMD or AR")
    rows = Rows.encode(texts, lab.tokenizer, lab.model.config.max_length)
    tokens = rows.pad(torch.arange(len(rows)))
    return rows, tokens, torch.cat([lab.model(part).log_softmax(-1) for part in tokens.split(50)])


def left_to_rare(rows: Rows, tokens: torch.Tensor, log_p: torch.Tensor) -> tuple[float, float]:
    """What tokens below `RARE` get together: in a mean tale, and at a mean slot of over `MANY` nats."""
    log_p = log_p[rows.is_text(tokens)]
    p = log_p.exp()
    rare, has_many = torch.where(p < RARE, p, 0).sum(-1), -(p * log_p).sum(-1) > MANY
    return float(rare.sum()) / len(rows), float(rare[has_many].mean())


def left_to_taken(lab: Lab, tokens: torch.Tensor, log_p: torch.Tensor) -> float:
    """Where somebody new is named: what a name that is taken gets, over what one that is free gets.

    A model that has not learnt that a friend is not the hero is at 1, the truth at 0. Slots that take no name by
    surety, such as the first word of a sentence, are left out.
    """
    names = tales.load_grammar().grammar.lists["character"].cells["name"]
    forms = torch.tensor([[lab.tokenizer.encode(before + name)[0] for name in names] for before in (" ", "")])
    ratios = []
    for row, log_chances in zip(tokens, log_p, strict=True):
        taken: list[int] = []
        for at, token in enumerate(row.tolist()):
            form, who = (index.tolist() for index in (forms == token).nonzero(as_tuple=True))
            if not who or who[0] in taken:
                continue
            chances = log_chances[at, forms[form[0]]].exp()
            if taken and chances.sum() > SURE:
                of_taken = chances[taken].sum()
                free = (chances.sum() - of_taken) / (len(names) - len(taken))
                ratios.append(float(of_taken / len(taken) / free))
            taken.append(who[0])
    return sum(ratios) / len(ratios)


def main() -> None:
    """Print a row for each model."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("models", nargs="+", help="shipped models or folders, ARMD or AR")
    parser.add_argument("--tales", type=int, default=300, help="how many to score")
    asked = parser.parse_args()
    texts = list(tales.tales(asked.tales, SEED))
    for name in asked.models:
        lab = armdlab.load(name)
        with torch.inference_mode():
            rows, tokens, log_p = predictions(lab, texts)
            of_tale, of_slot = left_to_rare(rows, tokens, log_p)
            of_taken = left_to_taken(lab, tokens, log_p)
            excess = excess_nats(lab.model, lab.tokenizer, texts)
        rare = f"rare tokens get {of_tale:.3f} in a tale, {of_slot:.4f} at a slot of over {MANY:g} nats"
        taken = f"a name that is taken gets {of_taken:.3f} of what a free one gets"
        print(f"{name}: {rare}; {taken}; {excess}", flush=True)


if __name__ == "__main__":
    main()
