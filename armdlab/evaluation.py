"""How well does a model know a text, and under which order was it asked?

A figure here is a value that carries its own conditions, and says them when printed.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from armdlab import tales
from armdlab.model import Transformer
from armdlab.objectives import nll
from armdlab.orders import GenerationOrder
from armdlab.rows import Layout, Rows, Text
from armdlab.samples import Written, diversity, judge, novelty, validity, write_tales
from armdlab.tales import TaleGrammar
from armdlab.tokenization import Tokenizer

__all__ = [
    "Excess",
    "Likelihood",
    "TaleReport",
    "diversity",
    "excess_nats",
    "likelihood",
    "novelty",
    "tale_report",
    "validity",
    "write_tales",
]


@dataclass(frozen=True)
class Likelihood:
    """Exact negative log-likelihood of a text, each token scored once.

    Exact for the one order that is named; a mean over several orders would be a bound on what any-order models can say.

    Args:
        nats_per_token: mean over all tokens, ends of texts included, positions 0 of rows included.
        nats_per_character: the same total over the characters of the text, so that tokenizers can be compared.
        standard_error: of `nats_per_token`, from the spread of the rows; nan where there is one row.
        n_tokens: how many tokens were scored.
        length: tokens in a row; what stands further back is not seen.
        order: who was made when, in words.
        layout: "padded" or "packed" where rows hold whole texts; empty where they are cut from running text. The nats
            are then those of the texts and of the padding that they saw (`corpora.Rows.is_paid`).
    """

    nats_per_token: float
    nats_per_character: float
    standard_error: float
    n_tokens: int
    length: int
    order: str
    layout: str = ""

    @property
    def perplexity(self) -> float:
        """Exp of the nats per token."""
        return math.exp(self.nats_per_token)

    @property
    def bits_per_token(self) -> float:
        """Nats over ln 2."""
        return self.nats_per_token / math.log(2)

    def __str__(self) -> str:
        return (
            f"perplexity {self.perplexity:.2f} ({self.nats_per_token:.4f} +- {self.standard_error:.4f} nats or "
            f"{self.bits_per_token:.4f} bits a token, {self.nats_per_character:.4f} nats a character; exact, "
            f"{self.order}, {self.n_tokens:,} tokens in {self.layout}{' ' * bool(self.layout)}rows of {self.length})"
        )


@torch.no_grad()
def likelihood(
    model: Transformer, text: Text | Rows, length: int, *, streams: int = 1, batch_size: int = 16
) -> Likelihood:
    """Score a held-out text in neighbouring rows of `length` tokens, the last one shorter, each token once.

    Args:
        model: what predicts; put into evaluation mode for the while.
        text: what is held out; where its rows are laid out already, they are scored as they are.
        length: tokens in a row, N.
        streams: score under the strided order of S streams; 1 is left to right. The last row, if it is shorter, is
            read in the largest number of streams up to S that divides it.
        batch_size: rows scored together.

    Raises:
        ValueError: if the text is empty, or `streams` does not divide `length`.
    """
    if not len(text.ids):
        raise ValueError("the text to score is empty; hold out a larger share, or give more text")
    if isinstance(text, Rows):
        return _likelihood_of_rows(model, text, streams, batch_size)
    was_training, device = model.training, model.bos.device
    model.eval()
    n_whole = len(text.ids) // length
    whole, rest = text.ids[: n_whole * length].view(n_whole, length), text.ids[n_whole * length :]
    order = GenerationOrder.strided(length, streams)
    batches = whole.split(batch_size) if n_whole else ()
    rows = [nll(model, batch.to(device), order, "none").double().sum(-1) for batch in batches]
    sums = torch.cat(rows).cpu() if rows else torch.empty(0, dtype=torch.float64)
    total = float(sums.sum())
    if len(rest):
        fitting = max(s for s in range(1, streams + 1) if len(rest) % s == 0)
        total += float(nll(model, rest[None].to(device), GenerationOrder.strided(len(rest), fitting), "sum").double())
    model.train(was_training)
    return Likelihood(
        total / len(text.ids),
        total / text.n_characters,
        float(sums.std() / length / math.sqrt(n_whole)) if n_whole > 1 else math.nan,
        len(text.ids),
        length,
        _in_words(streams),
    )


def _likelihood_of_rows(model: Transformer, rows: Rows, streams: int, batch_size: int) -> Likelihood:
    order = GenerationOrder.strided(rows.length, streams)
    of_text, of_padding, n_tokens, _ = _row_nats(model, rows, order, batch_size)
    mean, error = _ratio(of_text + of_padding, n_tokens)
    per_character = float((of_text + of_padding).sum()) / rows.n_characters
    return Likelihood(mean, per_character, error, len(rows.ids), rows.length, _in_words(streams), rows.layout)


def _in_words(streams: int) -> str:
    return "left to right" if streams == 1 else f"{streams} strided streams"


@torch.no_grad()
def _row_nats(model: Transformer, rows: Rows, order: GenerationOrder, batch_size: int) -> tuple[Tensor, ...]:
    """Of each row, float64 (R,): nats of its text, nats of the padding it pays for, its tokens, and its texts."""
    was_training, device = model.training, model.bos.device
    model.eval()
    order, found = order.to(device), []
    for batch in rows.batches(batch_size):
        tokens = batch.to(device)
        nats = nll(model, tokens, order, "none").double()
        is_text, is_paid = rows.is_text(tokens), rows.is_paid(tokens, order)
        is_end = is_text & (tokens == rows.end_of_text)
        columns = (nats * is_text, nats * (is_paid & ~is_text), is_text.double(), is_end.double())
        found.append(torch.stack([column.sum(-1) for column in columns]).cpu())
    model.train(was_training)
    return tuple(torch.cat(found, -1))


def _ratio(totals: Tensor, counts: Tensor) -> tuple[float, float]:
    """Mean of what rows hold, (R,) over (R,), and its standard error from the spread of the rows."""
    mean = float(totals.sum() / counts.sum())
    spread = (totals - mean * counts).square().sum() / (len(totals) - 1) if len(totals) > 1 else math.nan
    return mean, math.sqrt(spread / len(totals)) / float(counts.mean())


# ------------------------------------------------------------------------------------- tales: above the truth


@dataclass(frozen=True)
class Excess:
    """How many nats above the truth a model is: KL(tales || model) = E[-log q(tale) + log p(tale)].

    q is the chance that the model makes the tale's own tokens, their end, and the padding that they saw, under the
    order that is named. A text could be cut into tokens in other ways, and padding could be something else, which the
    reader drops as well: what the model gives to the text is at least q, so this is an upper bound on the KL of texts.

    Args:
        nats_per_tale: the mean of the paired differences; the tales' own spread cancels in each of them.
        standard_error: of `nats_per_tale`.
        nll: -log q in nats a tale.
        nll_standard_error: of `nll`; larger than that of the difference.
        padding_nats: the part of `nll` that is for padding; 0 left to right.
        entropy: of the source in closed form, nats a tale.
        n_tales: how many held-out tales were scored.
        n_tokens: how many tokens they have, their ends included.
        length: tokens in a row.
        layout: "padded" or "packed"; packed, a tale is read with those before it in sight.
        order: who was made when, in words.
    """

    nats_per_tale: float
    standard_error: float
    nll: float
    nll_standard_error: float
    padding_nats: float
    entropy: float
    n_tales: int
    n_tokens: int
    length: int
    layout: Layout
    order: str

    def __str__(self) -> str:
        return (
            f"{self.nats_per_tale:.3f} +- {self.standard_error:.3f} nats a tale above the truth (NLL {self.nll:.3f} +- "
            f"{self.nll_standard_error:.3f}, {self.padding_nats:.3f} of it for padding; entropy {self.entropy:.3f}; "
            f"an upper bound on the KL of texts, by canonical tokens; {self.order}, {self.n_tales:,} tales of "
            f"{self.n_tokens / self.n_tales:.1f} tokens in {self.layout} rows of {self.length})"
        )


def excess_nats(
    model: Transformer,
    tokenizer: Tokenizer,
    held_out: Iterable[str],
    *,
    streams: int = 1,
    order: GenerationOrder | None = None,
    length: int | None = None,
    layout: Layout = "padded",
    grammar: TaleGrammar | None = None,
    batch_size: int = 16,
) -> Excess:
    """Compare a model with the truth, exactly: its NLL of held-out tales minus the source's own.

    Args:
        model: what predicts.
        tokenizer: the one that it was trained with.
        held_out: tales that it has not seen.
        streams: score under the strided order of S streams; 1 is left to right.
        order: an order of your own in place of that, without a batch axis.
        length: tokens in a row; None for the longest that the model can hold.
        layout: how tales are laid into rows, as in training.
        grammar: the source; the lab's own tales if None.
        batch_size: rows scored together.

    Raises:
        ValueError: if a text is no tale, `streams` and `order` are both given, or as `corpora.Rows.encode`.
    """
    if order is not None and streams != 1:
        raise ValueError(f"streams={streams} and order={order} both say who is made when; give one of them")
    source, texts = grammar or tales.load_grammar(), list(held_out)
    length = length or (order.length if order is not None else model.config.max_length)
    rows = Rows.encode(texts, tokenizer, length, layout)
    truths = torch.tensor([-source.log_prob(text) for text in texts], dtype=torch.float64)
    if truths.isinf().any():
        text = texts[int(truths.isinf().nonzero()[0])]
        raise ValueError(f"{text[:40]!r} is no tale: {source.check(text)[0].sentence}; score tales of this grammar")
    words = _in_words(streams) if order is None else repr(order)
    of_text, of_padding, _, n_tales = _row_nats(
        model, rows, order or GenerationOrder.strided(length, streams), batch_size
    )
    truth_of_rows = torch.stack([part.sum() for part in truths.split(n_tales.long().tolist())])
    price = of_text + of_padding
    mean, error = _ratio(price - truth_of_rows, n_tales)
    nll_mean, nll_error = _ratio(price, n_tales)
    padding = float(of_padding.sum() / n_tales.sum())
    sizes = (len(texts), len(rows.ids), length, layout, words)
    return Excess(mean, error, nll_mean, nll_error, padding, source.entropy(), *sizes)


# -------------------------------------------------------------------------------------- tales: all in a table


@dataclass(frozen=True)
class TaleReport:
    """All that can be said exactly about a model of tales.

    Args:
        excess: nats above the truth, one for each number of streams.
        written: what was sampled, one for each number of streams; then as many tales of the source itself.
        conditions: how it was sampled, in words.
    """

    excess: tuple[Excess, ...]
    written: tuple[Written, ...]
    conditions: str

    def __str__(self) -> str:
        """The whole table."""
        wide = max(len("source"), *(len(column.writer) for column in self.written)) + 2
        wide = max(wide, 18)
        nats = [
            ("excess, nats a tale", lambda e: f"{e.nats_per_tale:.3f} +- {e.standard_error:.3f}"),
            ("NLL, nats a tale", lambda e: f"{e.nll:.3f} +- {e.nll_standard_error:.3f}"),
            ("  of it for padding", lambda e: f"{e.padding_nats:.3f}"),
        ]
        words = [
            ("parse", lambda w: w.validity.parses),
            ("consistent", lambda w: w.validity.is_consistent),
            ("new, of the consistent", lambda w: w.novelty),
            ("nats a word", lambda w: f"{w.diversity.nats_per_word:.3f}"),
            *((f"distinct-{n}", lambda w, n=n: f"{w.diversity.distinct[n - 1]:.3f}") for n in (1, 2, 3)),
            ("different texts", lambda w: f"{w.diversity.different:.3f}"),
        ]
        truth = ["0", f"{self.excess[0].entropy:.3f}", "0"]
        lines = [
            _line("", [column.writer for column in self.written], wide),
            *(
                _line(name, [*map(show, self.excess), exact], wide)
                for (name, show), exact in zip(nats, truth, strict=True)
            ),
            *(_line(name, map(show, self.written), wide) for name, show in words),
            "",
        ]
        for column in self.written:
            if column.validity.violations:
                lines += [f"{column.writer}: {column.validity}", ""]
        return "\n".join([*lines, self.conditions])


def _line(name: str, cells: Iterable[object], wide: int) -> str:
    return f"{name:<24}" + "".join(f"{cell!s:>{wide}}" for cell in cells)


def tale_report(
    model: Transformer,
    tokenizer: Tokenizer,
    splits: Mapping[str, Mapping[str, Iterable[str]]],
    *,
    streams: Iterable[int] = (1, 2, 4),
    n_tales: int = 400,
    n_samples: int = 200,
    length: int | None = None,
    layout: Layout = "padded",
    temperature: float = 1.0,
    seed: int = 0,
    grammar: TaleGrammar | None = None,
) -> TaleReport:
    """Measure a model of tales in every way that is exact: nats above the truth, and what its own tales are worth.

    Args:
        model: what predicts and writes.
        tokenizer: the one that it was trained with.
        splits: what `corpora.load("tales")` gave for its training.
        streams: numbers of streams S to compare.
        n_tales: how many held-out tales to score.
        n_samples: how many texts to sample for each S.
        length: tokens in a row; None for the longest that the model can hold.
        layout: how rows were laid out in training.
        temperature: of sampling.
        seed: of sampling, and of the source's own tales, which stand beside.
        grammar: the source; the lab's own tales if None.

    Raises:
        ValueError: if `streams` is empty, or as `excess_nats`, `write_tales` and `validity`.
    """
    streams = tuple(streams)
    if not streams:
        raise ValueError("streams is empty; name at least one number of streams, such as (1, 2, 4)")
    length, source = length or model.config.max_length, grammar or tales.load_grammar()
    held_out, seen = list(itertools.islice(splits["validation"]["text"], n_tales)), set(splits["train"]["text"])
    excess, written = [], []
    for count in streams:
        excess.append(
            excess_nats(model, tokenizer, held_out, streams=count, length=length, layout=layout, grammar=source)
        )
        texts = write_tales(
            model, tokenizer, n_samples, streams=count, length=length, temperature=temperature, seed=seed
        )
        written.append(judge(excess[-1].order, texts, seen, grammar=source))
    own = list(tales.tales(n_samples, seed ^ 0x7A1E5, source))  # other tales than those of the corpus of `seed`
    written.append(judge("the source", own, seen, grammar=source))
    conditions = (
        f"excess and NLL: {len(held_out):,} held-out tales, {layout} rows of {length}, upper bounds on what texts cost "
        "(canonical tokens; padding counted where text made later saw it)\n"
        f"texts: {n_samples:,} of each writer, temperature {temperature:g}, nothing truncated, seed {seed}, rows of "
        f"{length}, cut at the first end of text; +- is one standard error"
    )
    return TaleReport(tuple(excess), tuple(written), conditions)
