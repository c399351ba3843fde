"""How well does a model know a text, and under which order was it asked?

A figure here is a value that carries its own conditions, and says them when printed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from armdlab.corpora import Text
from armdlab.model import Transformer
from armdlab.objectives import nll
from armdlab.orders import GenerationOrder


@dataclass(frozen=True)
class Likelihood:
    """Exact negative log-likelihood of a text, each token scored once.

    Exact for the one order that is named; a mean over several orders would be a bound on what any-order models can say.

    Args:
        nats_per_token: mean over all tokens, ends of texts included, positions 0 of rows included.
        nats_per_character: the same total over the characters of the text, so that tokenizers can be compared.
        standard_error: of `nats_per_token`, from the spread of the rows; nan where there is one row.
        n_tokens: how many tokens were scored.
        length: tokens in a row; what stands further back is not seen.
        order: who was made when, in words.
    """

    nats_per_token: float
    nats_per_character: float
    standard_error: float
    n_tokens: int
    length: int
    order: str

    @property
    def perplexity(self) -> float:
        """Exp of the nats per token."""
        return math.exp(self.nats_per_token)

    @property
    def bits_per_token(self) -> float:
        """Nats over ln 2."""
        return self.nats_per_token / math.log(2)

    def __str__(self) -> str:
        return (
            f"perplexity {self.perplexity:.2f} ({self.nats_per_token:.4f} +- {self.standard_error:.4f} nats or "
            f"{self.bits_per_token:.4f} bits a token, {self.nats_per_character:.4f} nats a character; exact, "
            f"{self.order}, {self.n_tokens:,} tokens in rows of {self.length})"
        )


@torch.no_grad()
def likelihood(model: Transformer, text: Text, length: int, *, streams: int = 1, batch_size: int = 16) -> Likelihood:
    """Score a held-out text in neighbouring rows of `length` tokens, the last one shorter, each token once.

    Args:
        model: what predicts; put into evaluation mode for the while.
        text: what is held out.
        length: tokens in a row, N.
        streams: score under the strided order of S streams; 1 is left to right. The last row, if it is shorter, is
            read in the largest number of streams up to S that divides it.
        batch_size: rows scored together.

    Raises:
        ValueError: if the text is empty, or `streams` does not divide `length`.
    """
    if not len(text.ids):
        raise ValueError("the text to score is empty; hold out a larger share, or give more text")
    was_training, device = model.training, model.bos.device
    model.eval()
    n_whole = len(text.ids) // length
    whole, rest = text.ids[: n_whole * length].view(n_whole, length), text.ids[n_whole * length :]
    order = GenerationOrder.strided(length, streams)
    batches = whole.split(batch_size) if n_whole else ()
    rows = [nll(model, batch.to(device), order, "none").double().sum(-1) for batch in batches]
    sums = torch.cat(rows).cpu() if rows else torch.empty(0, dtype=torch.float64)
    total = float(sums.sum())
    if len(rest):
        fitting = max(s for s in range(1, streams + 1) if len(rest) % s == 0)
        total += float(nll(model, rest[None].to(device), GenerationOrder.strided(len(rest), fitting), "sum").double())
    model.train(was_training)
    return Likelihood(
        total / len(text.ids),
        total / text.n_characters,
        float(sums.std() / length / math.sqrt(n_whole)) if n_whole > 1 else math.nan,
        len(text.ids),
        length,
        "left to right" if streams == 1 else f"{streams} strided streams",
    )
