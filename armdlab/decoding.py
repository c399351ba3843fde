"""How does an order become text, one block a step and nothing computed twice? (ARMD, section 3.3)

`decode_steps` walks along a generation order and yields what each step made; `generate` is the loop over it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from armdlab.baselines import BlockDiffusion
from armdlab.masks import ALL_VISIBLE, PLAIN_CAUSAL, Masks
from armdlab.model import KVCache, Transformer
from armdlab.orders import UNKNOWN, GenerationOrder


@dataclass(frozen=True)
class DecodeStep:
    """What one step of decoding made: the unknown tokens of one block.

    Args:
        positions: int64 (n,), text positions made together; (B, n) where rows have orders of their own.
        tokens: int64 (B, n), what was chosen for them (or given, where only some rows knew the token).
        log_probs: float64 (B, n), nats: the model's own log-probability of each, at temperature 1, nothing truncated.
        elapsed: seconds since decoding started.
    """

    positions: Tensor
    tokens: Tensor
    log_probs: Tensor
    elapsed: float


@torch.no_grad()
def generate(
    model: Transformer,
    *,
    length: int,
    prompt: Tensor | Sequence | None = None,
    known: Tensor | Sequence | None = None,
    batch_size: int = 1,
    **how: Any,  # noqa: ANN401
) -> Tensor:
    """Write a text: the loop over `decode_steps`, which takes the very same arguments and explains them.

    Returns:
        int64 (B, length) in text order, with what was given in its place.

    Raises:
        ValueError: as `decode_steps`.

    >>> from armdlab import ARMD, ARMDConfig
    >>> model = ARMD(ARMDConfig(vocab_size=7, max_length=8, n_layer=2, n_head=2, d_model=16))
    >>> generate(model, length=8, streams=2, prompt=[3, 1], seed=0)[0, :2].tolist()
    [3, 1]
    """
    steps = decode_steps(model, length=length, prompt=prompt, known=known, batch_size=batch_size, **how)
    tokens = given_tokens(length, prompt, known, batch_size).to(model.bos.device)
    for step in steps:
        tokens.scatter_(1, step.positions.expand_as(step.tokens), step.tokens)
    return tokens


def decode_steps(
    model: Transformer,
    *,
    length: int,
    streams: int = 1,
    order: GenerationOrder | None = None,
    prompt: Tensor | Sequence | None = None,
    known: Tensor | Sequence | None = None,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    batch_size: int = 1,
    seed: int | None = None,
) -> Iterator[DecodeStep]:
    """Generate block by block along an order, with keys, values and prefix kept (ARMD, section 3.3).

    Args:
        model: what predicts.
        length: number of text positions N of the result, whatever is given included.
        streams: number of parallel streams S. Where nothing is given S must divide `length`.
        order: an order of your own, in place of the strided one that `streams` makes.
        prompt: int64 (P,) or (B, P), the tokens that the text starts with.
        known: int64 (N,) or (B, N), tokens that are given at any positions, -1 elsewhere: infilling. What is given is
            read first, left to right, unless `order` says otherwise. With one stream rows may know different positions.
        temperature: divides the logits; 0 takes the likeliest token.
        top_k: keep the k likeliest tokens only.
        top_p: keep the fewest likeliest tokens whose probability reaches p, the one that crosses p included.
        batch_size: number of rows B, where neither `prompt` nor `known` has rows.
        seed: makes chance repeatable on one device and version; None for a fresh one.

    Returns:
        An iterator over one `DecodeStep` for each block that holds something to generate.

    Raises:
        ValueError: if an argument is out of range or two contradict each other; at the call, not at the first step.
    """
    tokens = given_tokens(length, prompt, known, batch_size)
    if order is None:
        order = _default_order(tokens != UNKNOWN, streams)
    elif streams != 1:
        raise ValueError(f"streams={streams} and order={order} both say who is made when; give one of them")
    if (tokens >= model.config.vocab_size).any() or (tokens < UNKNOWN).any():
        raise ValueError(
            f"prompt or known holds ids from {tokens.min()} to {tokens.max()}; this model knows 0 to "
            f"{model.config.vocab_size - 1}, and -1 marks what to generate"
        )
    order = model.check_order(tokens.clamp(min=0), order)
    if order.blocks.dim() == 2:
        raise ValueError(
            "rows of the batch have blocks of different sizes (they know different numbers of tokens?); "
            "use streams=1, or decode rows that are cut alike together"
        )
    choose = Sampler(temperature, top_k, top_p, seed, model.bos.device)
    walk = _reveal if isinstance(model, BlockDiffusion) else _walk
    return walk(model, tokens, order, choose)


def given_tokens(
    length: int, prompt: Tensor | Sequence | None, known: Tensor | Sequence | None, batch_size: int
) -> Tensor:
    """What is known before decoding: int64 (B, N) on the CPU, -1 where a token is to be generated."""
    for name, value in (("length", length), ("batch_size", batch_size)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name}={value!r} must be a whole number of at least 1")
    if prompt is not None and known is not None:
        raise ValueError("prompt and known are both given; put the prompt into known, with -1 at what to generate")
    name, given = ("prompt", prompt) if known is None else ("known", known)
    given = torch.full((length,), UNKNOWN) if given is None else torch.as_tensor(given).cpu()
    if given.numel() == 0 and name == "prompt":
        given = given.long()
    if given.dim() not in (1, 2) or given.is_floating_point() or given.dtype == torch.bool:
        raise ValueError(f"{name} is {given.dtype} of shape {tuple(given.shape)}; give token ids, (n,) or (B, n)")
    if given.shape[-1] > length or (name == "known" and given.shape[-1] != length):
        rule = "length counts the prompt too" if name == "prompt" else "known needs one entry for each position"
        raise ValueError(f"{name} has {given.shape[-1]} tokens but length={length}; {rule}")
    if given.dim() == 1:
        given = given.expand(batch_size, -1)
    if batch_size not in (1, len(given)):
        raise ValueError(f"{name} has {len(given)} rows but batch_size={batch_size}; leave batch_size out")
    tokens = torch.full((len(given), length), UNKNOWN)
    tokens[:, : given.shape[-1]] = given
    return tokens


def _default_order(is_known: Tensor, streams: int) -> GenerationOrder:
    if not is_known.any():
        return GenerationOrder.strided(is_known.shape[-1], streams)
    if is_known.all():
        return GenerationOrder.left_to_right(is_known.shape[-1])
    alike = (is_known == is_known[0]).all()
    return GenerationOrder.infilling(is_known[0] if alike else is_known, streams)


@torch.no_grad()
def _walk(model: Transformer, tokens: Tensor, order: GenerationOrder, choose: Sampler) -> Iterator[DecodeStep]:
    started, device = time.perf_counter(), model.bos.device
    calls = list(_plan(order, order.to_generation_order(tokens) != UNKNOWN))
    order = order.to(device)
    made = order.to_generation_order(tokens.to(device))  # in generation order from here on
    cache = KVCache(model.config, len(tokens), order.length, device, _working_dtype(model))
    for call in calls:
        ranks = call.ranks.to(device)
        with _evaluating(model):
            hidden = model.hidden(
                made[:, call.evidence],
                order.positions[..., call.evidence],
                order.positions[..., call.targets],
                call.masks,
                cache,
            )
            logits = model.head(hidden[:, ranks - call.targets.start])
        chosen, log_probs = choose(logits, made[:, ranks])
        made[:, ranks] = chosen
        if device.type != "cpu":
            torch.accelerator.synchronize()  # or the seconds would be those of asking, not of doing
        yield DecodeStep(order.positions[..., ranks], chosen, log_probs, time.perf_counter() - started)


@torch.no_grad()
def _reveal(model: BlockDiffusion, tokens: Tensor, order: GenerationOrder, choose: Sampler) -> Iterator[DecodeStep]:
    """Walk along an order by masked diffusion: one call for each of its blocks, on all of the model's present block.

    Only finished blocks of the model are cached; the noisy copy changes at each step and is computed anew.
    """
    started, device, size = time.perf_counter(), model.bos.device, model.block_size
    steps = order.positions.split(torch.bincount(order.blocks).tolist(), -1)
    block_of = torch.arange(order.length) // size
    seen = torch.full_like(tokens, UNKNOWN).to(device)
    cache, fed = KVCache(model.config, len(tokens), order.length, device, _working_dtype(model)), 0
    for at in steps:
        at_rows = at.expand(len(tokens), -1)
        given = tokens.gather(-1, at_rows)
        if (given != UNKNOWN).all():
            seen.scatter_(-1, at_rows.to(device), given.to(device))
            continue
        start = int(at.flatten()[0]) // size * size
        stop = min(start + size, order.length)
        if cache.is_empty or start > fed:
            evidence, n_cached = block_of[fed:start], 0 if cache.is_empty else fed + 1
            if cache.is_empty:
                evidence = torch.cat([torch.tensor([-1]), evidence])
            masks = Masks.between(evidence.to(device), block_of[start:stop].to(device), n_cached)
        else:
            masks = ALL_VISIBLE
        wanted = at_rows.to(device)
        with _evaluating(model):
            clean, targets = torch.arange(fed, start, device=device), torch.arange(start, stop, device=device)
            hidden = model.hidden(seen[:, fed:start], clean, targets, masks, cache, noisy=seen[:, start:stop])
            rows = torch.arange(len(tokens), device=device).unsqueeze(-1)
            logits = model.head(hidden[rows, wanted - start])
        fed = start
        chosen, log_probs = choose(logits, given)
        seen.scatter_(-1, wanted, chosen)
        if device.type != "cpu":
            torch.accelerator.synchronize()
        yield DecodeStep(at.to(device), chosen, log_probs, time.perf_counter() - started)


@dataclass(frozen=True)
class _Call:
    """One call of the network: ranks that become evidence, ranks that are targets, and which targets are wanted."""

    evidence: slice
    targets: slice
    ranks: Tensor
    masks: Masks


def _plan(order: GenerationOrder, is_given: Tensor) -> Iterator[_Call]:
    """Lay out the calls of a run before it starts, so that its loop decides nothing.

    A block that is given whole costs no call: its rows ride along with the next block that is not. Evidence lags one
    block behind the targets, because a block becomes evidence only when its tokens are known.

    Args:
        order: on the CPU, `blocks` (N,).
        is_given: bool (B, N) in generation order.
    """
    targeted = fed = 0  # ranks below have their G row, their X row, in the cache
    sizes = torch.bincount(order.blocks).tolist()
    stops = torch.tensor(sizes).cumsum(0).tolist()
    wanted = ~is_given.all(0)  # a rank that only some rows know is decoded, and theirs is put back
    for size, stop in zip(sizes, stops, strict=True):
        start = stop - size
        ranks = wanted[start:stop].nonzero().squeeze(-1) + start
        if not len(ranks):
            continue
        if targeted == start:
            masks = ALL_VISIBLE  # one block after all that is known
        elif targeted == 0 and stop == len(set(order.blocks[:stop].tolist())):
            masks = PLAIN_CAUSAL
        else:
            evidence = order.blocks[fed:start]
            if targeted == 0:
                evidence = torch.cat([torch.tensor([-1]), evidence])  # BOS comes in with the first call
            cached = fed + 1 if targeted else 0
            masks = Masks.between(evidence, order.blocks[targeted:stop], cached, targeted)
        yield _Call(slice(fed, start), slice(targeted, stop), ranks, masks)
        targeted, fed = stop, start


class Sampler:
    """Draw one token from each row of logits, in float64.

    In float32, Gumbel noise -log(-log(u)) cannot exceed 16.6, so rare tokens never win: the entropy falls and the
    perplexity of samples looks better than it is.

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
            self.generator.manual_seed(seed)

    def __call__(self, logits: Tensor, given: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Choose tokens.

        Args:
            logits: float (..., V).
            given: int64 (...), tokens that are not to be drawn; -1 where they are.

        Returns:
            Tokens int64 (...), and float64 (...) their log-probabilities in nats, at temperature 1 and untruncated.
        """
        log_p = logits.to(self.device, torch.float64).log_softmax(-1)
        if self.temperature == 0:
            tokens = log_p.argmax(-1)
        else:
            # exponential race: argmax p_v / e_v with e_v ~ Exp(1) draws v with chance p_v
            kept = self.truncate((log_p / self.temperature).softmax(-1))
            race = torch.empty_like(kept).exponential_(generator=self.generator)
            tokens = (kept / race.clamp_min(torch.finfo(torch.float64).tiny)).argmax(-1)
        if given is not None:
            given = given.to(self.device)
            tokens = torch.where(given == UNKNOWN, tokens, given)
        log_probs = log_p.gather(-1, tokens.unsqueeze(-1)).squeeze(-1)
        return tokens.to(logits.device), log_probs.to(logits.device if self.device == logits.device else "cpu")

    def truncate(self, probabilities: Tensor) -> Tensor:
        """Set what `top_k` and `top_p` leave out of (..., V) probabilities to 0; what is left is not renormalised."""
        if self.top_k is None and self.top_p is None:
            return probabilities
        ordered, index = probabilities.sort(dim=-1, descending=True, stable=True)
        if self.top_k is not None:
            ordered[..., self.top_k :] = 0
        if self.top_p is not None:
            # of what top_k left; a token stays if those before it do not reach p yet
            before = ordered.cumsum(-1) - ordered
            ordered[before >= self.top_p * ordered.sum(-1, keepdim=True)] = 0
        return torch.zeros_like(probabilities).scatter(-1, index, ordered)


@contextmanager
def _evaluating(model: Transformer) -> Iterator[None]:
    """Switch dropout off for one call; the caller may train between two steps."""
    was_training = model.training
    if was_training:
        model.eval()
    try:
        yield
    finally:
        if was_training:
            model.train()


def _working_dtype(model: Transformer) -> torch.dtype:
    kind = model.bos.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else model.bos.dtype
