"""How does an order become text, one block a step and nothing computed twice? (ARMD, section 3.3)

`decode_steps` walks along a generation order and yields what each step made; `generate` is the loop over it.
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from armdlab.baselines import BlockDiffusion
from armdlab.calls import heads_of, planned
from armdlab.capture import FixedSteps
from armdlab.correcting import Corrector, corrected_steps, correcting_engine
from armdlab.counts import at_least_one
from armdlab.engine import Engine
from armdlab.gated import Gate, gated_steps
from armdlab.inference import evaluating
from armdlab.masks import ALL_VISIBLE, Masks
from armdlab.model import ARMD, Transformer
from armdlab.orders import UNKNOWN, GenerationOrder
from armdlab.sampling import Sampler
from armdlab.speculative import verified_heads, verified_steps
from armdlab.steps import DecodeStep, Timed, Writing


@torch.no_grad()
def generate(
    model: Transformer | Engine,
    *,
    length: int,
    prompt: Tensor | Sequence | None = None,
    known: Tensor | Sequence | None = None,
    batch_size: int = 1,
    **how: Any,  # noqa: ANN401
) -> Tensor:
    """Write a text: the loop over `decode_steps`, which takes the very same arguments and explains them.

    Args:
        model: as there, and so are all but the following.
        length: tokens in all.
        prompt: what the text starts with.
        known: what is given at any positions.
        batch_size: number of texts.
        how: all else that `decode_steps` takes.

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
    tokens = given_tokens(length, prompt, known, batch_size)
    tokens = tokens.to(model.device if isinstance(model, Engine) else model.bos.device)
    for step in steps.untimed:
        step.write_into(tokens)
    if (end := how.get("end")) is not None:
        tokens.masked_fill_(tokens == UNKNOWN, end)
    return tokens


def decode_steps(
    model: Transformer | Engine,
    *,
    length: int,
    streams: int = 1,
    order: GenerationOrder | None = None,
    prompt: Tensor | Sequence | None = None,
    known: Tensor | Sequence | None = None,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    verify: bool | Literal["heads"] = False,
    gate: Gate | None = None,
    correct: Corrector | None = None,
    end: int | None = None,
    batch_size: int = 1,
    seed: int | None = None,
) -> Timed:
    """Generate block by block along an order, with keys, values and prefix kept (ARMD, section 3.3).

    Args:
        model: what predicts; or an `Engine` of it, so that weights are packed once for many texts, in a precision of
            your choice.
        length: number of text positions N of the result, whatever is given included.
        streams: number of parallel streams S. Where nothing is given S must divide `length`. Behind a prompt they keep
            the places that they have without one: a stream that is given whole writes nothing. They divide what is left
            around gaps, or by `order=GenerationOrder.infilling(known, S)`.
        order: an order of your own, in place of the strided one that `streams` makes.
        prompt: int64 (P,) or (B, P), the tokens that the text starts with.
        known: int64 (N,) or (B, N), tokens that are given at any positions, -1 elsewhere: infilling. What is given is
            read first, left to right, unless `order` says otherwise. Rows may know different positions with one stream,
            and where they are verified.
        temperature: divides the logits; 0 takes the likeliest token.
        top_k: keep the k likeliest tokens only.
        top_p: keep the fewest likeliest tokens whose probability reaches p, the one that crosses p included.
        verify: make up to `streams` tokens a call, drafted together and kept as far as they pass: parallel, and exactly
            the distribution of making them one after another in the same order (`armdlab.speculative`). "heads" does
            so for the heads of streams alone, some three calls in place of `streams`, and leaves the streams as they
            are: the distribution of plain streams, sooner. ARMD only.
        gate: let a stream commit its token only where it is sure enough, and try again at the next step where it is not
            (`armdlab.gated`). ARMD only; takes no order of your own.
        correct: read the finished text again, one token after another, and draw anew what is doubted then
            (`armdlab.correcting`); what was given, and what stands behind the end of a text, stays. Each reading is a
            step. ARMD only.
        end: token that ends a text. A row that has made it, and everything before it, is done: it leaves the batch, and
            decoding stops with the last one. What was not made then reads `end`.
        batch_size: number of rows B, where neither `prompt` nor `known` has rows.
        seed: makes chance repeatable on one device and version; None for a fresh one.

    Returns:
        An iterator over one `DecodeStep` for each block that holds something to generate, and for each reading.

    Raises:
        ValueError: if an argument is out of range or two contradict each other; at the call, not at the first step.
    """
    if correct is not None:
        model = correcting_engine(model, correct)
    model, engine = (model.model, model) if isinstance(model, Engine) else (model, None)
    tokens, own_order = given_tokens(length, prompt, known, batch_size), order
    _check_way(model, engine, verify, gate, own_order)
    if order is None:
        order = default_order(tokens != UNKNOWN, streams)
    elif streams != 1:
        raise ValueError(f"streams={streams} and order={order} both say who is made when; give one of them")
    if (tokens >= model.config.vocab_size).any() or (tokens < UNKNOWN).any():
        raise ValueError(
            f"prompt or known holds ids from {tokens.min()} to {tokens.max()}; this model knows 0 to "
            f"{model.config.vocab_size - 1}, and -1 marks what to generate"
        )
    if end is not None and not 0 <= end < model.config.vocab_size:
        raise ValueError(f"end={end} is no token of this model; choose 0 to {model.config.vocab_size - 1}, or None")
    order = model.check_order(tokens.clamp(min=0), order.to("cpu"))  # the run is planned where nothing waits
    window = streams
    if verify is True:  # its blocks say no more than how much to draft
        if own_order is not None:
            window = max(int(torch.bincount(row).max()) for row in order.blocks.reshape(-1, length))
        order = order.one_by_one()
    if order.blocks.dim() == 2:
        raise ValueError(
            "rows of the batch have blocks of different sizes (they know different numbers of tokens?); "
            "use streams=1, or decode rows that are cut alike together"
        )
    if gate and order.is_batched:
        raise ValueError(f"gate={gate} needs rows that know the same positions; decode rows that do not by themselves")
    device = engine.device if engine else model.bos.device
    choose = Sampler(temperature, top_k, top_p, seed, device)
    if not Engine.follows(model):
        return Timed(_walk_uncached(model, tokens, order, choose, end), device)
    engine = engine or Engine.of(model)
    if verify is True:
        steps = verified_steps(engine, tokens, order, choose, end, window)
    elif gate:
        steps = gated_steps(engine, tokens, order, choose, end, gate)
    elif isinstance(model, BlockDiffusion):
        steps = _reveal(engine, tokens, order, choose, end)
    else:
        steps = _walk(engine, tokens, order, choose, end, verify_heads=verify == "heads")
    if correct is not None:
        chance = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "seed": seed}
        in_turn = default_order(tokens != UNKNOWN, streams=1).to(device)
        steps = corrected_steps(engine, steps, tokens, in_turn, correct, end, **chance)
    return Timed(steps, device)


def given_tokens(
    length: int, prompt: Tensor | Sequence | None, known: Tensor | Sequence | None, batch_size: int
) -> Tensor:
    """What is known before decoding: int64 (B, N) on the CPU, -1 where a token is to be generated."""
    length, batch_size = at_least_one("length", length), at_least_one("batch_size", batch_size)
    if prompt is not None and known is not None:
        raise ValueError("prompt and known are both given; put the prompt into known, with -1 at what to generate")
    name, given = ("prompt", prompt) if known is None else ("known", known)
    if isinstance(given, str):
        raise ValueError(
            f"{name}={reprlib.repr(given)} is text, and token ids are wanted; give what tokenizer.encode makes of it"
        )
    try:
        given = torch.full((length,), UNKNOWN) if given is None else torch.as_tensor(given)
    except (TypeError, ValueError, RuntimeError):  # torch's sentences name neither argument nor rule
        raise ValueError(
            f"{name}={reprlib.repr(given)} holds something else than whole numbers, or rows of several lengths; give "
            "token ids, (n,) or (B, n), rows of several lengths one by one"
        ) from None
    given = given.cpu()
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


def _check_way(
    model: Transformer, engine: Engine | None, verify: bool | str, gate: Gate | None, order: GenerationOrder | None
) -> None:
    """Say why a way of decoding does not suit this model, or two do not suit each other."""
    if not (isinstance(verify, bool) or verify == "heads"):
        raise ValueError(f'verify={verify!r} is unknown; choose False, True or "heads"')
    name = f"verify={verify!r}" if verify else f"gate={gate}"
    if verify and gate:
        raise ValueError(f"{name} and gate={gate} are two ways of decoding; give one of them")
    if (verify or gate) and not (isinstance(model, ARMD) and Engine.follows(model)):
        raise ValueError(
            f"{name} needs a model that scores any order in one pass, an ARMD; {type(model).__name__} cannot"
        )
    if (verify or gate) and engine and engine.is_compiled:
        raise ValueError(
            f"{name} runs no compiled steps, and an engine with compiled=True gives up its fast layout for them; "
            "give the model, or Engine.of(model)"
        )
    if gate and order is not None:
        raise ValueError(f"{name} finds its own order among streams; leave order={order} out")


def default_order(is_known: Tensor, streams: int) -> GenerationOrder:
    """The order that `decode_steps` walks along where it is given none: what is known is read first, then S streams.

    Behind a prompt streams keep the places that they have without one, as training has taught them; around gaps they
    divide what is left.

    Args:
        is_known: bool (B, N).
        streams: S.

    Raises:
        ValueError: if `streams` suits neither.
    """
    if (is_known == is_known[0]).all():
        return _order_of(is_known[0], streams)
    return GenerationOrder.stack([_order_of(row, streams) for row in is_known])


def streams_of(is_known: Tensor, streams: int) -> Tensor:
    """Which stream makes each position in the `default_order` of bool (N,): int64 (N,), -1 where it is known."""
    shared = (~_outside(is_known)).nonzero().squeeze(-1)
    parts = shared.tensor_split(streams)
    stream = torch.arange(streams).repeat_interleave(torch.tensor([len(part) for part in parts]))
    return torch.full_like(is_known, -1, dtype=torch.int64).index_copy(0, shared, stream).masked_fill(is_known, -1)


def _order_of(is_known: Tensor, streams: int) -> GenerationOrder:
    """The `default_order` of a row: bool (N,)."""
    if not is_known.any():
        return GenerationOrder.strided(len(is_known), streams)
    if is_known.all():
        return GenerationOrder.left_to_right(len(is_known))
    return GenerationOrder.infilling(_outside(is_known), streams).behind(is_known)


def _outside(is_known: Tensor) -> Tensor:
    """What streams do not divide among themselves, of bool (N,): nothing behind a prompt, all that is known of gaps."""
    is_prompt = (is_known.int().diff() <= 0).all()  # nothing is known behind a position that is not
    return is_known & ~is_prompt


@torch.no_grad()
def _walk(
    engine: Engine,
    tokens: Tensor,
    order: GenerationOrder,
    choose: Sampler,
    end: int | None,
    *,
    verify_heads: bool = False,
) -> Iterator[DecodeStep]:
    device, is_given = engine.device, order.to_generation_order(tokens) != UNKNOWN
    calls, heads = list(planned(order, is_given)), heads_of(order, is_given) if verify_heads else None
    made = order.to_generation_order(tokens).to(device)  # in generation order from here on
    writing = Writing(tokens.to(device), end)
    if heads:
        found, cache = yield from verified_heads(engine, tokens, order, choose, writing, heads)
        calls, made = [call for call in calls if call.targets.stop > heads.stop], writing.of(made)
        made[:, heads] = found
    else:
        cache = engine.new_cache(len(tokens), order.length)
    order = order.to(device)
    fixed = FixedSteps(engine, cache, [call.sizes for call in calls if call.sees_all])
    for call in calls:
        evidence_at, target_at = (writing.of(order.positions)[..., ranks] for ranks in (call.evidence, call.targets))
        step = fixed.get(call.sizes) if call.sees_all else None
        if step:
            logits = step(made[:, call.evidence], evidence_at, target_at)[:, call.rows]
        else:
            hidden = engine.hidden(made[:, call.evidence], evidence_at, target_at, call.masks().to(device), cache)
            if call.ranks is None:
                continue
            logits = engine.head(hidden[:, call.rows])
        chosen, log_probs = choose(logits, made[:, call.ranks] if call.some_given else None)
        made[:, call.ranks] = chosen
        yield writing.step(order.positions[..., call.ranks], chosen, log_probs)
        if (stay := writing.drop_finished()) is not None:
            if not len(stay):
                return
            made = made[stay]
            cache.keep(stay)
            fixed.forget()


@torch.no_grad()
def _reveal(
    engine: Engine, tokens: Tensor, order: GenerationOrder, choose: Sampler, end: int | None
) -> Iterator[DecodeStep]:
    """Walk along an order by masked diffusion: one call for each of its blocks, on all of the model's present block.

    Only finished blocks of the model are cached; the noisy copy changes at each step and is computed anew.
    """
    device, size = engine.device, engine.model.block_size
    steps = order.positions.split(torch.bincount(order.blocks).tolist(), -1)
    block_of = torch.arange(order.length) // size
    seen = torch.full_like(tokens, UNKNOWN).to(device)
    writing, fed, cache = Writing(tokens.to(device), end), 0, engine.new_cache(len(tokens), order.length)
    for at in steps:
        at_rows = at.expand(len(tokens), -1)
        given = tokens.gather(-1, at_rows)
        wanted = (given == UNKNOWN).any(0)
        here, known_here = writing.of(at_rows.to(device)), writing.of(given.to(device))
        if not wanted.any():
            seen.scatter_(-1, here, known_here)
            continue
        at, at_rows, given = at[..., wanted], writing.of(at_rows[:, wanted].to(device)), given[:, wanted]
        start = int(at.flatten()[0]) // size * size
        stop = min(start + size, order.length)
        is_first = cache.n_evidence == 0
        if is_first or start > fed:
            evidence, n_cached = block_of[fed:start], 0 if is_first else fed + 1
            if is_first:
                evidence = torch.cat([torch.tensor([-1]), evidence])
            masks = Masks.between(evidence.to(device), block_of[start:stop].to(device), n_cached)
        else:
            masks = ALL_VISIBLE
        clean, targets = torch.arange(fed, start, device=device), torch.arange(start, stop, device=device)
        hidden = engine.hidden(seen[:, fed:start], clean, targets, masks, cache, noisy=seen[:, start:stop])
        rows = torch.arange(len(seen), device=device).unsqueeze(-1)
        fed, given = start, writing.of(given.to(device))
        chosen, log_probs = choose(engine.head(hidden[rows, at_rows - start]), given)
        seen.scatter_(-1, here, known_here)
        seen.scatter_(-1, at_rows, chosen)
        yield writing.step(at.to(device), chosen, log_probs)
        if (stay := writing.drop_finished()) is not None:
            if not len(stay):
                return
            seen = seen[stay]
            cache.keep(stay)


@torch.no_grad()
def _walk_uncached(
    model: Transformer, tokens: Tensor, order: GenerationOrder, choose: Sampler, end: int | None
) -> Iterator[DecodeStep]:
    """Walk by full passes of the model itself, one a block: slow and obviously right, for classes of one's own."""
    device = model.bos.device
    order, seen, writing = order.to(device), tokens.to(device), Writing(tokens.to(device), end)
    for ranks in torch.arange(order.length, device=device).split(torch.bincount(order.blocks).tolist()):
        at = order.positions[..., ranks]
        at_rows = at.expand(len(seen), -1)
        given = seen.gather(-1, at_rows)
        wanted = (given == UNKNOWN).any(0)
        if not wanted.any():
            continue
        at, at_rows, given = at[..., wanted], at_rows[:, wanted], given[:, wanted]
        with evaluating(model):  # the caller may train between two steps
            logits = model(seen.clamp(min=0), order)  # tokens behind do not matter to a model that is strictly causal
        rows = torch.arange(len(seen), device=device).unsqueeze(-1)
        chosen, log_probs = choose(logits[rows, at_rows], given)
        seen = seen.scatter(-1, at_rows, chosen)
        yield writing.step(at, chosen, log_probs)
        if (stay := writing.drop_finished()) is not None:
            if not len(stay):
                return
            seen = seen[stay]
            if order.is_batched:
                order = GenerationOrder(order.positions[stay], order.blocks)
