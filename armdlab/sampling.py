"""From logits to a token: how is chance kept exact, and what may be cut off?"""

from __future__ import annotations

import math
import operator

import torch
from torch import Tensor

from armdlab.counts import is_whole, seed_for_torch
from armdlab.orders import UNKNOWN

# What a stream of chance is for: the last number of `seeded`. Another value would change what every seed means.
ROWS, DROPOUT, FAMILY, CUTS, MASKING, REVEALING, GAPS, CORRECTING = 1, 2, 3, 4, 4, 5, 7, 8
TINY = 1e-200  # divided by less, a logit of float32 could leave the numbers of float64


class Sampler:
    """Draw one token from each row of logits, in float64.

    In float32, Gumbel noise -log(-log(u)) cannot exceed 16.6, so rare tokens never win: the entropy falls and the
    perplexity of samples looks better than it is. Here one uniform number a row, of 53 bits, meets the cumulative
    probabilities.

    Args:
        temperature: divides the logits; 0 takes the likeliest.
        top_k: keep the k likeliest only.
        top_p: keep the fewest likeliest whose probability reaches p.
        seed: of the stream of chance; None for a fresh one.
        device: where the logits will be.

    Raises:
        ValueError: if an argument is out of range.
    """

    def __init__(
        self,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        if not (isinstance(temperature, int | float) and 0 <= temperature < math.inf):
            raise ValueError(f"temperature={temperature!r} must be a number from 0; 1 samples the model as it is")
        if top_k is not None and (isinstance(top_k, bool) or not isinstance(top_k, int) or top_k < 1):
            raise ValueError(f"top_k={top_k!r} must be a whole number of at least 1, or None to keep all")
        if top_p is not None and not (isinstance(top_p, int | float) and 0 < top_p <= 1):
            raise ValueError(f"top_p={top_p!r} must be above 0 and at most 1, or None to keep all")
        self.temperature, self.top_k, self.top_p = temperature, top_k, top_p
        # MPS has no float64: chance is drawn on the CPU there
        self.device = torch.device("cpu" if torch.device(device).type == "mps" else device)
        self.generator = torch.Generator(self.device)
        if seed is None:
            self.generator.seed()
        else:
            self.generator.manual_seed(seed_for_torch(seed))

    @property
    def keeps_all(self) -> bool:
        """Whether nothing is truncated."""
        return self.top_k is None and self.top_p is None

    def __call__(self, logits: Tensor, given: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Choose tokens.

        Args:
            logits: float (..., V).
            given: int64 (...), tokens that are not to be drawn; -1 where they are.

        Returns:
            Tokens int64 (...), and float64 (...) their log-probabilities in nats, at temperature 1 and untruncated.
        """
        on_device = logits.device
        logits = logits.to(self.device).double()
        if self.temperature == 1 and given is None:  # what is drawn from tells the log-probability, too
            p = logits.softmax(-1)
            tokens = self.draw(self.truncate(p))
            log_probs = p.gather(-1, tokens.unsqueeze(-1)).squeeze(-1).log()
            return tokens.to(on_device), log_probs.to(on_device if self.device == on_device else "cpu")
        tokens = logits.argmax(-1) if self.temperature == 0 else self.draw(self.probabilities(logits))
        if given is not None:
            given = given.to(self.device)
            tokens = torch.where(given == UNKNOWN, tokens, given)
        log_probs = self.log_probs(logits, tokens)
        return tokens.to(on_device), log_probs.to(on_device if self.device == on_device else "cpu")

    def log_probs(self, logits: Tensor, tokens: Tensor, chances: Tensor | None = None) -> Tensor:
        """The model's own log-probability of tokens (...) under logits (..., V): float64, nats.

        Args:
            logits: what the model says.
            tokens: int64.
            chances: `probabilities` of these logits, if they are at hand: at temperature 1, with nothing truncated,
                they are the model's own, and the answer is read from them.
        """
        if chances is not None and self.temperature == 1 and self.keeps_all:
            return chances.gather(-1, tokens.to(self.device).unsqueeze(-1)).squeeze(-1).log()
        logits = logits.to(self.device).double()
        chosen = logits.gather(-1, tokens.to(self.device).unsqueeze(-1)).squeeze(-1)
        return chosen - logits.logsumexp(-1)

    def probabilities(self, logits: Tensor) -> Tensor:
        """What tokens are drawn from: float64 (..., V), temperature and truncation applied, summing to 1."""
        logits = logits.to(self.device).double()
        if self.temperature == 0:
            return torch.zeros_like(logits).scatter_(-1, logits.argmax(-1, keepdim=True), 1.0)
        if self.temperature < TINY:  # not elsewhere: the last digits of what is drawn from would change
            logits = logits - logits.amax(-1, keepdim=True)
        kept = self.truncate((logits if self.temperature == 1 else logits / self.temperature).softmax(-1))
        return kept if self.keeps_all else kept / kept.sum(-1, keepdim=True)

    def draw(self, weights: Tensor) -> Tensor:
        """Draw int64 (...) from weights (..., V), which need not sum to 1: the first v with F(v) > u F(V)."""
        cumulative = weights.cumsum(-1)
        total = cumulative[..., -1:]
        # u F(V) may round up to F(V), which would point behind the last token
        at = (self.uniform(total.shape) * total).minimum(total.nextafter(torch.zeros_like(total)))
        return torch.searchsorted(cumulative, at, right=True).squeeze(-1)

    def uniform(self, shape: torch.Size | tuple[int, ...]) -> Tensor:
        """Uniform float64 in [0, 1)."""
        return torch.rand(shape, dtype=torch.float64, device=self.device, generator=self.generator)

    def truncate(self, probabilities: Tensor) -> Tensor:
        """Set what `top_k` and `top_p` leave out of (..., V) probabilities to 0; what is left is not renormalised."""
        if self.keeps_all:
            return probabilities
        ordered, index = probabilities.sort(dim=-1, descending=True, stable=True)
        if self.top_k is not None:
            ordered[..., self.top_k :] = 0
        if self.top_p is not None:
            # of what top_k left; a token stays if those before it do not reach p yet
            before = ordered.cumsum(-1) - ordered
            ordered[before >= self.top_p * ordered.sum(-1, keepdim=True)] = 0
        return torch.zeros_like(probabilities).scatter(-1, index, ordered)


def seeded(*numbers: int) -> torch.Generator:
    """A CPU generator whose stream depends on all of the numbers, and on nothing else.

    Raises:
        ValueError: if one of them is no whole number.

    >>> int(torch.randint(100, (), generator=seeded(1, 2))) == int(torch.randint(100, (), generator=seeded(1, 2)))
    True
    """
    state = 0
    for number in numbers:  # splitmix64: neighbouring steps get streams that have nothing in common
        if not is_whole(number):
            raise ValueError(f"seed={number!r} must be a whole number; choose one, such as 0")
        state = (state ^ operator.index(number)) + 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF
        state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
        state = (state ^ state >> 27) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
        state ^= state >> 31
    return torch.Generator().manual_seed(state >> 1)
