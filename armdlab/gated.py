"""When is a stream sure enough to write, and when should it wait for the others?

Confidence decides in many masked-diffusion samplers (Chang et al., 2022; Fast-dLLM, Wu et al., 2025); here it decides
which of the S streams of ARMD commit their next token at a step. The others predict anew, from more evidence.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from armdlab.engine import ARMDEngine, KVCache, Trial
from armdlab.masks import Mask, Masks
from armdlab.model import CHUNK
from armdlab.orders import UNKNOWN, GenerationOrder
from armdlab.sampling import Sampler
from armdlab.steps import DecodeStep, Writing

NONE = -1  # where a block has fewer tokens than another


@dataclass(frozen=True)
class Gate:
    """What a token must pass to be committed; the surest stream of a row always passes, so that each step makes one.

    A gate on entropy looks before the token is drawn, and biases nothing but the order. A gate on the probability of
    the drawn token also favours likely tokens: an unlikely one gets a second chance to be another.

    Args:
        min_probability: of the drawn token, at temperature 1; 0 to 1.
        max_entropy: of the prediction, in nats, at temperature 1.

    Raises:
        ValueError: if nothing is asked, or a number is out of range.

    >>> Gate(min_probability=0.5)
    Gate(min_probability=0.5, max_entropy=None)
    """

    min_probability: float | None = None
    max_entropy: float | None = None

    def __post_init__(self) -> None:
        """Refuse a gate that asks nothing, or the impossible."""
        if self.min_probability is None and self.max_entropy is None:
            raise ValueError("Gate() asks nothing; give min_probability (0 to 1), max_entropy (nats), or both")
        if self.min_probability is not None and not 0 <= self.min_probability <= 1:
            raise ValueError(f"min_probability={self.min_probability} must be between 0 and 1")
        if self.max_entropy is not None and not self.max_entropy >= 0:
            raise ValueError(f"max_entropy={self.max_entropy} must be at least 0 nats")

    def passes(self, logits: Tensor, log_probs: Tensor, is_waiting: Tensor) -> Tensor:
        """Which of (B, S) drawn tokens are committed.

        Args:
            logits: (B, S, V).
            log_probs: float64 (B, S), of the drawn tokens.
            is_waiting: bool (B, S), False for streams that are done.
        """
        sure, surest = is_waiting.clone(), log_probs
        if self.max_entropy is not None:
            log_p = logits.double().log_softmax(-1)
            entropy = -(log_p.exp() * log_p).sum(-1)
            sure &= entropy <= self.max_entropy
            surest = -entropy if self.min_probability is None else surest
        if self.min_probability is not None:
            sure &= log_probs.exp() >= self.min_probability
        best = surest.masked_fill(~is_waiting, -torch.inf).argmax(-1, keepdim=True)
        return sure | (torch.zeros_like(sure).scatter_(1, best, True) & is_waiting)


@torch.no_grad()
def gated_steps(
    engine: ARMDEngine,
    tokens: Tensor,
    order: GenerationOrder,
    choose: Sampler,
    end: int | None,
    gate: Gate,
) -> Iterator[DecodeStep]:
    """One network call a step for the next token of every stream; the gate decides which of them stay.

    Streams stay in step: no row goes on to its next block before it has filled this one. Left to run ahead, streams
    write in orders that no strided lesson has taught, and the texts fall apart (tests/benchmarks/README.md).

    Slots of the cache are text positions, since nobody knows the order in which they will be made: a row of X or G that
    was not committed is written over by the next try. The rows G of a step see each other, as in training, also those
    that then wait; what was seen is what is cached.

    Args:
        engine: of an ARMD.
        tokens: int64 (B, N), what is given, -1 elsewhere; the same positions in every row.
        order: what is given comes first, each token a block of its own; then the tokens of streams, block by block.
        choose: how tokens are drawn.
        end: as in `decode_steps`.
        gate: decides.
    """
    device, (B, N) = engine.device, tokens.shape
    if (tokens != UNKNOWN).all():
        return
    writing, text = Writing(tokens.to(device), end), F.pad(tokens.to(device), (0, 2))  # with room for `nowhere`
    known = int((tokens[0] != UNKNOWN).sum())
    read_first, blocks = order.positions[:known].to(device), _blocks_behind(order, known).to(device)
    cache, nowhere = engine.new_cache(B, N, spare=1), N + 1
    block = torch.zeros(B, dtype=torch.int64, device=device)  # that each row is at
    is_made = torch.zeros(B, blocks.shape[1], dtype=torch.bool, device=device)  # of its tokens
    seen_x = torch.zeros(B, N + 2, dtype=torch.bool, device=device)  # slots of X that are evidence; BOS is slot 0
    seen_g = torch.zeros(B, N + 2, dtype=torch.bool, device=device)  # slots of G that were committed

    if known:  # read what is given, one token a block, as `_walk` does
        _read(engine, text, read_first, cache)
        seen_x[:, 0] = True
        seen_x[:, read_first[:-1] + 1], seen_g[:, read_first] = True, True
        newest = read_first[-1:].expand(B, 1)
        is_real = torch.ones_like(newest, dtype=torch.bool)
    else:
        newest = torch.zeros(B, 0, dtype=torch.int64, device=device)
        is_real = torch.ones(B, 1, dtype=torch.bool, device=device)  # BOS
    with_bos = not known
    while True:
        here = blocks[block]  # (B, S)
        is_waiting = (here != NONE) & ~is_made
        at = here.clamp(min=0)
        x_slots = torch.where(is_real[:, with_bos:], newest + 1, nowhere)
        if with_bos:
            x_slots = F.pad(x_slots, (1, 0))
        seen_x.scatter_(1, x_slots, True)
        seen_x[:, nowhere] = False
        g_slots = torch.where(is_waiting, at, nowhere)
        read_g = seen_g.scatter(1, g_slots, True)
        read_g[:, nowhere] = ~is_waiting.any(-1)
        E, S = x_slots.shape[1], at.shape[1]
        masks = Masks(
            Mask(seen_x.unsqueeze(1).expand(-1, E, -1)),
            Mask(seen_x.unsqueeze(1).expand(-1, S, -1)),
            Mask(read_g.unsqueeze(1).expand(-1, S, -1)),
        )
        newest_tokens = text.gather(1, newest).clamp(min=0)
        trial = Trial(x_slots, g_slots, with_bos=with_bos, is_real=is_real)
        # The gate decides where chance is drawn: on a CPU if the device, as MPS, has no float64
        logits = engine.head(engine.hidden(newest_tokens, newest, at, masks, cache, trial)).to(choose.device)
        chosen, log_probs = choose(logits)
        commits = gate.passes(logits, log_probs, is_waiting.to(choose.device)).to(device)
        chosen = chosen.to(device)

        made_slots = torch.where(commits, at, nowhere)
        text.scatter_(1, made_slots, chosen)
        seen_g.scatter_(1, made_slots, True)
        is_made |= commits
        is_whole = (is_made | (here == NONE)).all(-1)
        block, is_made = block + is_whole, is_made & ~is_whole.unsqueeze(-1)
        newest, is_real, with_bos = at, commits, False
        columns = commits.any(0)
        made_at = at.masked_fill(~commits, UNKNOWN)[:, columns]
        log_probs = log_probs[:, columns.to(log_probs.device)]
        yield writing.step(made_at[0] if B == 1 else made_at, chosen[:, columns], log_probs)
        stay = writing.drop_finished(block == len(blocks) - 1)
        if stay is not None:
            if not len(stay):
                return
            text, block, is_made, seen_x, seen_g, newest, is_real = (
                each[stay] for each in (text, block, is_made, seen_x, seen_g, newest, is_real)
            )
            cache.keep(stay)


def _blocks_behind(order: GenerationOrder, known: int) -> Tensor:
    """Positions of each block behind what is known, int64 (blocks + 1, S), and NONE where it has fewer than others.

    The last row is that of a text that is whole.
    """
    sizes = torch.bincount(order.blocks)[known:].tolist()
    blocks = [*order.positions[known:].split(sizes), order.positions[:0]]
    return pad_sequence(blocks, batch_first=True, padding_value=NONE)


def _read(engine: ARMDEngine, text: Tensor, read_first: Tensor, cache: KVCache) -> None:
    """BOS and all given tokens but the last, which the first step reads; and the rows G of all of them."""
    B, n, device = len(text), len(read_first), text.device
    x_slots, ranks = F.pad(read_first[:-1] + 1, (1, 0)), torch.arange(n, device=device)
    for start in range(0, n, CHUNK):
        stop = min(start + CHUNK, n)
        sees = ranks[:stop] <= ranks[start:stop].unsqueeze(-1)
        columns = torch.zeros(2, stop - start, cache.n_slots, dtype=torch.bool, device=device)
        columns[0][:, x_slots[:stop]], columns[1][:, read_first[:stop]] = sees, sees
        masks = Masks(Mask(columns[0]), Mask(columns[0]), Mask(columns[1]))
        slots = (each[start:stop].expand(B, -1) for each in (x_slots, read_first))
        trial = Trial(*slots, with_bos=start == 0, sees=sees[:, start:])
        read = read_first[max(start - 1, 0) : stop - 1]
        engine.hidden(text[:, read], read, read_first[start:stop], masks, cache, trial)
        cache.commit()
