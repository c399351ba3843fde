"""How well do streams go on behind a prompt? Tales behind the first tokens of tales that were held out.

Run it from the root of the repository (some ten seconds a figure):
`python tests/benchmarks/prompts.py tales --tokens 0 3 13 30 --streams 1 2 4 8`.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch

import armdlab
from armdlab import corpora, generate
from armdlab.correcting import Corrector
from armdlab.gated import Gate
from armdlab.orders import GenerationOrder
from armdlab.samples import Validity, validity
from armdlab.trained import Lab

WAYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "verified": {"verify": True},
    "gated": {"gate": Gate(min_probability=0.3)},
    "corrected": {"correct": Corrector(above=5.0)},
    "verified, corrected": {"verify": True, "correct": Corrector(above=5.0)},
    "places divided": {},  # streams over what is left, in place of the places they have without a prompt
}


def beginnings(lab: Lab, n: int, n_tokens: int) -> torch.Tensor:
    """The first tokens of `n` tales that no model has seen: int64 (n, n_tokens)."""
    rows = map(lab.tokenizer.encode, corpora.load("tales", n=50 * n)["validation"]["text"])
    return torch.tensor([row[:n_tokens] for row in rows if len(row) > n_tokens][:n])


def behind(lab: Lab, prompt: torch.Tensor, streams: int, way: str, seed: int) -> Validity:
    """What the tales are worth that begin with the rows of `prompt`."""
    length, end = lab.model.config.max_length, lab.tokenizer.end_of_text
    who = {"streams": streams}
    if way == "places divided":
        who = {"order": GenerationOrder.infilling(torch.arange(length) < prompt.shape[1], streams)}
    texts: list[str] = []
    for part in prompt.split(50):
        given = {"prompt": part} if part.shape[1] else {"batch_size": len(part)}
        rows = generate(lab.engine, length=length, end=end, seed=seed + len(texts), **given, **who, **WAYS[way])
        texts += [lab.tokenizer.decode(row[: row.index(end)] if end in row else row) for row in rows.tolist()]
    return validity(texts)


def main() -> None:
    """Print, for each length of prompts, way and number of streams, the share of tales that are consistent."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("writer", help="a shipped model or a folder, ARMD that writes tales")
    parser.add_argument("--tokens", type=int, nargs="+", default=[0, 3, 13, 30])
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--ways", nargs="+", default=["plain", "verified"], choices=WAYS)
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    lab = armdlab.load(asked.writer)
    for n_tokens in asked.tokens:
        prompt = beginnings(lab, asked.samples, n_tokens)
        for way in asked.ways:
            for streams in asked.streams:
                found = behind(lab, prompt, streams, way, asked.seed)
                print(f"{n_tokens} tokens, {way}, S = {streams}: {found.shares}", flush=True)


if __name__ == "__main__":
    main()
