"""How many nats above the truth is a model of tales, and what are its own tales worth?"""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch

from armdlab import tales
from armdlab.baselines import BlockDiffusion
from armdlab.evaluation import bounds_of_rows, ratio_of_sums, row_nats, rows_of, strided_in_words
from armdlab.model import Transformer
from armdlab.orders import GenerationOrder
from armdlab.rows import Layout, Rows
from armdlab.samples import Written, judge, write_tales
from armdlab.tales import TaleGrammar
from armdlab.tokenization import Tokenizer

PAGE = 84  # letters in a line of a notebook whose window is 1,100 pixels wide


@dataclass(frozen=True)
class Excess:
    """How many nats above the truth a model is: KL(tales || model) = E[-log q(tale) + log p(tale)].

    q is the chance that the model makes the tale's own tokens, their end, and the padding that they saw, under the
    order that is named. A text could be cut into tokens in other ways, and padding could be something else, which the
    reader drops as well: what the model gives to the text is at least q, so this is an upper bound on the KL of texts.
    The weights are those of the last step, no average (see `scores.Figure`).

    Args:
        nats_per_tale: the mean of the paired differences; the tales' own spread cancels in each of them.
        standard_error: of `nats_per_tale`.
        nll: -log q in nats a tale.
        nll_standard_error: of `nll`; larger than that of the difference.
        padding_nats: the part of `nll` that is for padding; 0 left to right, all of it in a bound of masked diffusion.
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

    Masked diffusion is scored by its bound, all padding included, unless an order is named (N network calls a batch).

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
        ValueError: if a text is no tale, `streams` and `order` are both given, or as `rows.Rows.encode`.
    """
    if order is not None and streams != 1:
        raise ValueError(f"streams={streams} and order={order} both say who is made when; give one of them")
    source, texts = grammar or tales.load_grammar(), list(held_out)
    if length is None:
        length = model.config.max_length if order is None else order.length
    rows = Rows.encode(texts, tokenizer, length, layout)
    truths = torch.tensor([-source.log_prob(text) for text in texts], dtype=torch.float64)
    if truths.isinf().any():
        text = texts[int(truths.isinf().nonzero()[0])]
        raise ValueError(f"{text[:40]!r} is no tale: {source.check(text)[0].sentence}; score tales of this grammar")
    words = strided_in_words(streams) if order is None else repr(order)
    if isinstance(model, BlockDiffusion) and order is None and streams == 1:
        (tokens,) = rows_of(rows, length)
        nats, is_text = bounds_of_rows(model, tokens, batch_size=batch_size), rows.is_text(tokens)
        of_text, of_padding = (nats * is_text).sum(-1), (nats * ~is_text).sum(-1)
        n_tales = (is_text & (tokens == rows.end_of_text)).sum(-1).double()
        words = "bound, random orders"
    else:
        order = order or GenerationOrder.strided(length, streams)
        of_text, of_padding, _, n_tales = row_nats(model, rows, order, batch_size)
    truth_of_rows = torch.stack([part.sum() for part in truths.split(n_tales.long().tolist())])
    price = of_text + of_padding
    mean, error = ratio_of_sums(price - truth_of_rows, n_tales)
    nll_mean, nll_error = ratio_of_sums(price, n_tales)
    padding = float(of_padding.sum() / n_tales.sum())
    sizes = (len(texts), len(rows.ids), length, layout, words)
    return Excess(mean, error, nll_mean, nll_error, padding, source.entropy(), *sizes)


@dataclass(frozen=True)
class TaleReport:
    """All that the truth allows to say about a model of tales: exact, but for the bound of masked diffusion.

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
        rows = [
            ("", [column.heading for column in self.written]),
            *((name, [*map(show, self.excess), exact]) for (name, show), exact in zip(nats, truth, strict=True)),
            *((name, [str(show(column)) for column in self.written]) for name, show in words),
        ]
        first, wide = max(len(name) for name, _ in rows), max(len(cell) for _, cells in rows for cell in cells)
        lines = ["".join([f"{name:<{first}}", *(f" {cell:>{wide}}" for cell in cells)]) for name, cells in rows] + [""]
        for column in self.written:
            if column.validity.violations:
                lines += [f"{column.writer}: {column.validity}", ""]
        conditions = (textwrap.fill(line, PAGE) for line in self.conditions.splitlines())
        return "\n".join([*lines, *conditions])


def tale_report(
    model: Transformer,
    tokenizer: Tokenizer,
    splits: Mapping[str, Mapping[str, Iterable[str]]],
    *,
    streams: Iterable[int] = (1, 2, 4),
    steps: Iterable[int] = (),
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
        steps: of masked diffusion, in place of streams: numbers of denoising steps T to compare.
        n_tales: how many held-out tales to score.
        n_samples: how many texts to sample for each S.
        length: tokens in a row; None for the longest that the model can hold.
        layout: how rows were laid out in training.
        temperature: of sampling.
        seed: of sampling, and of the source's own tales, which stand beside.
        grammar: the source; the lab's own tales if None.

    Raises:
        ValueError: if `streams` is empty, masked diffusion has no `steps` or another model some, or as `excess_nats`,
            `write_tales` and `validity`.
    """
    streams, steps = tuple(streams), tuple(steps)
    if not streams:
        raise ValueError("streams is empty; name at least one number of streams, such as (1, 2, 4)")
    if bool(steps) != isinstance(model, BlockDiffusion):
        raise ValueError(f"steps={steps} for {type(model).__name__}: masked diffusion needs some, nothing else has any")
    ways = [{"steps": count} for count in steps] or [{"streams": count} for count in streams]
    length, source = model.config.max_length if length is None else length, grammar or tales.load_grammar()
    held_out = list(itertools.islice(splits["validation"]["text"], n_tales))
    excess, texts = [], []
    for way in ways:
        scored = {"streams": way.get("streams", 1), "length": length, "layout": layout, "grammar": source}
        excess.append(excess[0] if steps and excess else excess_nats(model, tokenizer, held_out, **scored))
        writer = f"{way['steps']} denoising steps" if steps else excess[-1].order
        how = {"length": length, "temperature": temperature, "seed": seed}
        texts.append((writer, write_tales(model, tokenizer, n_samples, **way, **how)))
    own = list(tales.tales(n_samples, seed ^ 0x7A1E5, source))  # other tales than those of the corpus of `seed`
    texts.append(("the source", own))
    seen = {text for _, part in texts for text in part}.intersection(splits["train"]["text"])  # not all of it in memory
    written = [judge(writer, part, seen, grammar=source) for writer, part in texts]
    conditions = (
        f"excess and NLL: {len(held_out):,} held-out tales, {layout} rows of {length}, upper bounds on what texts cost "
        "(canonical tokens; padding counted where text made later saw it)\n"
        f"texts: {n_samples:,} of each writer, temperature {temperature:g}, nothing truncated, seed {seed}, rows of "
        f"{length}, cut at the first end of text; +- is one standard error"
    )
    return TaleReport(tuple(excess), tuple(written), conditions)
