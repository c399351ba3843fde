"""What must a number say of itself, so that it can be compared with another?"""

from __future__ import annotations

import math
from dataclasses import dataclass


def perplexity_of(nats_per_token: float) -> float:
    """Exp of nats a token; infinite where no float64 can hold it.

    >>> perplexity_of(0.0), perplexity_of(710.0)
    (1.0, inf)
    """
    try:
        return math.exp(nats_per_token)
    except OverflowError:
        return math.inf


@dataclass(frozen=True)
class Figure:
    """Nats that a model pays for a text, with the conditions under which they were measured.

    Weights are those of the last step, raw: no average of them (EMA) is kept anywhere in the lab.

    Args:
        nats_per_token: mean over all tokens, ends of texts and positions 0 of rows included.
        standard_error: of `nats_per_token`, from the spread of the rows; nan where there is one row.
        n_tokens: how many tokens of text were scored.
        length: tokens in a row; what stands further back is not seen.
        order: who was made when, in words.
        layout: "padded" or "packed" where rows hold whole texts; empty where they are cut from running text.
        text: what was scored, in words.
        precision: of the network's products.
    """

    nats_per_token: float
    standard_error: float
    n_tokens: int
    length: int
    order: str
    layout: str = ""
    text: str = "held-out text"
    precision: str = "float32"

    @property
    def perplexity(self) -> float:
        """Exp of the mean over all tokens (not the mean of each row's)."""
        return perplexity_of(self.nats_per_token)

    @property
    def bits_per_token(self) -> float:
        """Nats over ln 2."""
        return self.nats_per_token / math.log(2)

    def _said(self, kind: str, more: str = "") -> str:
        return (
            f"({self.nats_per_token:.4f} +- {self.standard_error:.4f} nats or {self.bits_per_token:.4f} bits a token"
            f"{more}; {kind}, {self.order}; {self.text}, {self.n_tokens:,} tokens in {self.layout}"
            f"{' ' * bool(self.layout)}rows of {self.length}, {self.precision})"
        )
