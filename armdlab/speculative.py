"""How can tokens be made in parallel and yet be drawn exactly as one after another?

Any-subset speculative decoding (Guo and Ermon, 2025), on strided streams: a window of W tokens is drafted as if they
were independent, then priced under the chain rule of the same order, and the longest prefix that passes is kept. ARMD
scores any order in one pass, so drafter and judge are one network, and the next drafts ride in the pass that judges.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from armdlab.engine import ARMDEngine, Trial
from armdlab.masks import Mask, Masks
from armdlab.orders import UNKNOWN, GenerationOrder
from armdlab.sampling import Sampler
from armdlab.steps import DecodeStep, Writing, seconds_since


@dataclass(frozen=True)
class Judgement:
    """What one call made of its window, for who wants to watch; (B, W) all, by rank.

    Args:
        positions: int64, where in the text.
        drafts: int64, what was drafted there.
        q: float64, the draft's chance when it was drawn.
        p: float64, its chance by the judge, which saw all drafts before it.
        u: float64, the die: a draft passes if u q < p.
        is_given: bool, known before: its own draft, and always passes.
        is_inside: bool; False behind the end of the text, and for the draft that a refused one took with it.
        n_passed: int64 (B, 1), how many drafts passed in a row; if there was one behind them, it was drawn anew.
        tokens: int64, the drafts with that one replaced.
    """

    positions: Tensor
    drafts: Tensor
    q: Tensor
    p: Tensor
    u: Tensor
    is_given: Tensor
    is_inside: Tensor
    n_passed: Tensor
    tokens: Tensor


@torch.no_grad()
def verified_steps(
    engine: ARMDEngine,
    tokens: Tensor,
    order: GenerationOrder,
    choose: Sampler,
    end: int | None,
    window: int,
    watch: Callable[[Judgement], None] | None = None,
) -> Iterator[DecodeStep]:
    """Draft, judge, keep: one network call a step, at least one token a call, `window` at most.

    Each row of the batch has a frontier f, below which all ranks are final, and w drafts. A call holds, for each row,

        evidence X   ranks f - 1 .. f + w - 1      the last final token and w drafts
        targets G    ranks f     .. f + w - 1      judge: sees what stands before it, drafts included: p, the chain rule
                     ranks f + w .. f + w + W - 1  draft: sees all of the window, no sibling's token: q of the next

    Draft x ~ q at rank n stays with chance min(1, p(x) / q(x)); the first that does not is drawn anew from what q left
    of p, max(p - q, 0), and the drafts behind it are judged again in the next call: they are still draws from their q.
    So every token has the distribution p, whatever q was (Leviathan et al., 2023; Chen et al., 2023).

    The draft at rank n + W goes on where n left off, in the same stream, and saw the refused token there. It would be
    refused, and the one after it in turn: it is given up unseen. So w is W, or W - 1 behind a refusal.

    Slots of the cache are ranks, so that a draft that failed is simply written over.

    Args:
        engine: of an ARMD.
        tokens: int64 (B, N), what is given, -1 elsewhere.
        order: its blocks do not matter: each token is a block of its own.
        choose: temperature and truncation hold for p and q alike.
        end: as in `decode_steps`.
        window: W, drafts at a time.
        watch: told of each call that judges, before its step is yielded; it changes nothing.
    """
    started, device, (B, N) = time.perf_counter(), engine.device, tokens.shape
    state = _State(engine, tokens.to(device), order.to(device), window)
    writing = Writing(tokens.to(device), end)
    state.draft_first(choose)
    while True:
        positions, chosen, log_probs, is_new = state.judge(choose, watch)
        columns = is_new.any(0)
        if columns.any():
            at = positions.masked_fill(~is_new, UNKNOWN)[:, columns]
            elapsed = seconds_since(started, device)
            yield writing.step(at[0] if B == 1 else at, chosen[:, columns], log_probs[:, columns], elapsed)
        stay = writing.drop_finished(state.frontier >= N)
        if stay is not None:
            if not len(stay):
                return
            state.keep(stay)


class _State:
    """Frontiers, drafts and cache of the rows that still write."""

    def __init__(self, engine: ARMDEngine, tokens: Tensor, order: GenerationOrder, window: int) -> None:
        B, N = tokens.shape
        self.engine, self.W, self.N = engine, window, N
        made = order.to_generation_order(tokens)
        room = made.new_zeros(B, 2 * window)  # ranks from N are drafted like others, and never yielded
        self.is_given = torch.cat([made != UNKNOWN, torch.zeros_like(room, dtype=torch.bool)], 1)
        self.made = torch.cat([made, room], 1)
        self.at = torch.cat([order.positions.expand(B, -1), room], 1)
        self.cache = engine.new_cache(B, N, spare=2 * window)
        self.frontier = made.new_zeros(B)
        self.is_first = True
        self.drafts = self.q = torch.empty(0)

        self.width = made.new_full((B, 1), window)  # w
        self.x_offsets = torch.arange(window + 1, device=tokens.device)
        self.g_offsets = torch.arange(2 * window, device=tokens.device)

    def keep(self, rows: Tensor) -> None:
        """Go on with some rows only."""
        for name in ("is_given", "made", "at", "frontier", "width", "drafts", "q"):
            setattr(self, name, getattr(self, name)[rows])
        self.cache.keep(rows)

    def draft_first(self, choose: Sampler) -> None:
        """Read what all rows know at the start of the order, and draft the first window behind it."""
        W, device = self.W, self.at.device
        known = int(self.is_given[:, : self.N].int().cumprod(-1).sum(-1).min())
        rows = torch.arange(known + W, device=device)
        sees = torch.arange(known + 1, device=device) <= rows.clamp(max=known).unsqueeze(-1)
        siblings = torch.arange(known + W, device=device) <= rows.masked_fill(rows >= known, known + W).unsqueeze(-1)
        masks = Masks(Mask(sees[: known + 1]), Mask(sees), Mask(siblings))
        trial = Trial(slice(0, known + 1), slice(0, known + W), with_bos=True, sees=sees)
        hidden = self.engine.hidden(
            self.made[:, :known], self.at[:, :known], self.at[:, : known + W], masks, self.cache, trial
        )
        stays = torch.arange(known + 1, device=device) < known  # the last row is read again, as the first of a window
        self.cache.commit(stays.expand(len(self.at), -1))
        self.frontier = self.frontier + known
        self.is_first = known == 0
        self.q = choose.probabilities(self.engine.head(hidden[:, known:]))
        self.drafts = self._drawn(choose, self.q, self.frontier.unsqueeze(-1))

    def judge(
        self, choose: Sampler, watch: Callable[[Judgement], None] | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """One call: judge the drafts, keep what passes, draft on.

        Returns:
            Of the window's ranks, (B, W): text positions, tokens, their log-probabilities,
            and which were made now.
        """
        W, w, f, offsets = self.W, self.width, self.frontier.unsqueeze(-1), self.g_offsets[: self.W]
        ranks = f + self.g_offsets
        window, at = ranks[:, :W], self.at.gather(1, ranks)
        self.made.scatter_(1, window, self.drafts)
        logits = self._call(f, ranks, at)
        chances = choose.probabilities(logits)
        p = chances[:, :W]

        # accept x ~ q with chance min(1, p / q)
        x = self.drafts.unsqueeze(-1)
        p_x, q_x = p.gather(-1, x).squeeze(-1), self.q.gather(-1, x).squeeze(-1)
        is_given, u = self.is_given.gather(1, window), choose.uniform(p_x.shape).to(p_x.device)
        is_inside, is_draft = window < self.N, offsets < w
        passes = ((u * q_x < p_x) | is_given | ~is_inside) & is_draft
        n_passed = passes.int().cumprod(-1).sum(-1, keepdim=True)  # (B, 1)
        n_new = (n_passed + 1).minimum(w)

        # where one failed, draw it from what q left of p
        failed = n_passed.clamp(max=W - 1)
        p_there = _rows(p, failed)
        left = (p_there - _rows(self.q, failed)).clamp(min=0)
        left = torch.where(left.sum(-1, keepdim=True) > 0, left, p_there)  # p = q up to rounding
        redrawn = torch.where(n_passed < w, choose.draw(left), self.drafts.gather(1, failed))
        tokens = self.drafts.scatter(1, failed, redrawn)
        self.made.scatter_(1, window, tokens)
        self.cache.commit(self.x_offsets < n_new)
        if watch:
            inside = is_inside & is_draft
            kept = n_passed.minimum(inside.sum(-1, keepdim=True))
            watch(Judgement(at[:, :W], self.drafts, q_x, p_x, u, is_given, inside, kept, tokens))

        # the next window: drafts that were not reached, then new ones
        q_new = _rows(chances, w + offsets)
        drafts_new = self._drawn(choose, q_new, f + w)
        shift = n_new + offsets
        shift = torch.where(shift < w, shift, shift + W - w)
        self.drafts = torch.cat([self.drafts, drafts_new], 1).gather(1, shift)
        self.q = _rows(torch.cat([self.q, q_new], 1), shift)
        self.frontier = (self.frontier + n_new.squeeze(-1)).clamp(max=self.N)
        self.width = torch.where(n_passed < w, max(1, W - 1), W)  # what follows a refused draft saw it: give it up
        self.is_first = False

        is_new = (offsets < n_new) & ~is_given & is_inside
        return at[:, :W], tokens, choose.log_probs(logits[:, :W], tokens), is_new

    def _call(self, f: Tensor, ranks: Tensor, at: Tensor) -> Tensor:
        """The network on a window: logits (B, 2W, V)."""
        W, w, top = self.W, self.width, int(self.frontier.max())
        before = (f - 1 + self.x_offsets)[:, self.is_first :]  # BOS is no token: in the first window it comes by itself
        x_slots, x_at = f + self.x_offsets, self.at.gather(1, before)
        columns, g_columns = self._columns(top + W + 1), self._columns(top + 2 * W)
        # how far a target reads, from the frontier: X slot s holds rank s - 1, G slot s holds rank s
        reach = self.g_offsets.minimum(w)
        g_reach = torch.where(self.g_offsets < w, self.g_offsets, w + W - 1)
        masks = Masks(
            Mask(columns <= x_slots.unsqueeze(-1)),
            Mask(columns <= (f + reach).unsqueeze(-1)),
            Mask(g_columns <= (f + g_reach).unsqueeze(-1)),
        )
        slots = (x_slots, ranks)
        if len(f) == 1:  # one row of the batch: its slots are neighbours
            slots = slice(top, top + W + 1), slice(top, top + 2 * W)
        trial = Trial(*slots, with_bos=self.is_first, sees=self.x_offsets <= reach.unsqueeze(-1))
        return self.engine.head(self.engine.hidden(self.made.gather(1, before), x_at, at, masks, self.cache, trial))

    def _columns(self, n: int) -> Tensor:
        return torch.arange(n, device=self.at.device)

    def _drawn(self, choose: Sampler, q: Tensor, start: Tensor) -> Tensor:
        """Draw drafts (B, W) for the ranks from `start` (B, 1) on; what is given is its own draft."""
        ranks = start + self.g_offsets[: self.W]
        ranks = ranks.clamp(max=self.made.shape[1] - 1)
        drawn = choose.draw(q).to(self.made.device)
        return torch.where(self.is_given.gather(1, ranks), self.made.gather(1, ranks), drawn)


def _rows(table: Tensor, at: Tensor) -> Tensor:
    """Of each (n, V) of a table (B, n, V) the rows at int64 (B, m): (B, m, V)."""
    return table.gather(1, at.unsqueeze(-1).expand(-1, -1, table.shape[-1]))
