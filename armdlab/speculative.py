"""How can tokens be made in parallel and yet be drawn exactly as one after another?

Any-subset speculative decoding (Guo and Ermon, 2025), on strided streams: W - 1 tokens are drafted as if they were
independent, then priced under the chain rule of the same order; the longest prefix that passes is kept, and one more
token is drawn behind it. ARMD scores any order in one pass, so drafter and judge are one network, and the next drafts
ride in the pass that judges. The heads of streams hardly depend on each other: nearly all drafts of them pass.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from armdlab.engine import ARMDEngine, KVCache, Trial
from armdlab.masks import Mask, Masks
from armdlab.model import CHUNK
from armdlab.orders import UNKNOWN, GenerationOrder
from armdlab.sampling import Sampler
from armdlab.steps import DecodeStep, Writing


@dataclass(frozen=True)
class Judgement:
    """What one call made of its n drafts (W - 1; 0 in the first call), for who wants to watch; by rank.

    Args:
        positions: int64 (B, n + 1), where in the text; the last one holds no draft.
        drafts: int64 (B, n), what was drafted there.
        q: float64 (B, n), the draft's chance when it was drawn.
        p: float64 (B, n), its chance by the judge, which saw all drafts before it.
        u: float64 (B, n), the die: a draft passes if u q < p, or if it is given.
        is_given: bool (B, n + 1), known before: its own draft.
        is_inside: bool (B, n + 1); False behind the end of the text.
        n_passed: int64 (B, 1), how many drafts passed in a row, up to the end of the text.
        tokens: int64 (B, n + 1): drafts that passed, and at `n_passed` the token that the call drew itself; what stands
            behind it means nothing.
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

    Each row of the batch has a frontier f: ranks below it are final. A call holds, for each row,

        evidence X   ranks f - 1 .. f + W - 2   the last final token and W - 1 drafts
        targets G    ranks f     .. f + W - 1   judge: sees what stands before it, drafts included: p, the chain rule
                     ranks f + W .. f + 2W - 2  draft: sees all of that, no sibling's token: q

    Draft x ~ q at rank n stays with chance min(1, p(x) / q(x)); the first that does not is drawn anew from what q left
    of p, max(p - q, 0). If all stay, one more token is drawn from the last p. So every token has the distribution p,
    whatever q was (Leviathan et al., 2023; Chen et al., 2023).

    Let r be the rank that the call drew. The next drafts, r + 1 .. r + W - 1, are drawn from rows of this call. Behind
    a refused draft these are judges' rows: they saw all that stands before them but for that one token, and are nearer
    to the next p than what their drafts were drawn from.

    Slots of the cache are ranks, so that a draft that failed is simply written over.

    Args:
        engine: of an ARMD.
        tokens: int64 (B, N), what is given, -1 elsewhere.
        order: its blocks do not matter: each token is a block of its own.
        choose: temperature and truncation hold for p and q alike.
        end: as in `decode_steps`.
        window: W, tokens that a call makes at most.
        watch: told of each call, before its step is yielded; it changes nothing.
    """
    device, N = engine.device, tokens.shape[1]
    # The books are kept where chance is drawn: on a CPU if the device, as MPS, has no float64
    state = _State(engine, tokens.to(choose.device), order.to(choose.device), window)
    writing = Writing(tokens.to(device), end)
    made = state.begin(choose, watch)
    while True:
        yield from _said(made, writing)
        stay = writing.drop_finished((state.frontier.squeeze(-1) >= N).to(device))
        if stay is not None:
            if not len(stay):
                return
            state.keep(stay)
        made = state.judge(choose, watch)


@torch.no_grad()
def verified_heads(
    engine: ARMDEngine, tokens: Tensor, order: GenerationOrder, choose: Sampler, writing: Writing, heads: slice
) -> Generator[DecodeStep, None, tuple[Tensor, KVCache]]:
    """Draft the heads of all streams in one call, judge them in the next; the streams themselves stay plain.

    As `verified_steps`, up to the last head: nothing is drafted behind it, and the window shrinks to what is left. So
    the heads take some three calls in place of S, and have the very distribution of heads that are made one by one.

    Args:
        engine: of an ARMD.
        tokens: int64 (B, N), what is given, -1 elsewhere.
        order: the same blocks for all rows.
        choose: how tokens are drawn.
        writing: of the run; rows that end leave it.
        heads: their ranks; what is known stands before them.

    Returns:
        The heads (B', S) of the rows that stayed, and a cache as if they had been made one by one.
    """
    device = choose.device
    state = _State(engine, tokens.to(device), order.to(device), heads.stop - heads.start, heads.stop)
    made = state.begin(choose)
    while True:
        yield from _said(made, writing)
        if (stay := writing.drop_finished()) is not None:
            state.keep(stay)
        if (state.frontier >= heads.stop).all():  # of no rows at all, too
            state.cache.n_evidence = state.cache.n_targets = heads.stop  # the last head is no evidence yet, BOS is
            return state.made[:, heads].to(engine.device), state.cache
        made = state.judge(choose)


Made = tuple[Tensor, Tensor, Tensor, Tensor]  # of some ranks (B, n): text positions, tokens, is new, log-probs


def _said(made: Made, writing: Writing) -> Iterator[DecodeStep]:
    """The step of a call; none if it made nothing new."""
    (positions, chosen, is_new), log_probs = (part.to(writing.text.device) for part in made[:3]), made[3]
    columns = is_new.any(0)
    if columns.any():
        at = positions.masked_fill(~is_new, UNKNOWN)[:, columns]
        log_probs = log_probs[:, columns.to(log_probs.device)]
        yield writing.step(at[0] if len(writing.text) == 1 else at, chosen[:, columns], log_probs)


class _State:
    """Frontiers, drafts and cache of the rows that still write."""

    def __init__(
        self, engine: ARMDEngine, tokens: Tensor, order: GenerationOrder, window: int, stop: int | None = None
    ) -> None:
        B, N = tokens.shape
        self.engine, self.W, self.N, self.drafts_on = engine, window, stop or N, stop is None
        made = order.to_generation_order(tokens)
        room = made.new_zeros(B, 2 * window)  # ranks from N are drafted like others, and never yielded
        self.is_given = torch.cat([made != UNKNOWN, torch.zeros_like(room, dtype=torch.bool)], 1)
        self.made = torch.cat([made, room], 1)
        self.at = torch.cat([order.positions.expand(B, -1), room], 1)
        self.cache = engine.new_cache(B, N, spare=2 * window)
        n_known = self.is_given[:, :N].int().cumprod(-1).sum(-1).min()  # ranks that all rows know from the start
        self.frontier = n_known.expand(B, 1)
        self.drafts = made[:, :0]
        self.q = torch.empty(B, 0, engine.config.vocab_size, dtype=torch.float64, device=tokens.device)
        self._open(window)

    def _open(self, window: int) -> None:
        """Lay out a call of W rows of evidence, as many that judge, and W - 1 that draft on, if any do."""
        self.W, device = window, self.at.device
        self.x_offsets = torch.arange(window, device=device)
        self.g_offsets = torch.arange(2 * window - 1 if self.drafts_on else window, device=device)
        sees = self.x_offsets <= self.g_offsets.unsqueeze(-1)  # (T, W): targets of a call, its evidence
        self.sees = sees.to(self.engine.device)
        # the last slot that a target reads, from the frontier: X slot s holds rank s - 1, G slot s holds rank s
        self.reach = self.g_offsets.clamp(max=window - 1)
        self.g_reach = self.g_offsets.masked_fill(self.g_offsets >= window, 2 * window - 2)

    def keep(self, rows: Tensor) -> None:
        """Go on with some rows only."""
        for name in ("is_given", "made", "at", "frontier", "drafts", "q"):
            setattr(self, name, getattr(self, name)[rows.to(self.at.device)])
        self.cache.keep(rows)

    def begin(self, choose: Sampler, watch: Callable[[Judgement], None] | None = None) -> Made:
        """The first call: read what all rows know from the start, draw one token, draft on."""
        W, known, device = self.W, int(self.frontier[0]), self.at.device
        ranks = torch.arange(known + W, device=device)
        for start in range(0, max(known, 1), CHUNK):  # X slot s holds rank s - 1, G slot s holds rank s
            is_last = start + CHUNK >= known
            x_stop, g_stop = (known + 1, known + W) if is_last else (start + CHUNK, start + CHUNK)
            rows = ranks[start:g_stop].unsqueeze(-1)
            sees = torch.arange(x_stop, device=device) <= rows
            siblings = ranks[:g_stop] <= rows.masked_fill(rows > known, known + W - 1)
            new = sees[:, start:].to(self.engine.device)
            trial = Trial(slice(start, x_stop), slice(start, g_stop), with_bos=start == 0, sees=new)
            read = slice(max(start - 1, 0), x_stop - 1)
            x, x_at, g_at = self.made[:, read], self.at[:, read], self.at[:, start:g_stop]
            hidden = self._hidden(x, x_at, g_at, (sees[: x_stop - start], sees, siblings), trial)
            self.cache.commit()
        return self._settle(self.engine.head(hidden[:, -W:]), choose, watch)

    def judge(self, choose: Sampler, watch: Callable[[Judgement], None] | None = None) -> Made:
        """Every further call: judge the drafts, keep what passes, draw one token, draft on."""
        W, f, top = self.W, self.frontier, int(self.frontier.max())
        before, ranks = f - 1 + self.x_offsets, f + self.g_offsets
        self.made.scatter_(1, ranks[:, : W - 1], self.drafts)
        x_slots, columns = f + self.x_offsets, torch.arange(top + len(self.g_offsets), device=f.device)
        allowed = (
            columns[: top + W] <= x_slots.unsqueeze(-1),
            columns[: top + W] <= (f + self.reach).unsqueeze(-1),
            columns <= (f + self.g_reach).unsqueeze(-1),
        )
        slots = (x_slots.to(self.engine.device), ranks.to(self.engine.device))
        if len(f) == 1:  # one row of the batch: its slots are neighbours
            slots = slice(top, top + W), slice(top, top + len(self.g_offsets))
        x, x_at, g_at = self.made.gather(1, before), self.at.gather(1, before), self.at.gather(1, ranks)
        hidden = self._hidden(x, x_at, g_at, allowed, Trial(*slots, sees=self.sees))
        made = self._settle(self.engine.head(hidden), choose, watch)
        self.cache.commit((before < self.frontier - 1).to(self.engine.device))
        return made

    def _hidden(
        self, x: Tensor, x_at: Tensor, g_at: Tensor, allowed: tuple[Tensor, Tensor, Tensor], trial: Trial
    ) -> Tensor:
        """The network on evidence and targets (see `ARMDEngine.hidden`), under masks X to X, G to X and G to G."""
        x, x_at, g_at, *allowed = (part.to(self.engine.device) for part in (x, x_at, g_at, *allowed))
        return self.engine.hidden(x, x_at, g_at, Masks(*map(Mask, allowed)), self.cache, trial)

    def _settle(self, logits: Tensor, choose: Sampler, watch: Callable[[Judgement], None] | None) -> Made:
        """Of n drafts keep those that pass in a row, draw the token behind them, and draft the next window.

        Args:
            logits: (B, m, V), of the ranks from the frontier on: n + 1 that judge or draw, the others draft.
            choose: the source of chance.
            watch: as in `verified_steps`.

        Returns:
            Of the ranks of the drafts and the one behind them: positions, tokens, whether made now, log-probabilities.
        """
        n, f, chances = self.drafts.shape[1], self.frontier, choose.probabilities(logits)
        offsets = torch.arange(n + 1, device=f.device)
        ranks = f + offsets
        is_given, is_inside = self.is_given.gather(1, ranks), ranks < self.N

        # accept x ~ q with chance min(1, p / q)
        p, x = chances[:, : n + 1], self.drafts.unsqueeze(-1)
        p_x, q_x = p[:, :n].gather(-1, x).squeeze(-1), self.q.gather(-1, x).squeeze(-1)
        u = choose.uniform(p_x.shape)
        passes = (u * q_x < p_x) | is_given[:, :n] | ~is_inside[:, :n]
        n_passed = passes.int().cumprod(-1).sum(-1, keepdim=True)  # (B, 1)

        # draw the token behind them from all of p, or, where a draft failed, from what its q left of p
        left = p_there = _rows(p, n_passed)
        failed = (n_passed < n).unsqueeze(-1)
        if failed.any():
            q_there = _rows(self.q, n_passed.clamp(max=n - 1)) * failed
            left = (p_there - q_there).clamp(min=0)
            left = torch.where(left.sum(-1, keepdim=True) > 0, left, p_there)  # p = q up to rounding
        drawn = self._drawn(choose, left, f + n_passed)
        tokens = F.pad(self.drafts, (0, 1)).scatter(1, n_passed, drawn)
        self.made.scatter_(1, f + n_passed, drawn)
        at = self.at.gather(1, ranks)
        if watch:
            n_kept = n_passed.minimum(is_inside.sum(-1, keepdim=True))
            watch(Judgement(at, self.drafts, q_x, p_x, u, is_given, is_inside, n_kept, tokens))

        # draft the next window; for what was not reached, the judge's row knows more than its old q
        self.frontier = (f + n_passed + 1).clamp(max=self.N)
        if not self.drafts_on:
            self._open(self.N - int(self.frontier.min()) + 1)
        shift = (n_passed + 1 + self.x_offsets[:-1]).clamp(max=chances.shape[1] - 1)
        self.q = _rows(chances, shift)
        self.drafts = self._drawn(choose, self.q, f + shift)
        is_new = (offsets <= n_passed) & ~is_given & is_inside
        return at, tokens, is_new, choose.log_probs(logits[:, : n + 1], tokens, p)

    def _drawn(self, choose: Sampler, weights: Tensor, ranks: Tensor) -> Tensor:
        """Draw int64 (B, n) from weights (B, n, V) for ranks (B, n); what is given is drawn as it is."""
        return torch.where(self.is_given.gather(1, ranks), self.made.gather(1, ranks), choose.draw(weights))


def _rows(table: Tensor, at: Tensor) -> Tensor:
    """Of each (n, V) of a table (B, n, V) the rows at int64 (B, m): (B, m, V)."""
    return table[torch.arange(len(table), device=table.device).unsqueeze(-1), at]  # row by row; `gather` is slower
