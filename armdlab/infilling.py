"""In which order are the gaps of a text filled, and what does a filling cost, given all the rest?

Whatever is known is read first; so ranks behind it are predicted from all of it, from both sides. By the chain rule
their nats sum to -log p(gaps | known), exactly, under the order in which the gaps are filled.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from armdlab.inference import evaluating
from armdlab.model import Transformer
from armdlab.objectives import nll
from armdlab.orders import UNKNOWN, GenerationOrder
from armdlab.sampling import GAPS, Sampler, seeded
from armdlab.steps import DecodeStep, seconds_since

WAYS = ("left to right", "right to left", "random", "as listed")


def filling_order(
    known: Tensor,
    way: str = "left to right",
    streams: int = 1,
    *,
    seed: int = 0,
    listed: Sequence[int] = (),
) -> GenerationOrder:
    """What is known first, then the gaps in a way of your own, cut into streams.

    Args:
        known: bool (N,), True where the token is given.
        way: one of `WAYS`.
        streams: number of streams S over the gaps, heads one by one, as in `GenerationOrder.infilling`.
        seed: of chance, where the way is random.
        listed: every position of a gap, where they go as listed.

    Raises:
        ValueError: if there is no such way, `listed` does not hold each position of a gap once, or there are more
            streams than positions to fill.

    >>> known = torch.tensor([True, False, False, True, False])
    >>> filling_order(known, "right to left").positions.tolist()
    [0, 3, 4, 2, 1]
    """
    gaps = (~known).nonzero().squeeze(-1)
    match way:
        case "left to right":
            pass
        case "right to left":
            gaps = gaps.flip(0)
        case "random":
            gaps = gaps[torch.randperm(len(gaps), generator=seeded(seed, GAPS))]
        case "as listed":
            if sorted(listed) != gaps.tolist():
                raise ValueError(f"listed={list(listed)} must hold each position of a gap once: {gaps.tolist()}")
            gaps = torch.tensor(listed, dtype=torch.int64)
        case _:
            raise ValueError(f"way={way!r} is unknown; choose {', '.join(WAYS)}")
    order = GenerationOrder.infilling(known, streams)
    filled_as = torch.arange(order.length)
    filled_as[~known] = gaps
    return GenerationOrder(filled_as[order.positions], order.blocks)


def filling_nll(model: Transformer, tokens: Tensor, known: Tensor, order: GenerationOrder) -> Tensor:
    """Exact nats of what fills the gaps, given all the rest: (B, N) in text order, 0 where the token is known.

    Args:
        model: what predicts.
        tokens: int64 (B, N), whole texts.
        known: bool (N,).
        order: who is filled when.

    Raises:
        ValueError: if the order fills a gap before it has read all that is known; what it gives is then another price.
    """
    blocks = order.blocks_in_text_order
    if (~known).any() and known.any() and (blocks[..., known].amax(-1) >= blocks[..., ~known].amin(-1)).any():
        raise ValueError(f"order={order} fills a gap before it has read what is known; let all of that come first")
    return nll(model, tokens, order, "none") * ~known


def surest_first(
    model: Transformer,
    tokens: Tensor,
    *,
    streams: int = 1,
    temperature: float = 1.0,
    seed: int | None = None,
    words: Tensor | None = None,
) -> Iterator[DecodeStep]:
    """Fill, at each step, the `streams` gaps at which the model is surest of its likeliest token.

    Which gap comes next depends on what fills the earlier ones, and on nothing else; so the log-probabilities of the
    steps sum to an exact log p(gaps | known), as under an order that is fixed beforehand. Two full passes a step: one
    that looks at all open gaps, and one that predicts the chosen ones as the block that they are.

    Args:
        model: ARMD, or another that takes an order.
        tokens: int64 (N,), -1 at the gaps.
        streams: gaps a step, S.
        temperature: as in `decode_steps`.
        seed: makes chance repeatable.
        words: int64 (N,), a whole text to walk along, in place of drawing one.

    Returns:
        An iterator over one `DecodeStep` for each step.

    Raises:
        ValueError: if an argument is out of range; at the call, not at the first step.
    """
    n_open = int((tokens == UNKNOWN).sum())
    if not 1 <= streams <= max(1, n_open):
        raise ValueError(f"streams={streams} must be from 1 to {n_open}, the number of positions to fill")
    choose = Sampler(temperature, seed=seed, device=model.bos.device)
    return _surest_steps(model, tokens, streams, choose, words)


@torch.no_grad()
def _surest_steps(
    model: Transformer, tokens: Tensor, streams: int, choose: Sampler, words: Tensor | None
) -> Iterator[DecodeStep]:
    started, device = time.perf_counter(), model.bos.device
    text, given = tokens.clone().to(device), words if words is None else words.cpu()
    blocks, known = [], tokens != UNKNOWN
    while (waiting := (text == UNKNOWN).cpu().nonzero().squeeze(-1)).numel():
        log_p = _predicted(model, text, known, [*blocks, waiting], choose.device)
        surest = log_p[waiting].amax(-1).topk(min(streams, len(waiting))).indices.sort().values.cpu()
        at = waiting[surest]
        if len(at) < len(waiting):
            later = waiting[~torch.isin(waiting, at)]
            log_p = _predicted(model, text, known, [*blocks, at, later], choose.device)
        chosen, log_probs = choose(log_p[at], None if given is None else given[at])
        chosen, blocks = chosen.to(device), [*blocks, at]
        text[at.to(device)] = chosen
        yield DecodeStep(at, chosen[None], log_probs[None], seconds_since(started, device))


def order_of_steps(known: Tensor, steps: Sequence[Sequence[int]]) -> GenerationOrder:
    """The order that fills gaps in these steps: bool (N,) is read first, one token a block.

    >>> order_of_steps(torch.tensor([True, False, False]), [[2], [1]]).positions.tolist()
    [0, 2, 1]
    """
    given = known.nonzero().squeeze(-1).tolist()
    blocks = [*range(len(given)), *(len(given) + n for n, step in enumerate(steps) for _ in step)]
    return GenerationOrder(given + [position for step in steps for position in step], blocks)


def _predicted(model: Transformer, text: Tensor, known: Tensor, blocks: Sequence[Tensor], to: torch.device) -> Tensor:
    """Log-probabilities float64 (N, V) where these blocks follow what is known, where chance is drawn."""
    order = order_of_steps(known, [block.tolist() for block in blocks])
    with evaluating(model):
        logits = model(text.clamp(min=0).unsqueeze(0), order)[0]
    return logits.to(to).double().log_softmax(-1)
