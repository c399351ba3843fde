"""How much chance does a model of tales leave to tokens that cannot be there?

Run it from the root of the repository: `python tests/benchmarks/tail.py tales tales_ar runs/mine` (half a minute each).
"""

from __future__ import annotations

import argparse
import math
import statistics

import torch

import armdlab
from armdlab import tales
from armdlab.trained import Lab

SEED = 2026
RARE = 1e-3  # a tale's rarest word has some 1 %: what gets less hardly belongs to it
MANY = 3.0  # nats; a name out of sixty has 4.1


def tail(lab: Lab, n: int) -> dict[str, float]:
    """Score n fresh tales left to right, and add up what tokens with less than `RARE` get."""
    texts = list(tales.tales(n, SEED))
    encoded = [lab.tokenizer.encode(text) for text in texts]
    end, length = lab.tokenizer.end_of_text, lab.model.config.max_length
    rows = torch.tensor([(row + [end] * length)[:length] for row in encoded])
    is_text = torch.arange(length) < torch.tensor([[len(row)] for row in encoded])
    log_p = torch.cat([lab.model(part).log_softmax(-1) for part in rows.split(50)])
    nats = (-log_p.gather(-1, rows.unsqueeze(-1)).squeeze(-1) * is_text).sum(-1)
    excess = [cost + tales.log_prob(text) for cost, text in zip(nats.tolist(), texts, strict=True)]
    log_p = log_p[is_text]
    p = log_p.exp()
    rare = torch.where(p < RARE, p, 0).sum(-1)
    has_many = -(p * log_p).sum(-1) > MANY
    return {
        "nats above the truth": statistics.fmean(excess),
        "+-": statistics.stdev(excess) / math.sqrt(n),
        "of a tale": float(rare.sum()) / n,
        f"of a token with over {MANY:g} nats": float(rare[has_many].mean()),
    }


def main() -> None:
    """Print a row for each model."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("models", nargs="+", help="shipped models or folders, ARMD or AR")
    parser.add_argument("--tales", type=int, default=300, help="how many to score")
    asked = parser.parse_args()
    for name in asked.models:
        with torch.inference_mode():
            figures = tail(armdlab.load(name), asked.tales)
        print(f"{name}: " + ", ".join(f"{what} {value:.4f}" for what, value in figures.items()), flush=True)


if __name__ == "__main__":
    main()
