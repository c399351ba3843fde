"""How well does a model know a text, and under which order was it asked?

A figure here is a value that carries its own conditions, and says them when printed.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from armdlab.baselines import BlockDiffusion
from armdlab.counts import at_least_one
from armdlab.inference import evaluating
from armdlab.model import Transformer
from armdlab.objectives import Masking, diffusion_bound, nll
from armdlab.orders import GenerationOrder
from armdlab.packing import working_dtype
from armdlab.rows import Rows, Text
from armdlab.sampling import seeded
from armdlab.scores import Figure


@dataclass(frozen=True)
class Likelihood(Figure):
    """Exact negative log-likelihood of a text, each token scored once.

    Exact for the one order that is named. In padded rows the nats are those of the texts and of the padding that they
    saw (`rows.Rows.is_paid`).

    Args:
        nats_per_character: the same total over the characters of the text, so that tokenizers can be compared.
    """

    nats_per_character: float = math.nan

    def __str__(self) -> str:
        more = "" if math.isnan(self.nats_per_character) else f", {self.nats_per_character:.4f} nats a character"
        return f"perplexity {self.perplexity:.2f} {self._said('exact', more)}"


@torch.no_grad()
def likelihood(
    model: Transformer,
    text: Text | Rows,
    length: int,
    *,
    streams: int = 1,
    shuffled: int | None = None,
    seed: int = 0,
    batch_size: int = 16,
    name: str = "held-out text",
) -> Likelihood:
    """Score a held-out text in neighbouring rows of `length` tokens, the last one shorter, each token once.

    Args:
        model: what predicts; put into evaluation mode for the while.
        text: what is held out; where its rows are laid out already, they are scored as they are.
        length: tokens in a row, N.
        streams: score under the strided order of S streams; 1 is left to right. The last row, if it is shorter, is
            read in the largest number of streams up to S that divides it.
        shuffled: score each row under an order of its own in which that many positions exchange places, of a last row
            that is shorter at most all; `length` makes random orders.
        seed: of those orders.
        batch_size: rows scored together.
        name: what the text is, in words.

    Raises:
        ValueError: if the text is empty, `streams` does not divide `length`, or `streams` and `shuffled` are both
            given.
    """
    parts = rows_of(text, length)
    if shuffled is not None and streams != 1:
        raise ValueError(f"streams={streams} and shuffled={shuffled} both say who is made when; give one of them")

    def order_of(n_rows: int, n: int) -> GenerationOrder:
        is_whole = n == length
        if shuffled is None:
            fitting = streams if is_whole else max(s for s in range(1, streams + 1) if n % s == 0)
            return GenerationOrder.strided(n, fitting)
        count = shuffled if is_whole else min(shuffled, n)
        # drawn for all rows at once: figures must not depend on `batch_size`
        return GenerationOrder.shuffled(n, count, batch_size=n_rows, generator=seeded(seed))

    order_of(1, length)  # refuses what whole rows cannot have, be there any or not
    said = strided_in_words(streams) if shuffled is None else f"{shuffled} of {length} shuffled (seed {seed})"
    said = f"random orders (seed {seed})" if shuffled == length else said
    how = {"text": name, "precision": precision_of(model)}
    if isinstance(text, Rows):
        return _likelihood_of_rows(model, text, order_of(len(text), length), said, batch_size, how)
    orders = [order_of(*rows.shape) for rows in parts]
    with evaluating(model) as device:
        price = functools.partial(nll, model, reduction="none")
        sums = torch.cat(
            [
                price(batch.to(device), order.rows(slice(start, start + batch_size))).cpu().double().sum(-1)
                for rows, order in zip(parts, orders, strict=True)
                for start, batch in _batches(rows, batch_size)
            ]
        )
    mean, error = ratio_of_sums(sums, torch.cat([n_text_tokens(text, rows) for rows in parts]))
    per_character = float(sums.sum()) / text.n_characters if text.n_characters else math.nan
    return Likelihood(mean, error, len(text.ids), length, said, **how, nats_per_character=per_character)


def precision_of(model: Transformer) -> str:
    """What the network computes in, in words."""
    return str(working_dtype(model)).removeprefix("torch.")


def _likelihood_of_rows(
    model: Transformer,
    rows: Rows,
    order: GenerationOrder,
    said: str,
    batch_size: int,
    how: dict[str, str],
) -> Likelihood:
    of_text, of_padding, n_tokens, _ = row_nats(model, rows, order, batch_size)
    mean, error = ratio_of_sums(of_text + of_padding, n_tokens)
    per_character = float((of_text + of_padding).sum()) / rows.n_characters
    sizes = (len(rows.ids), rows.length, said, rows.layout)
    return Likelihood(mean, error, *sizes, **how, nats_per_character=per_character)


def strided_in_words(streams: int) -> str:
    """Name the strided order of S streams."""
    return "left to right" if streams == 1 else f"{streams} strided streams"


@torch.no_grad()
def row_nats(model: Transformer, rows: Rows, order: GenerationOrder, batch_size: int) -> tuple[Tensor, ...]:
    """Of each row, float64 (R,): nats of its text, nats of the padding it pays for, its tokens, and its texts.

    Args:
        model: what predicts.
        rows: what is scored.
        order: one for all rows, or one for each.
        batch_size: rows scored together.
    """
    found = []
    with evaluating(model) as device:
        for i, batch in enumerate(rows.batches(batch_size)):
            part = order.rows(slice(i * batch_size, (i + 1) * batch_size)).to("cpu")
            nats = nll(model, batch.to(device), part, "none").cpu().double()  # MPS has no float64
            is_text, is_paid = rows.is_text(batch), rows.is_paid(batch, part)
            is_end = is_text & (batch == rows.end_of_text)
            columns = (nats * is_text, nats * (is_paid & ~is_text), is_text.double(), is_end.double())
            found.append(torch.stack([column.sum(-1) for column in columns]))
    return tuple(torch.cat(found, -1))


def ratio_of_sums(totals: Tensor, counts: Tensor) -> tuple[float, float]:
    """Mean of what rows hold, (R,) over (R,), and its standard error from the spread of the rows."""
    mean = float(totals.sum() / counts.sum())
    spread = (totals - mean * counts).square().sum() / (len(totals) - 1) if len(totals) > 1 else math.nan
    return mean, math.sqrt(spread / len(totals)) / float(counts.mean())


# --------------------------------------------------------------------------------------------- masked diffusion


@dataclass(frozen=True)
class Bound(Figure):
    """The bound on the negative log-likelihood that masked diffusion is trained by; what the model pays is less.

    In padded rows all padding is paid for.

    Args:
        samples: how many states of masking were drawn for each row.
    """

    samples: int = 0

    def __str__(self) -> str:
        return f"perplexity at most {self.perplexity:.2f} {self._said(f'bound by {self.samples} maskings a row')}"


@torch.no_grad()
def bound(
    model: BlockDiffusion,
    text: Text | Rows,
    length: int,
    *,
    samples: int = 8,
    batch_size: int = 16,
    seed: int = 0,
    name: str = "held-out text",
) -> Bound:
    """Score a held-out text by the bound of masked diffusion, in the same rows as `likelihood`.

    Args:
        model: `MDLM` or `BlockDiffusion`; put into evaluation mode for the while.
        text: what is held out.
        length: tokens in a row, N.
        samples: states of masking drawn for each row.
        batch_size: rows scored together.
        seed: of what is masked.
        name: what the text is, in words.

    Raises:
        ValueError: if the text is empty, `samples` is below 1, or `model` is no masked diffusion.
    """
    if not isinstance(model, BlockDiffusion):
        raise ValueError(
            f"model={type(model).__name__} is not trained by masks and has no bound; give an MDLM or a BlockDiffusion, "
            "or call likelihood"
        )
    if samples < 1:
        raise ValueError(f"samples={samples} must be at least 1; 8 is a good start")
    parts, how = rows_of(text, length), {"samples": samples, "batch_size": batch_size, "seed": seed}
    sums = torch.cat([bounds_of_rows(model, rows, **how).sum(-1) for rows in parts])
    counts = torch.cat([n_text_tokens(text, rows) for rows in parts])
    mean, error = ratio_of_sums(sums, counts)
    layout = text.layout if isinstance(text, Rows) else ""
    inside = "" if model.block_size >= length else f" inside blocks of {model.block_size}, left to right"
    order = f"mean over random orders{inside} (seed {seed})"
    order += ", all padding paid for" if layout else ""
    sizes = (int(counts.sum()), length, order, layout, name, precision_of(model))
    return Bound(mean, error, *sizes, samples=samples)


@torch.no_grad()
def bounds_of_rows(
    model: BlockDiffusion, rows: Tensor, *, samples: int = 8, batch_size: int = 16, seed: int = 0
) -> Tensor:
    """The bound of each token of some rows int64 (R, N): float64 (R, N), nats; as `bound` explains."""
    sums = torch.zeros(rows.shape, dtype=torch.float64)
    with evaluating(model) as device:
        for sample in range(samples):
            masking = Masking.draw(*rows.shape, model.block_size, seeded(seed, sample))  # whatever the `batch_size`
            for start, batch in _batches(rows, batch_size):
                part = masking.rows(start, start + batch_size)
                nats = diffusion_bound(model, batch.to(device), part, reduction="none")
                sums[start : start + len(batch)] += nats.cpu().double() / samples
    return sums


@dataclass(frozen=True)
class AnyOrder(Figure):
    """What a model that makes its tokens in a random order pays for a text: -log of the mean probability over orders.

    The sampler of masked diffusion draws an order first, so its probability of a text is the mean over all N! orders.
    The mean over `n_orders` of them is unbiased, hence minus its logarithm too large on average: tighter than the
    bound, and never too kind to the model's rivals.

    Args:
        n_orders: how many random orders were drawn for each row, K.
        mean_of_logs: nats per token, the mean over the same orders: a sample of the bound.
        bound_error: standard error of `mean_of_logs`, from the spread of the rows.
    """

    n_orders: int = 0
    mean_of_logs: float = math.nan
    bound_error: float = math.nan

    @property
    def bound(self) -> Bound:
        """What the bound says of the same rows by the same orders; never below this figure (Jensen)."""
        shared = {field.name: getattr(self, field.name) for field in fields(Figure)}
        shared |= {"nats_per_token": self.mean_of_logs, "standard_error": self.bound_error}
        return Bound(**shared | {"order": f"all steps of {self.order}"}, samples=self.n_orders)

    def __str__(self) -> str:
        kind = f"exact in the limit, log-mean-exp over {self.n_orders} random orders a row"
        return f"perplexity {self.perplexity:.2f} {self._said(kind, f'; mean of logs {self.mean_of_logs:.4f}')}"


@torch.no_grad()
def any_order(
    model: Transformer,
    text: Text | Rows,
    length: int,
    *,
    n_orders: int = 8,
    n_rows: int | None = None,
    batch_size: int = 16,
    seed: int = 0,
    name: str = "held-out text",
) -> AnyOrder:
    """Score a text by the probability that it is made in a random order (Eso-LMs' figure for MDLM).

    Masked diffusion needs N network calls for each order and batch; `ARMD` needs one.

    Args:
        model: what predicts, in any order.
        text: what is held out.
        length: tokens in a row, N.
        n_orders: random orders for each row, K.
        n_rows: rows to score, evenly spread over the whole ones of the text; None for all.
        batch_size: rows scored together.
        seed: of the orders.
        name: what the text is, in words.

    Raises:
        ValueError: if the text is empty, or `n_orders` or `n_rows` is below 1.
    """
    if n_orders < 1:
        raise ValueError(f"n_orders={n_orders} must be at least 1; 8 is a good start")
    parts = rows_of(text, length) if n_rows is None else [spread_rows(text, length, n_rows)]
    logs = torch.cat([_log_chances(model, rows, n_orders, batch_size, seed) for rows in parts], -1)
    counts = torch.cat([n_text_tokens(text, rows) for rows in parts])
    mean, error = ratio_of_sums(math.log(n_orders) - logs.logsumexp(0), counts)
    at_most, bound_error = ratio_of_sums(-logs.mean(0), counts)
    layout = text.layout if isinstance(text, Rows) else ""
    sizes = (int(counts.sum()), length, f"random orders (seed {seed})", layout, name, precision_of(model))
    return AnyOrder(mean, error, *sizes, n_orders=n_orders, mean_of_logs=at_most, bound_error=bound_error)


def _log_chances(model: Transformer, rows: Tensor, n_orders: int, batch_size: int, seed: int) -> Tensor:
    """Log-probability of each row under random orders of its own: float64 (K, R)."""
    R, N = rows.shape
    logs = torch.zeros(n_orders, R, dtype=torch.float64)
    with evaluating(model) as device:
        for k in range(n_orders):
            order = GenerationOrder.random(N, batch_size=R, generator=seeded(seed, k))
            for start, batch in _batches(rows, batch_size):
                nats = nll(model, batch.to(device), order.rows(slice(start, start + batch_size)), "none").cpu().double()
                logs[k, start : start + len(batch)] = -nats.sum(-1)
    return logs


def _batches(rows: Tensor, size: int) -> Iterator[tuple[int, Tensor]]:
    """Neighbouring rows, with the number of the first."""
    size = at_least_one("batch_size", size)
    return ((start, rows[start : start + size]) for start in range(0, len(rows), size))


def n_text_tokens(text: Text | Rows, rows: Tensor) -> Tensor:
    """How many tokens of text each of some rows holds, padding left out: float64 (R,)."""
    if isinstance(text, Rows):
        return text.is_text(rows).sum(-1).double()
    return torch.full((len(rows),), rows.shape[1], dtype=torch.float64)


def spread_rows(text: Text | Rows, length: int, n_rows: int) -> Tensor:
    """At most `n_rows` of the rows of a text, evenly spread over it: int64 (R, N).

    They are whole ones, but for a text that is shorter than one.

    Raises:
        ValueError: if `n_rows` is below 1, or the text is empty.
    """
    if n_rows < 1:
        raise ValueError(f"n_rows={n_rows} must be at least 1, or None for all")
    rows = rows_of(text, length)[0]
    return rows[torch.linspace(0, len(rows) - 1, min(n_rows, len(rows))).round().long()]


def rows_of(text: Text | Rows, length: int) -> list[Tensor]:
    """The rows of a held-out text: int64 (R, N), then of running text a last one that is shorter, (1, n).

    Every figure of a text is over these, so that models are compared on the very same tokens.

    Raises:
        ValueError: if the text is empty.
    """
    if not len(text.ids):
        raise ValueError("the text to score is empty; hold out a larger share, or give more text")
    if isinstance(text, Rows):
        return [torch.cat(list(text.batches(256)))]
    whole, rest = text.ids.long().tensor_split([len(text.ids) // length * length])
    return [rows for rows in (whole.view(-1, length), rest[None]) if rows.numel()]


def held_out_figure(
    model: Transformer, text: Text | Rows, length: int, *, name: str = "held-out text"
) -> Likelihood | Bound:
    """What a model is trained to lower, on held-out text: exact left to right, or the bound of masked diffusion."""
    return (bound if isinstance(model, BlockDiffusion) else likelihood)(model, text, length, name=name)
