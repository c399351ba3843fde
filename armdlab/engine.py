"""How does a step of decoding cost little more than its matrix products? (ARMD, section 3.3)

`model.py` holds each network in the form that learns: one pass over a whole text. Here is the same network in the form
that writes: a few new rows at a time, everything before them in a cache. Nothing is built, looked up or decided twice;
weights are packed once. That both forms give the same logits is tested for every kind of order.

Axes: B batch, E new rows of evidence (stream X), T targets (stream G), R = E + T, D width, H heads, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from armdlab.baselines import AR, BlockDiffusion
from armdlab.masks import Mask, Masks
from armdlab.model import ARMD, ARMDConfig, Transformer, attend
from armdlab.orders import UNKNOWN
from armdlab.packing import PackedLayer, PackedLinear, best_dtype, best_layout, cast, norm

Slots = slice | Tensor


class KVCache:
    """What a decoding run remembers, so that nothing is computed twice (ARMD, section 3.3).

    Layer l keeps the keys and values of its rows: evidence rows (X) in a two-stream layer, target rows (G) in a causal
    layer. Prefix aggregation keeps S = sum_i PE_i (outer) x_i, whose size does not grow with the text.

    Memory, in numbers: 2 L B (N + 1 + spare) D for keys and values, of `dtype`; B d_pe D for the prefix.

    Args:
        config: the model's configuration.
        batch_size: number of rows B.
        length: number of text positions N that will be decoded.
        device: where the model is.
        dtype: of keys and values.
        spare: slots for rows that are tried and may not stay.
    """

    def __init__(
        self,
        config: ARMDConfig,
        batch_size: int,
        length: int,
        device: torch.device,
        dtype: torch.dtype,
        spare: int = 0,
    ) -> None:
        shape = (config.n_layer, batch_size, length + 1 + spare, 2, config.n_head, config.d_model // config.n_head)
        self._slots = torch.zeros(shape, device=device, dtype=dtype)  # zeros: a slot may be masked, but not be NaN
        self._see_layers()
        wide = torch.promote_types(dtype, torch.float32)
        self.prefix = torch.zeros(batch_size, config.d_position, config.d_model, device=device, dtype=wide)
        self.pending: tuple[Tensor, Tensor] | None = None  # PE and X of rows that are not in the prefix yet
        self.n_evidence = self.n_targets = 0  # slots that are filled, of X and of G

    @property
    def n_slots(self) -> int:
        """Number of slots of a layer."""
        return self._slots.shape[2]

    @property
    def n_bytes(self) -> int:
        """Memory of keys, values and prefix."""
        return self._slots.nbytes + self.prefix.nbytes

    def next_slots(self, n_evidence: int, n_targets: int) -> tuple[slice, slice]:
        """Take the next free slots of X and of G."""
        x = slice(self.n_evidence, self.n_evidence + n_evidence)
        g = slice(self.n_targets, self.n_targets + n_targets)
        self.n_evidence, self.n_targets = x.stop, g.stop
        return x, g

    def commit(self, stays: Tensor | None = None) -> None:
        """Add pending rows to the prefix: all, or those of bool (B, E)."""
        x_pe, x = self.pending
        self.prefix += x_pe.mT @ (x if stays is None else x * stays.unsqueeze(-1))
        self.pending = None

    def put(self, layer: int, rows: Tensor, slots: Slots, n_read: int) -> tuple[Tensor, Tensor]:
        """Store the keys and values of new rows; return what the first slots of the layer hold.

        Args:
            layer: from 0.
            rows: (B, n, 2, H, D/H), keys (turned to their positions) and values.
            slots: where they go: one slice for all rows of the batch, or int64 (B, n) for each its own.
            n_read: number of slots that are returned.

        Returns:
            Keys and values (B, H, n_read, D/H).
        """
        held, keys, values = self._layers[layer]
        if isinstance(slots, slice):
            held.narrow(1, slots.start, slots.stop - slots.start).copy_(rows)
        else:
            held.scatter_(1, slots[:, :, None, None, None].expand_as(rows), rows.to(held.dtype))
        return keys.narrow(2, 0, n_read), values.narrow(2, 0, n_read)

    def keep(self, rows: Tensor) -> None:
        """Go on with some rows of the batch only: int64 (B',), ascending. They move up in place: no second cache."""
        for to, row in enumerate(rows.tolist()):
            if to < row:
                self._slots[:, to], self.prefix[to] = self._slots[:, row], self.prefix[row]
        self._slots, self.prefix = self._slots[:, : len(rows)], self.prefix[: len(rows)]
        self._see_layers()

    def _see_layers(self) -> None:
        """Views of each layer's slots, and of their keys and values as attention reads them, made once."""
        self._layers = [(held, *held.permute(2, 0, 3, 1, 4).unbind()) for held in self._slots]


class Engine:
    """A model's weights, packed for decoding; `Engine.of(model)` makes the right kind.

    `generate` and `decode_steps` take an engine in place of a model, so that many texts pack the weights once. All of
    it is a copy: it goes on as it was packed while the model learns, and `is_current` says whether it has.

    Args:
        model: what decodes.
        precision: of weights and products; see `Engine.of`.
        compiled: whether steps have a fixed shape; see `Engine.of`.
    """

    def __init__(self, model: Transformer, precision: str = "auto", *, compiled: bool = False) -> None:
        if precision not in ("auto", "float32", "half"):
            raise ValueError(f"precision={precision!r} is unknown; choose auto, float32 or half")
        self.model, self.config, self.device = model, model.config, model.bos.device
        self._packed_from = _versions(model)
        self.dtype = best_dtype(model, precision)
        self.is_compiled = compiled  # a compiler lays weights out itself
        layout = "plain" if compiled else best_layout(model, self.dtype, precision)
        how = {"dtype": self.dtype, "layout": layout}
        self.wide = wide = torch.promote_types(self.dtype, torch.float32)  # of the rows between products
        n_parts = self.config.n_two_stream - 1 if isinstance(model, ARMD) else -1
        self.layers = [PackedLayer(layer, wide, parts=n == n_parts, **how) for n, layer in enumerate(model.layers)]
        self.head = PackedLinear(model.head.weight, **how)
        self.norm = norm(model.norm, wide)
        self.embedding, self.bos = (w.detach().to(wide, copy=True) for w in (model.embedding.weight, model.bos))
        angles = torch.stack([model.rotary.cos, model.rotary.sin], -1).to(wide)  # (positions, d/2, 2)
        self.angles = angles if compiled else torch.view_as_complex(angles)  # compilers write no complex numbers

    @property
    def is_current(self) -> bool:
        """Whether the model's weights are still those that were packed: training changes them."""
        return self._packed_from == _versions(self.model)

    @classmethod
    def of(cls, model: Transformer, precision: str = "auto", *, compiled: bool = False) -> Engine:
        """The engine that computes what this model computes.

        Args:
            model: ARMD or a baseline. It stays as it is: weights are held twice while both live. `model.to("meta")`
                gives up its own, so that decoding holds packed weights and caches only.
            precision: "auto" computes in the model's own precision, or in autocast's where that is on, and holds
                weights in half precision where that loses nothing; "half" rounds them to it, and computes in bfloat16
                on an accelerator and on a CPU that multiplies tiles of it; "float32" does neither.
            compiled: run ARMD's steps at a fixed shape (`armdlab.capture`): captured as a graph on CUDA, compiled by
                `torch.compile` elsewhere. Off where nothing is said: on a CPU compiling takes a minute, for texts of
                less than a second, and on CUDA it was not measured yet. Verified and gated steps are not compiled:
                `decode_steps` refuses such an engine for them.

        Raises:
            TypeError: if the model's class changes a part of its network, of which no engine knows.
            ValueError: if `precision` is unknown, or a network other than ARMD's is to be compiled.
        """
        if compiled and not isinstance(model, ARMD):
            raise ValueError(f"compiled=True is for ARMD's steps, and {type(model).__name__} has none; leave it out")
        if not cls.follows(model):
            raise TypeError(
                f"{type(model).__name__} changes how its network computes, and no engine follows it; "
                "decode_steps takes full passes of such a model instead"
            )
        kind = next(kind for kind in ENGINES if isinstance(model, kind))
        return ENGINES[kind](model, precision, compiled=compiled)

    @staticmethod
    def follows(model: Transformer) -> bool:
        """Whether there is an engine for this model: ARMD or a baseline, with its network as it is."""
        parts = ("forward", "hidden", "two_streams", "first_targets", "embed")
        return any(
            isinstance(model, kind)
            and all(getattr(type(model), part, None) is getattr(kind, part, None) for part in parts)
            for kind in ENGINES
        )

    def new_cache(self, batch_size: int, length: int, spare: int = 0) -> KVCache:
        """A cache for texts of `length` tokens."""
        return KVCache(self.config, batch_size, length, self.device, self.dtype, spare)

    def embed(self, tokens: Tensor, at: Tensor, *, with_bos: bool) -> tuple[Tensor, Tensor]:
        """Rows (B, E, D) of int64 tokens, and their inner positions; BOS, at position 0, stands before them."""
        rows, at = F.embedding(tokens, self.embedding), at + 1
        if with_bos:
            rows = torch.cat([self.bos.expand(len(tokens), 1, -1), rows], 1)
            at = F.pad(at, (1, 0))
        return rows, at

    def angles_at(self, positions: Tensor) -> Tensor:
        """e^(i angle) of each pair: (1 or B, n, 1, 1, d/2) for int64 (n,) or (B, n); compiled as (cos, sin), too."""
        return self.angles[positions].view(-1, positions.shape[-1], 1, 1, *self.angles.shape[1:])

    def turn(self, x: Tensor, angles: Tensor) -> None:
        """Rotate the pairs of float (B, n, k, H, d) to their positions, in place."""
        pairs = x.view(*x.shape[:-1], -1, 2)
        if angles.is_complex():
            torch.view_as_complex(pairs).mul_(angles)
        else:
            (first, second), (cos, sin) = pairs.unbind(-1), angles.unbind(-1)
            pairs.copy_(torch.stack([first * cos - second * sin, second * cos + first * sin], -1))

    def run_layer(
        self,
        depth: int,
        rows: Tensor,
        angles: Tensor,
        cache: KVCache,
        slots: Slots,
        mask: Mask,
        n_giving: int | None = None,
    ) -> Tensor:
        """One pre-norm layer on new rows.

        Args:
            depth: of the layer, from 0.
            rows: (B, R, D).
            angles: of their positions.
            cache: takes in the new keys and values.
            slots: where they go.
            mask: which slots a row may see: a matrix with one column for each slot that is read, or all so far.
            n_giving: number of leading rows that give keys and values (stream X); None for all.

        Returns:
            (B, R, D); in the last two-stream layer without the leading rows, which nothing reads any more.
        """
        w, H = self.layers[depth], self.config.n_head
        B, R, D = rows.shape
        E = R if n_giving is None else n_giving
        normed = torch.layer_norm(rows, *w.attention_norm)
        if w.query_key_value is None:
            key_value = cast(w.key_value(normed[:, :E]), self.wide).view(B, E, 2, H, -1)
            queries = cast(w.query(normed[:, E:]), self.wide).view(B, R - E, 1, H, -1)
            self.turn(key_value.narrow(2, 0, 1), angles[:, :E])
            self.turn(queries, angles[:, E:])
            rows = rows[:, E:]
        else:
            queries = cast(w.query_key_value(normed), self.wide).view(B, R, 3, H, -1)
            self.turn(queries.narrow(2, 0, 2), angles)
            key_value = queries[:, :E, 1:]
        n_read = slots.stop if mask.allowed is None else mask.allowed.shape[-1]
        keys, values = cache.put(depth, key_value, slots, n_read)
        queries = cast(queries.select(2, 0).transpose(1, 2), keys.dtype)
        attended = attend(queries, keys, values, mask).transpose(1, 2).reshape(B, -1, D)
        rows = rows + w.attention_out(attended)
        return rows + w.feed_forward_out(w.feed_forward_in.gelu(torch.layer_norm(rows, *w.feed_forward_norm)))


def _versions(model: Transformer) -> list[tuple[int, int]]:
    return [(weight.data_ptr(), weight._version) for weight in model.parameters()]


@dataclass(frozen=True)
class Trial:
    """Rows of a call that may not stay, or that stand at other slots in each row of the batch.

    Args:
        evidence: slots of the rows of X.
        targets: slots of the rows of G.
        with_bos: whether BOS stands before the tokens.
        sees: bool (T, E), which evidence of this call a target may see in prefix aggregation, and then nothing is added
            to the prefix before `KVCache.commit`; None where every target sees all of it, and all of it stays.
        is_real: bool (B, E), False for rows of evidence that only fill up the batch.
    """

    evidence: Slots
    targets: Slots
    with_bos: bool = False
    sees: Tensor | None = None
    is_real: Tensor | None = None


class ARMDEngine(Engine):
    """ARMD a few rows at a time: recurrent prefix aggregation, two streams in one product, causal layers on G."""

    def __init__(self, model: ARMD, precision: str = "auto", *, compiled: bool = False) -> None:
        super().__init__(model, precision, compiled=compiled)
        self.position = model.position_embeddings().detach().to(self.wide, copy=True)
        self.prefix_norm = norm(model.prefix_norm, self.wide)

    def hidden(
        self,
        tokens: Tensor,
        token_at: Tensor,
        target_at: Tensor,
        masks: Masks,
        cache: KVCache,
        trial: Trial | None = None,
    ) -> Tensor:
        """As `ARMD.hidden`, for what the cache does not hold yet.

        Args:
            tokens: int64 (B, E), known tokens in generation order.
            token_at: int64 (E,) or (B, E), their text positions.
            target_at: int64 (T,) or (B, T), the text positions to predict.
            masks: who may see whom; columns are slots of the cache. BOS stands before the tokens where it is empty.
            cache: takes in what this call computes.
            trial: where rows go that may not stay; None appends them all.

        Returns:
            (B, T, D), normed; `head` turns it into logits.
        """
        x, x_at = self.embed(tokens, token_at, with_bos=trial.with_bos if trial else cache.n_evidence == 0)  # X^0
        g_at, E = target_at + 1, x.shape[1]
        x_slots, g_slots = (trial.evidence, trial.targets) if trial else cache.next_slots(E, g_at.shape[-1])
        g = self.first_targets(x, x_at, g_at, masks, cache, trial)  # G^0

        rows, at = torch.cat([x, g], 1), torch.cat([x_at.expand(*g_at.shape[:-1], E), g_at], -1)
        angles, last = self.angles_at(at), self.config.n_two_stream - 1
        to_x = masks.evidence_to_evidence.above(masks.target_to_evidence, E).to(rows.device)
        for depth in range(last):
            rows = self.run_layer(depth, rows, angles, cache, x_slots, to_x, E)  # X^l under M^c, G^l under M^sc
        rows = self.run_layer(last, rows, angles, cache, x_slots, masks.target_to_evidence, E)  # G^L2s
        for depth in range(last + 1, len(self.layers)):
            rows = self.run_layer(depth, rows, angles[:, E:], cache, g_slots, masks.target_to_target)
        return torch.layer_norm(rows, *self.norm)

    def first_targets(
        self, x: Tensor, x_at: Tensor, g_at: Tensor, masks: Masks, cache: KVCache, trial: Trial | None
    ) -> Tensor:
        """Prefix aggregation in its recurrent form, S += PE^T X and G^0 = PE S (ARMD, eq. 6): (B, T, D).

        Rows of this call that not every target may see meet the targets in the matrix form instead.
        """
        x_pe, g_pe = self.position[x_at], self.position[g_at]  # (E, d_pe), (T, d_pe), or with B in front
        sees = trial.sees if trial else None
        if not masks.target_to_evidence.hides or (trial and sees is None):
            cache.prefix += x_pe.mT @ (x if trial is None or trial.is_real is None else x * trial.is_real.unsqueeze(-1))
            g = g_pe @ cache.prefix
        else:
            kernel = g_pe @ x_pe.mT  # H(n, i) = <PE_n, PE_i>
            kernel = masks.target_to_evidence.apply(kernel) if sees is None else kernel * sees
            g = g_pe @ cache.prefix + kernel @ x
            cache.pending = x_pe, x
            if sees is None:
                cache.commit()
        return torch.layer_norm(g, *self.prefix_norm)


class AREngine(Engine):
    """The autoregressive transformer: the row of each known token becomes the row of the next target."""

    def hidden(self, tokens: Tensor, token_at: Tensor, target_at: Tensor, masks: Masks, cache: KVCache) -> Tensor:
        """As `AR.hidden`, for what the cache does not hold yet; arguments as for `ARMDEngine.hidden`."""
        rows, at = self.embed(tokens, token_at, with_bos=cache.n_evidence == 0)
        angles, (slots, _) = self.angles_at(at), cache.next_slots(rows.shape[1], 0)
        for depth in range(len(self.layers)):
            rows = self.run_layer(depth, rows, angles, cache, slots, masks.evidence_to_evidence)
        return torch.layer_norm(rows, *self.norm)


class BlockEngine(Engine):
    """Block diffusion: clean rows stay in the cache, the noisy copy of a block stands behind them for one call."""

    def __init__(self, model: BlockDiffusion, precision: str = "auto", *, compiled: bool = False) -> None:
        super().__init__(model, precision, compiled=compiled)
        self.mask = model.mask.detach().to(self.wide, copy=True)

    def hidden(
        self, tokens: Tensor, token_at: Tensor, target_at: Tensor, masks: Masks, cache: KVCache, noisy: Tensor
    ) -> Tensor:
        """As `BlockDiffusion.hidden`, for what the cache does not hold yet; arguments as for `ARMDEngine.hidden`.

        Args:
            tokens: int64 (B, E), tokens of blocks that were finished since the last call.
            token_at: int64 (E,), their text positions.
            target_at: int64 (T,), the text positions of the noisy copy.
            masks: who may see whom.
            cache: takes in the clean rows.
            noisy: int64 (B, T), what is known at the targets; -1 where they are masked.
        """
        x, x_at = self.embed(tokens, token_at, with_bos=cache.n_evidence == 0)
        E, T = x.shape[1], len(target_at)
        g = torch.where((noisy == UNKNOWN).unsqueeze(-1), self.mask, F.embedding(noisy.clamp(min=0), self.embedding))
        rows, angles = torch.cat([x, g], 1), self.angles_at(torch.cat([x_at, target_at + 1]))
        (slots, _) = cache.next_slots(E, 0)
        slots = slice(slots.start, slots.stop + T)
        hidden_from_x = Mask(torch.zeros(E, T, dtype=torch.bool, device=rows.device))
        g_to_both = masks.target_to_evidence.beside(masks.target_to_target)
        both = masks.evidence_to_evidence.beside(hidden_from_x).above(g_to_both, E) if E else g_to_both
        for depth in range(len(self.layers)):
            rows = self.run_layer(depth, rows, angles, cache, slots, both)
        return torch.layer_norm(rows[:, E:], *self.norm)


ENGINES = {ARMD: ARMDEngine, AR: AREngine, BlockDiffusion: BlockEngine}
