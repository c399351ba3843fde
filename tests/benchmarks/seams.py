"""Where do streams cost more than one? What a judge pays at the seams, where a stream runs into the head of the next.

Run it from the root of the repository, after `armdlab reproduce table2` (a minute or two for each number of streams):
`python tests/benchmarks/seams.py runs/laptop/armd_0 --judge runs/laptop/judge --streams 4 8`.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import torch

import armdlab
from armdlab.correcting import Corrector
from armdlab.decoding import generate
from armdlab.objectives import nll

NEAR = 4  # tokens before a head, and behind it, that are shown apart from the others


def by_place(nats: torch.Tensor, streams: int) -> dict[str, float]:
    """Nats (B, N) of texts in text order, summed over the places of streams, for a mean text.

    "heads" are the first tokens of all streams but the first, "behind them" and "before them" `NEAR` tokens on either
    side. The four parts add up to the nats of a text.
    """
    size, least = nats.shape[1] // streams, 2 * NEAR + 1
    if streams < 2 or size < least:
        raise ValueError(
            f"streams={streams} of {size} tokens: two or more of {least} tokens or more have seams to show"
        )
    heads = torch.arange(size, nats.shape[1], size)
    near = torch.arange(1, NEAR + 1)
    mean = nats.double().mean(0)
    parts = {"heads": heads, "behind them": heads[:, None] + near, "before them": heads[:, None] - near}
    found = {name: float(mean[at.flatten()].sum()) for name, at in parts.items()}
    return {**found, "elsewhere": float(mean.sum()) - sum(found.values())}


def main() -> None:
    """Print, for each number of streams, what its places cost more than the same places of texts made left to right."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("writer", help="a shipped model or a folder, ARMD")
    parser.add_argument("--judge", type=Path, required=True, help="folder of a model that reads left to right")
    parser.add_argument("--streams", type=int, nargs="+", default=[4, 8])
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--verify", action="store_true", help="write by verified decoding: one by one in distribution")
    parser.add_argument("--correct", type=float, help="read texts again, and draw anew what is dearer by so many nats")
    asked = parser.parse_args()
    writer, judge = armdlab.load(asked.writer), armdlab.load(asked.judge)
    if writer.tokenizer.fingerprint != judge.tokenizer.fingerprint:
        raise ValueError(f"--judge {asked.judge} has another tokenizer than {asked.writer}: it would read other texts")

    def judged(streams: int, *, verify: bool) -> torch.Tensor:
        """The judge's nats (samples, N) of texts in so many streams."""
        how = {"streams": streams, "verify": verify, "batch_size": asked.samples, "seed": 0}
        how["correct"] = Corrector(above=asked.correct) if asked.correct and streams > 1 else None
        texts = generate(writer.engine, length=writer.model.config.max_length, **how)
        with torch.inference_mode():
            return torch.cat([nll(judge.model, part, reduction="none") for part in texts.split(32)])

    def of_a_text(nats: torch.Tensor) -> tuple[float, float]:
        """Mean nats of a text, and the standard error of that."""
        return float(nats.sum(1).mean()), float(nats.sum(1).std()) / len(nats) ** 0.5

    plain = judged(1, verify=False)
    base, its_error = of_a_text(plain)
    print(f"left to right: {base:.1f} +- {its_error:.1f} nats a text of {plain.shape[1]} tokens")
    for streams in asked.streams:
        found = judged(streams, verify=asked.verify)
        mean, error = of_a_text(found)
        there, here = by_place(found, streams), by_place(plain, streams)
        parts = ", ".join(f"{name} {there[name] - here[name]:+.1f}" for name in there)
        head = f"a head costs {there['heads'] / (streams - 1):.1f}, not {here['heads'] / (streams - 1):.1f}"
        how = f"{'verified ' * asked.verify}streams{', corrected' * bool(asked.correct)}"
        print(
            f"{streams} {how}: {mean - base:+.1f} +- {math.hypot(error, its_error):.1f} nats a text: {parts}; {head}",
            flush=True,
        )


if __name__ == "__main__":
    main()
