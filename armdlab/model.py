"""How can one pass predict every token from earlier blocks only, in any order? (ARMD, section 3)

Three classes, each made of the one before: `Layer` is a pre-norm transformer layer, `Transformer` everything that all
models here share, `ARMD` the paper's network. `engine.py` holds the same networks in the form that decodes.

Axes: B batch, N length, V vocabulary, D width, H heads, E evidence rows (stream X), T target rows (stream G).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from armdlab.checkpoints import Checkpointed
from armdlab.counts import at_least_one
from armdlab.masks import Mask, Masks
from armdlab.orders import GenerationOrder
from armdlab.positions import Rotary, local_amplitudes, rotate, waves


@dataclass
class ARMDConfig:
    """The size and shape of a model; baselines take the very same one.

    Args:
        vocab_size: number of token ids V.
        max_length: longest text, in tokens, BOS not counted.
        n_layer: number of layers L.
        n_head: number of attention heads H; must divide `d_model` into an even head width (RoPE turns pairs).
        d_model: width D.
        n_two_stream: number of two-stream layers L2s, 1 to `n_layer`; None for the paper's L/2.
        d_position: width d_pe of the position embeddings in prefix aggregation, even; None for three quarters
            of `max_length`, with which <PE_n, PE_i> does not come back in the longest text (`waves`).
        position_base: the position embeddings start with waves from 2 pi to 2 pi times this long, in tokens. Short on
            purpose: then <PE_n, PE_i> starts local, and the model learns.
        rope_base: base of the rotary position embedding.
        dropout: share of features dropped after attention and feed-forward while training.
        tie_weights: whether the head reuses the token embedding.

    Raises:
        ValueError: if a value is out of range; the message names it and what is allowed.
    """

    vocab_size: int
    max_length: int
    n_layer: int = 6
    n_head: int = 4
    d_model: int = 256
    n_two_stream: int | None = None
    d_position: int | None = None
    position_base: float = 30.0
    rope_base: float = 10_000.0
    dropout: float = 0.0
    tie_weights: bool = False

    def __post_init__(self) -> None:
        """Fill in L2s and d_pe, and refuse sizes that no model can have."""
        if self.n_two_stream is None:
            self.n_two_stream = max(1, self.n_layer // 2)
        if self.d_position is None:
            self.d_position = 2 * -(-3 * self.max_length // 8)
        for name in ("vocab_size", "max_length", "n_layer", "n_head", "d_model", "n_two_stream", "d_position"):
            setattr(self, name, at_least_one(name, getattr(self, name)))
        if self.n_two_stream > self.n_layer:
            raise ValueError(
                f"n_two_stream={self.n_two_stream} is more than n_layer={self.n_layer}; choose 1 to {self.n_layer}"
            )
        if self.d_model % (2 * self.n_head):
            raise ValueError(
                f"n_head={self.n_head} does not cut d_model={self.d_model} into heads of even width; "
                f"try d_model={2 * self.n_head * max(1, round(self.d_model / (2 * self.n_head)))}"
            )
        if self.d_position % 2:
            raise ValueError(f"d_position={self.d_position} must be even: sinusoids come as pairs of sin and cos")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout={self.dropout} must be at least 0 and below 1")
        for name in ("position_base", "rope_base"):
            if not getattr(self, name) > 1:
                raise ValueError(f"{name}={getattr(self, name)} must be greater than 1")


def attend(queries: Tensor, keys: Tensor, values: Tensor, mask: Mask) -> Tensor:
    """Softmax attention of (B, H, Q, d) on (B, H, K, d) under a mask; the one attention function of the lab."""
    allowed = mask.allowed
    if allowed is not None and allowed.dim() == 3:
        allowed = allowed.unsqueeze(1)  # (B, Q, K) -> every head
    if queries.device.type == "cpu" and queries.dtype == torch.bfloat16 and queries.requires_grad:
        return _attend_by_products(queries, keys, values, allowed, is_causal=mask.is_causal)
    return F.scaled_dot_product_attention(queries, keys, values, attn_mask=allowed, is_causal=mask.is_causal)


def _attend_by_products(
    queries: Tensor, keys: Tensor, values: Tensor, allowed: Tensor | None, *, is_causal: bool
) -> Tensor:
    """The same by two batched products: in training a CPU's fused kernel takes 2 to 6 times as long in bfloat16."""
    (B, H, Q, d), K = queries.shape, keys.shape[2]
    if is_causal:
        allowed = torch.ones(Q, K, dtype=torch.bool).tril()
    hidden = queries.new_zeros(()) if allowed is None else torch.zeros_like(allowed, dtype=queries.dtype)
    if allowed is not None:
        hidden = hidden.masked_fill(~allowed, -torch.inf)
    hidden = hidden.expand(B, H, Q, K).reshape(B * H, Q, K) if hidden.dim() > 2 else hidden.expand(B * H, Q, K)
    scores = torch.baddbmm(hidden, queries.flatten(0, 1), keys.flatten(0, 1).mT, alpha=1 / math.sqrt(d))
    return (scores.softmax(-1) @ values.flatten(0, 1)).view(B, H, Q, d)


class Layer(nn.Module):
    """One pre-norm transformer layer, cut where two streams need to meet.

    A one-stream layer is `queries`, `keys_values`, `attend`, `finish` on the same rows. A two-stream layer takes the
    queries of both streams and the keys and values of X alone: the weights are shared because the layer is the same.
    """

    def __init__(self, config: ARMDConfig) -> None:
        super().__init__()
        D = config.d_model
        self.n_head = config.n_head
        self.attention_norm = nn.LayerNorm(D, bias=False)
        self.query = nn.Linear(D, D, bias=False)
        self.key_value = nn.Linear(D, 2 * D, bias=False)
        self.attention_out = nn.Linear(D, D, bias=False)
        self.feed_forward_norm = nn.LayerNorm(D, bias=False)
        self.feed_forward_in = nn.Linear(D, 4 * D, bias=False)
        self.feed_forward_out = nn.Linear(4 * D, D, bias=False)
        self.dropout = nn.Dropout(config.dropout)

    def queries(self, normed: Tensor, angles: tuple[Tensor, Tensor]) -> Tensor:
        """Wq of normed rows (B, n, D), turned to their positions: (B, H, n, D/H)."""
        return rotate(rearrange(self.query(normed), "b n (h d) -> b h n d", h=self.n_head), *angles)

    def keys_values(self, normed: Tensor, angles: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Wk (turned to their positions) and Wv of normed rows (B, n, D): twice (B, H, n, D/H)."""
        keys, values = rearrange(self.key_value(normed), "b n (two h d) -> two b h n d", two=2, h=self.n_head)
        return rotate(keys, *angles), values

    def finish(self, rows: Tensor, attended: Tensor) -> Tensor:
        """Add what attention (B, H, n, D/H) brought to the rows (B, n, D), then the feed-forward."""
        rows = rows + self.dropout(self.attention_out(rearrange(attended, "b h n d -> b n (h d)")))
        hidden = F.gelu(self.feed_forward_in(self.feed_forward_norm(rows)))
        return rows + self.dropout(self.feed_forward_out(hidden))


class Transformer(nn.Module, Checkpointed):
    """What ARMD and its baselines share: embedding, BOS, rotary positions, layers, head, and text order at the border.

    Position 0 belongs to BOS, so text position p is position p + 1 inside.
    """

    def __init__(self, config: ARMDConfig) -> None:
        super().__init__()
        self.config = config
        D = config.d_model
        self.embedding = nn.Embedding(config.vocab_size, D)
        self.bos = nn.Parameter(torch.empty(D))
        self.rotary = Rotary(D // config.n_head, config.max_length + 1, config.rope_base)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.n_layer))
        self.norm = nn.LayerNorm(D, bias=False)
        self.head = nn.Linear(D, config.vocab_size, bias=False)
        if config.tie_weights:
            self.head.weight = self.embedding.weight
        self._initialise()

    def _initialise(self) -> None:
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                # GPT-2: rows that add to the residual stream start smaller, so that its size does not grow with L
                adds = name.endswith("_out.weight")
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * self.config.n_layer) if adds else 0.02)
        nn.init.normal_(self.bos, std=0.02)

    def forward(self, tokens: Tensor, order: GenerationOrder | None = None) -> Tensor:
        """Predict every token from the tokens of earlier blocks, in one pass.

        Args:
            tokens: int64 (B, N) in text order, N at most `config.max_length`.
            order: who is made when; None for left to right.

        Returns:
            Logits (B, N, V) in text order: [b, p] is log p(x_p | tokens in earlier blocks), up to a constant.

        Raises:
            ValueError: if the tokens do not fit the vocabulary (looked at on a CPU only: asking an accelerator would
                stall it), the length or the order.
        """
        order = self.check_order(tokens, order).to(tokens.device)
        made = order.to_generation_order(tokens)  # x = pi(z)
        hidden = self.hidden(made[:, :-1], order.positions[..., :-1], order.positions, Masks.one_pass(order))
        return self.head(order.to_text_order(hidden))

    def check_order(self, tokens: Tensor, order: GenerationOrder | None) -> GenerationOrder:
        """Return the order (left to right if None), or say why tokens and order do not fit this model."""
        self.check_tokens(tokens)
        order = order or GenerationOrder.left_to_right(tokens.shape[-1])
        if order.length != tokens.shape[-1] or (order.is_batched and len(order.positions) != len(tokens)):
            raise ValueError(
                f"order has positions {tuple(order.positions.shape)} but tokens are {tuple(tokens.shape)}; "
                "give one order (N,) for all rows, or one (B, N) for each"
            )
        return order

    def check_tokens(self, tokens: Tensor) -> None:
        """Say why tokens do not fit this model, if they do not; ids are looked at on a CPU only."""
        limit, vocabulary = self.config.max_length, self.config.vocab_size
        if tokens.dim() != 2 or tokens.dtype != torch.int64 or not 1 <= tokens.shape[-1] <= limit:
            raise ValueError(
                f"tokens is {tokens.dtype} of shape {tuple(tokens.shape)}; give int64 (B, N) with N from 1 to "
                f"max_length={limit}"
            )
        if tokens.device.type == "cpu" and tokens.numel() and not 0 <= tokens.min() <= tokens.max() < vocabulary:
            raise ValueError(
                f"tokens holds ids from {tokens.min()} to {tokens.max()}; this model knows 0 to {vocabulary - 1}: "
                "encode the text with the tokenizer that was saved beside the model"
            )

    def embed(self, tokens: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """BOS and int64 tokens (B, E - 1) at text positions (E - 1,) or (B, E - 1): rows (B, E, D), inner positions."""
        rows = self.embedding(tokens)
        rows = torch.cat([self.bos.to(rows.dtype).expand(len(tokens), 1, -1), rows], 1)
        return rows, F.pad(positions + 1, (1, 0))

    def hidden(self, tokens: Tensor, token_at: Tensor, target_at: Tensor, masks: Masks) -> Tensor:
        """Turn evidence into one normed row for each target.

        Args:
            tokens: int64 (B, E - 1), known tokens in generation order; BOS will stand before them.
            token_at: int64 (E - 1,) or (B, E - 1), their text positions.
            target_at: int64 (T,) or (B, T), the text positions to predict.
            masks: who may see whom.

        Returns:
            (B, T, D); the head turns it into logits.
        """
        raise NotImplementedError("a Transformer says how evidence becomes predictions: use ARMD or a baseline")

    @property
    def n_parameters(self) -> int:
        """Number of trained numbers."""
        return sum(parameter.numel() for parameter in self.parameters())


class ARMD(Transformer):
    """Auto-Regressive Masked Diffusion: strictly causal in blocks, for any order (ARMD, section 3; arXiv 2601.16971).

    Where BOS alone is seen, the norm behind prefix aggregation leaves of a target's position only the sign of
    <PE_n, PE_0>: what an order makes first, on its own, hardly knows where it stands.

    >>> model = ARMD(ARMDConfig(vocab_size=7, max_length=8, n_layer=2, n_head=2, d_model=16))
    >>> model(torch.zeros(1, 8, dtype=torch.long), GenerationOrder.strided(8, 2)).shape
    torch.Size([1, 8, 7])
    """

    def __init__(self, config: ARMDConfig) -> None:
        super().__init__(config)
        self.register_buffer("waves", waves(config.max_length + 1, config.d_position), persistent=False)
        self.amplitudes = nn.Parameter(local_amplitudes(config.d_position, config.position_base))
        self.prefix_norm = nn.LayerNorm(config.d_model, bias=False)

    def hidden(self, tokens: Tensor, token_at: Tensor, target_at: Tensor, masks: Masks) -> Tensor:
        """See `Transformer.hidden`: prefix aggregation, L2s two-stream layers, L - L2s causal layers on G."""
        x, x_at = self.embed(tokens, token_at)  # X^0
        g, g_at = self.first_targets(x, x_at, target_at + 1, masks)  # G^0
        return self.norm(self.two_streams(x, x_at, g, g_at, masks))

    def two_streams(self, x: Tensor, x_at: Tensor, g: Tensor, g_at: Tensor, masks: Masks) -> Tensor:
        """L2s layers on X and G with shared weights, keys and values (ARMD, eq. 7), then L - L2s on G alone.

        Args:
            x: X^0 (B, E, D), evidence.
            x_at: int64 (E,) or (B, E), positions of the evidence, BOS being 0.
            g: G^0 (B, T, D), targets.
            g_at: int64 (T,) or (B, T), positions of the targets.
            masks: who may see whom.

        Returns:
            G^L (B, T, D).
        """
        E = x.shape[1]
        rows = torch.cat([x, g], 1)  # both streams in one matrix product; X first
        both_at = torch.cat([x_at.expand(*g_at.shape[:-1], E), g_at], -1)
        both_angles = self.rotary.at(both_at)
        x_angles, g_angles = zip(*(table.split([E, g.shape[1]], 2) for table in both_angles), strict=True)
        for depth, layer in enumerate(self.layers[: self.config.n_two_stream], start=1):
            normed = layer.attention_norm(rows)
            keys, values = layer.keys_values(normed[:, :E], x_angles)  # of X only
            if depth == self.config.n_two_stream:  # X^L2s would feed nothing: only G goes on
                rows, normed, queries = rows[:, E:], normed[:, E:], layer.queries(normed[:, E:], g_angles)
                attended = attend(queries, keys, values, masks.target_to_evidence)
            else:
                x_queries, g_queries = layer.queries(normed, both_angles).split([E, g.shape[1]], 2)
                x_attended = attend(x_queries, keys, values, masks.evidence_to_evidence)  # X^l, M^c
                g_attended = attend(g_queries, keys, values, masks.target_to_evidence)  # G^l, M^sc
                attended = torch.cat([x_attended, g_attended], 2)
            rows = layer.finish(rows, attended)

        for layer in self.layers[self.config.n_two_stream :]:
            rows = causal_layer(layer, rows, g_angles, masks.target_to_target)
        return rows

    def position_embeddings(self) -> Tensor:
        """PE (max_length + 1, d_pe): fixed waves, a learnt amplitude for each.

        So <PE_n, PE_i> = sum_k a_k^2 cos(w_k (n - i)): how much a token counts at which distance, the same everywhere,
        in d_pe / 2 numbers however long the text. A table with a learnt row for each position, as most models have it,
        is worse: its rows are more than it has dimensions, so that far ones overlap by chance, and through the sum of
        eq. (6) a little of every far token drowns the near ones (tests/benchmarks/README.md).
        """
        return self.waves * self.amplitudes.repeat(2)

    def first_targets(self, x: Tensor, x_at: Tensor, g_at: Tensor, masks: Masks) -> tuple[Tensor, Tensor]:
        """Prefix aggregation, G^0 = ((PE PE^T) * M^sc) X, normalised (ARMD, eq. 6).

        Args:
            x: evidence rows X^0 (B, E, D).
            x_at: int64 (E,) or (B, E), their positions, BOS being 0.
            g_at: int64 (T,) or (B, T), positions of the targets.
            masks: who may see whom.

        Returns:
            G^0 (B, T, D), and its positions.
        """
        pe = self.position_embeddings()
        x_pe, g_pe = F.embedding(x_at, pe), F.embedding(g_at, pe)  # (E, d_pe), (T, d_pe), or with B in front
        # normalised, because the sum grows with the prefix
        return self.prefix_norm(aggregate(g_pe, x_pe, x, masks.target_to_evidence)), g_at


CHUNK = 512  # targets; a matrix of 512 x 512 costs less than going through the state twice


def aggregate(g_pe: Tensor, x_pe: Tensor, x: Tensor, mask: Mask) -> Tensor:
    """((PE_g PE_x^T) * M) X, a chunk of targets at a time, so that no (T, E) matrix of numbers is held or learnt from.

    Evidence that a chunk and all later ones see enters as the state S = sum_i PE_i (outer) x_i of the recurrent form;
    only what some of its targets may not see meets the chunk in the matrix form. One chunk is the matrix form itself.

    Args:
        g_pe: (T, d_pe) or (B, T, d_pe).
        x_pe: (E, d_pe) or (B, E, d_pe).
        x: (B, E, D).
        mask: who may see whom, (T, E).

    Returns:
        (B, T, D).
    """
    wide = torch.promote_types(x.dtype, torch.float32)
    state, n_read, chunks = None, 0, []
    for rows, start, stop in spans(mask, g_pe.shape[-2], x.shape[1]):
        if start > n_read:
            new = slice(n_read, start)
            read = x_pe[..., new, :].to(wide).mT @ x[:, new].to(wide)
            state, n_read = read if state is None else state + read, start
        g, new = g_pe[..., rows, :], slice(start, stop)
        kernel = g @ x_pe[..., new, :].mT  # H(n, i) = <PE_n, PE_i>
        chunk = mask.part(rows, new).apply(kernel) @ x[:, new]
        chunks.append(chunk if state is None else chunk + (g.to(wide) @ state).to(chunk.dtype))
    return torch.cat(chunks, 1) if len(chunks) > 1 else chunks[0]


def spans(mask: Mask, n_targets: int, n_evidence: int) -> Iterator[tuple[slice, int, int]]:
    """Chunks of targets, each with the columns (start, stop) of evidence in which its rows differ.

    Columns before `start` are seen by it and by all later chunks, columns from `stop` on by none of its targets.
    Under a matrix the bounds are read from it, which makes an accelerator wait once a pass.
    """
    chunks = [slice(start, min(start + CHUNK, n_targets)) for start in range(0, n_targets, CHUNK)]
    if len(chunks) == 1:
        yield chunks[0], 0, n_evidence
    elif mask.allowed is None:
        yield from (
            (rows, *((rows.start, rows.stop) if mask.is_causal else (n_evidence, n_evidence))) for rows in chunks
        )
    else:
        parts = [mask.allowed[..., rows, :].reshape(-1, n_evidence) for rows in chunks]
        see_all, see_any = (torch.stack([look(part, 0) for part in parts]) for look in (torch.all, torch.any))
        so_do_later = see_all.flip(0).int().cumprod(0).flip(0)
        starts = so_do_later.cumprod(1).sum(1)
        stops = (see_any * torch.arange(1, n_evidence + 1, device=see_any.device)).amax(1).maximum(starts)
        yield from zip(chunks, *torch.stack([starts, stops]).tolist(), strict=True)


def causal_layer(layer: Layer, rows: Tensor, angles: tuple[Tensor, Tensor], mask: Mask) -> Tensor:
    """Run an ordinary layer on (B, n, D) rows that read each other."""
    normed = layer.attention_norm(rows)
    keys, values = layer.keys_values(normed, angles)
    return layer.finish(rows, attend(layer.queries(normed, angles), keys, values, mask))
