"""Where do two orders disagree about a text, and what should stand there instead?

Streams write before they have seen what will stand between them. The finished text is read again in one pass, one token
after another. Were all orders one distribution, a text would cost the same in each of them. Where tokens cost more now
than when they were written, at a seam or at a contradiction, they are drawn anew, given all the rest. Informed
correctors of masked diffusion (Zhao et al., 2024) look for such tokens, too; here exact prices of one network tell.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from armdlab.counts import at_least_one, is_whole
from armdlab.engine import ARMDEngine, Engine
from armdlab.inference import evaluating
from armdlab.model import ARMD, Transformer
from armdlab.objectives import nll
from armdlab.orders import UNKNOWN, GenerationOrder
from armdlab.sampling import CORRECTING, Sampler, seeded
from armdlab.speculative import verified_steps
from armdlab.steps import DecodeStep

ROWS_A_PASS = 32  # a pass holds a row of V logits for each token


@dataclass(frozen=True)
class Corrector:
    """How a finished text is corrected: where it is doubted, and how often.

    What is drawn anew stays only where the text gets cheaper left to right. That favours likely tokens, at the doubted
    spots and nowhere else; a text that was written left to right is not touched at all.

    Args:
        above: nats; a token is doubted that costs more than this above what it cost when it was written.
        beside: how many tokens on either side of a doubted one are drawn anew with it.
        rounds: how often the text is read again, at most; done when nothing is doubted.

    Raises:
        ValueError: if a number is out of range.

    >>> Corrector(above=2.0).rounds
    2
    """

    above: float = 1.0
    beside: int = 1
    rounds: int = 2

    def __str__(self) -> str:
        return f"corrected where dearer by {self.above:g} nat{'s' * (self.above != 1)}, {self.rounds} rounds"

    def __post_init__(self) -> None:
        """Refuse what can mean nothing."""
        if not (isinstance(self.above, int | float) and 0 < self.above < math.inf):
            raise ValueError(f"above={self.above!r} must be a number of nats above 0; 1 is a good one")
        if not is_whole(self.beside) or self.beside < 0:
            raise ValueError(f"beside={self.beside!r} must be a whole number of tokens, from 0")
        at_least_one("rounds", self.rounds)


@dataclass(frozen=True)
class Reading:
    """Texts when they have been read again.

    Args:
        tokens: int64 (B, N).
        nats: float (B, N), what each token costs in the order in which texts were read again.
        n_calls: of the network, since the reading before: passes that read, and calls that drew.
    """

    tokens: Tensor
    nats: Tensor
    n_calls: int


def correcting_engine(model: Transformer | Engine, correct: Corrector) -> Engine:
    """The engine that writes and corrects.

    Raises:
        ValueError: if the model is no ARMD, or the engine cannot read whole texts.
    """
    network = model.model if isinstance(model, Engine) else model
    if not (isinstance(network, ARMD) and Engine.follows(network)):
        raise ValueError(
            f"correct={correct!r} needs a model that scores any order in one pass, an ARMD; "
            f"{type(network).__name__} cannot"
        )
    if not isinstance(model, Engine):
        return Engine.of(model)
    if model.is_compiled or network.bos.is_meta:
        lacks = "runs compiled steps alone" if model.is_compiled else "gave its model's own weights up"
        raise ValueError(f"correct={correct!r} reads whole texts, and this engine {lacks}; give the model")
    return model


@torch.no_grad()
def corrected_steps(
    engine: ARMDEngine,
    steps: Iterator[DecodeStep],
    known: Tensor,
    order: GenerationOrder,
    how: Corrector,
    end: int | None,
    **chance: Any,  # noqa: ANN401
) -> Iterator[DecodeStep]:
    """The steps of a run, and behind them one for each time that its texts are read again.

    Args:
        engine: of an ARMD whose weights are at hand.
        steps: of the run that writes.
        known: int64 (B, N), what is given, -1 elsewhere; it stays.
        order: in which texts are read again.
        how: where to doubt, how often.
        end: as in `decode_steps`: the first one that was made stays, and what stands behind it is not read.
        chance: `temperature`, `top_k`, `top_p` and `seed` of what is drawn anew, as `readings` takes them.
    """
    text, is_read = known.to(engine.device).clone(), (known == UNKNOWN).to(engine.device)
    written, may_change = torch.zeros(text.shape, device=text.device), is_read
    for step in steps:
        step.write_into(text)
        step.write_into(written, -step.log_probs.float())
        yield step
    if end is not None:
        text.masked_fill_(text == UNKNOWN, end)
        ends = is_read & (text == end)
        is_read = is_read & (ends.cumsum(-1) - ends.int() == 0)
        may_change = is_read & ~ends
    at = is_read.any(0).nonzero().squeeze(-1)
    for reading in readings(engine, text, written, order, how, may_change, **chance):
        log_probs = -(reading.nats * is_read)[:, at].double()
        yield DecodeStep(at, reading.tokens[:, at], log_probs, calls=reading.n_calls, is_reading=True)


@torch.no_grad()
def readings(
    engine: ARMDEngine,
    tokens: Tensor,
    written: Tensor,
    order: GenerationOrder,
    how: Corrector,
    may_change: Tensor | None = None,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int | None = None,
) -> Iterator[Reading]:
    """Read texts again, draw what is doubted anew, and keep what makes them cheaper: once as they are, then each round.

    In a round, doubted tokens and their neighbours make spots. All spots of a text are drawn anew, given all the rest:
    the first token of each in one call, then the second of each, and verified, so that they are drawn as if one by one.
    Each stretch, from a spot to the next, keeps what was drawn if that makes it cheaper; so does the text as a whole.
    What is new then counts as written at the price it has now.

    Args:
        engine: of an ARMD whose weights are at hand.
        tokens: int64 (B, N), whole texts.
        written: float (B, N), nats that each token cost when it was written.
        order: in which texts are read again.
        how: where to doubt, how often.
        may_change: bool (B, N), what may be drawn anew; None for everything.
        temperature: divides the logits of what is drawn.
        top_k: keep the k likeliest tokens only.
        top_p: keep the fewest likeliest tokens whose probability reaches p.
        seed: makes chance repeatable; it is not the chance that wrote the text.

    Returns:
        An iterator over the texts, none of them dearer under `order` than in the reading before.
    """
    text, written = tokens.to(engine.device).clone(), written.to(engine.device).clone()
    may_change = torch.ones_like(text, dtype=torch.bool) if may_change is None else may_change.to(engine.device)
    nats = _nats(engine.model, text, order)
    yield Reading(text.clone(), nats.clone(), 1)
    for n in range(how.rounds):
        is_spot = _spots((nats - written > how.above) & may_change, how.beside) & may_change
        rows = is_spot.any(-1).nonzero().squeeze(-1)
        if not len(rows):
            return
        chance = None if seed is None else seeded(seed, n, CORRECTING).initial_seed()
        choose = Sampler(temperature, top_k, top_p, chance, engine.device)
        before, price, is_spot, its = text[rows], nats[rows], is_spot[rows], order.rows(rows)
        drawn, calls = _drawn(engine, before, is_spot, choose)
        new = _nats(engine.model, drawn, its)

        stretch = _begins(is_spot).cumsum(-1)
        saved = torch.zeros_like(price).scatter_add(-1, stretch, price - new)
        kept = torch.where(saved.gather(-1, stretch) > 0, drawn, before)
        changes = (kept != before).any(-1)
        is_mixed = changes & (kept != drawn).any(-1)  # others have been priced
        if is_mixed.any():
            new[is_mixed] = _nats(engine.model, kept[is_mixed], its.rows(is_mixed))
        stays = changes & (new.sum(-1) < price.sum(-1))
        rows, kept, new, before = rows[stays], kept[stays], new[stays], before[stays]
        text[rows], nats[rows] = kept, new
        written[rows] = torch.where(kept == before, written[rows], new)
        yield Reading(text.clone(), nats.clone(), calls + 1 + int(is_mixed.any()))


def _nats(model: Transformer, tokens: Tensor, order: GenerationOrder) -> Tensor:
    """Prices (B, N) in text order, a few rows a pass."""
    rows = torch.arange(len(tokens), device=tokens.device).split(ROWS_A_PASS)
    with evaluating(model):
        return torch.cat([nll(model, tokens[part], order.rows(part), "none") for part in rows])


def _spots(is_doubted: Tensor, beside: int) -> Tensor:
    """Doubted tokens of bool (B, N), and those beside them."""
    wide = is_doubted.unsqueeze(1).float()
    return F.max_pool1d(wide, 2 * beside + 1, 1, beside).squeeze(1) > 0


def _begins(is_spot: Tensor) -> Tensor:
    """Where a run of True begins, bool (B, N)."""
    return is_spot & ~F.pad(is_spot, (1, 0))[:, :-1]


def spots_order(is_spot: Tensor) -> GenerationOrder:
    """What stays is read first; then come the first tokens of all spots, the second ones, and so on.

    >>> order = spots_order(torch.tensor([[True, True, False, True, True]]))
    >>> order.positions.tolist(), order.blocks.tolist()
    ([[2, 0, 3, 1, 4]], [[0, 1, 1, 2, 2]])
    """
    B, N = is_spot.shape
    at = torch.arange(N, device=is_spot.device).expand(B, -1)
    place = at - at.masked_fill(~_begins(is_spot), 0).cummax(-1).values  # within its spot
    wave = torch.where(is_spot, place + 1, 0)
    positions = (wave * N + at).argsort(-1)
    n_known = (~is_spot).sum(-1, keepdim=True)
    blocks = torch.where(at < n_known, at, n_known - 1 + wave.gather(-1, positions))
    return GenerationOrder(positions, blocks)


def _drawn(engine: ARMDEngine, text: Tensor, is_spot: Tensor, choose: Sampler) -> tuple[Tensor, int]:
    """Draw the spots of int64 (B, N) anew, given all the rest; and in how many calls."""
    known, order = text.masked_fill(is_spot, UNKNOWN).cpu(), spots_order(is_spot.cpu())
    window = int(_begins(is_spot).sum(-1).max())
    drawn, n_calls = text.clone(), 0
    for step in verified_steps(engine, known, order.one_by_one(), choose, None, window):
        step.write_into(drawn)
        n_calls += 1
    return drawn, n_calls
