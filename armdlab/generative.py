"""How good is what a model writes, in the eyes of another? (generative perplexity, never without its conditions)

MAUVE, which sets what a model writes beside human texts, is left out: its library (mauve-text 0.4.0, of 2024) installs
with our pins, but brings faiss and scikit-learn along and by default reads texts by GPT-2 large, a download.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from armdlab.baselines import BlockDiffusion
from armdlab.corpora import is_tales
from armdlab.correcting import Corrector
from armdlab.decoding import decode_steps
from armdlab.evaluation import precision_of, strided_in_words
from armdlab.inference import evaluating
from armdlab.model import Transformer
from armdlab.objectives import nll
from armdlab.orders import GenerationOrder
from armdlab.rows import Text
from armdlab.samples import Diversity, Validity, diversity, validity
from armdlab.sampling import REVEALING, seeded
from armdlab.scores import perplexity_of
from armdlab.tokenization import Tokenizer
from armdlab.trained import Lab


@dataclass(frozen=True)
class Generated:
    """What a judge thinks of a model's samples, with all that is needed to repeat and to doubt it.

    A low perplexity alone proves nothing: repeating one word reaches it. Entropy and distinct-n fall then. The weights
    of both are those of their last step, no average (see `scores.Figure`).

    Args:
        writer: who wrote, in words.
        order: who was made when, in words.
        nats_per_token: the judge's mean over all tokens of all samples.
        standard_error: of `nats_per_token`, from the spread of the samples.
        own_nats_per_token: the writer's own exact nats, under the order in which it wrote, or read again to correct.
        entropy: nats; of the frequencies of the tokens in a sample, mean over samples (as SEDD and MDLM count it).
        entropy_error: standard error of `entropy`.
        diversity: of the words of all samples together.
        n_samples: number of samples; none is rejected.
        length: tokens in a sample.
        n_calls: network calls for a batch of samples: the most that any took, for a masking process may skip steps.
        temperature: divides the writer's logits.
        top_p: nucleus that the writer was cut to; 1 is everything.
        seed: of sampling.
        batch_size: samples written together; with `seed` it decides them.
        judge: who judges, in words; in rows of which length, and how many texts are longer.
        ids: "raw ids" where the judge reads the writer's tokens, "retokenised" where it reads the text.
        precision: of the writer's and of the judge's products, in words; chance is always drawn in float64.
        tales: of a writer of whole tales, what the grammar says of its texts up to their first end, exactly; else None.
    """

    writer: str
    order: str
    nats_per_token: float
    standard_error: float
    own_nats_per_token: float
    entropy: float
    entropy_error: float
    diversity: Diversity
    n_samples: int
    length: int
    n_calls: int
    temperature: float
    top_p: float
    seed: int
    batch_size: int
    judge: str
    ids: str
    precision: str
    tales: Validity | None = None

    @property
    def perplexity(self) -> float:
        """Exp of the mean over all tokens (not the mean of each sample's)."""
        return perplexity_of(self.nats_per_token)

    @property
    def entropy_in_bits(self) -> float:
        """Nats over ln 2: what the paper's Table 2 shows."""
        return self.entropy / math.log(2)

    def __str__(self) -> str:
        texts = f"{self.diversity}; by the grammar of tales {self.tales.shares}" if self.tales else str(self.diversity)
        return (
            f"{self.writer}, {self.order}: generative perplexity {self.perplexity:.2f} ({self.nats_per_token:.4f} +- "
            f"{self.standard_error:.4f} nats or {self.nats_per_token / math.log(2):.4f} bits a token), entropy "
            f"{self.entropy:.3f} +- {self.entropy_error:.3f} nats or {self.entropy_in_bits:.3f} bits a token; by "
            f"itself {self.own_nats_per_token:.4f} nats; {texts}. Judge: {self.judge}, {self.ids}, exp of the "
            f"mean over all tokens; {self.n_samples} samples of {self.length} tokens in {self.n_calls} network calls a "
            f"batch, temperature {self.temperature:g}, nucleus p {self.top_p:g}, seed {self.seed} in batches of "
            f"{self.batch_size}, {self.precision}, chance in float64"
        )


def generated(
    writer: Lab,
    judge: Lab,
    *,
    streams: int = 1,
    steps: int | None = None,
    length: int | None = None,
    n_samples: int = 128,
    temperature: float = 1.0,
    top_p: float | None = None,
    correct: Corrector | None = None,
    seed: int = 0,
    batch_size: int = 64,
) -> Generated:
    """Let a model write, and another one judge.

    Args:
        writer: what writes.
        judge: what judges: a left-to-right model, better than the writer, and trained apart from it. A text longer than
            its rows it reads in parts, blind across their seams; the figure says how many there were.
        streams: number of parallel streams S of the writer.
        steps: of masked diffusion: denoising steps T of ancestral sampling, of each block; then `streams` must be 1.
        length: tokens in a sample; None for the longest that the writer can hold.
        n_samples: number of samples.
        temperature: divides the writer's logits.
        top_p: nucleus that the writer is cut to; None for everything.
        correct: how the writer reads its texts again and corrects them; None for texts as they were written. Its calls
            count, and what the texts cost itself is then what they cost left to right.
        seed: of sampling; with `batch_size` it decides all samples.
        batch_size: samples written together.

    Raises:
        ValueError: if the writer is to judge itself; if `steps` is given for a model that is no masked diffusion, or
            beside `streams`; if no sample is asked for.
    """
    is_diffusion = isinstance(writer.model, BlockDiffusion)
    if steps is not None and (streams != 1 or not is_diffusion):
        raise ValueError(
            f"steps={steps} with streams={streams} for {type(writer.model).__name__}: steps are for masked diffusion "
            "alone, in place of streams"
        )
    if n_samples < 1:
        raise ValueError(f"n_samples={n_samples} must be at least 1")
    if judge.model is writer.model:
        raise ValueError("judge is the writer itself, which likes its own faults; give a model that was trained apart")
    length = writer.model.config.max_length if length is None else length
    order_of, order = _orders(writer.model, length, streams, steps, seed)
    rows, own, n_calls = [], 0.0, 0
    for i, start in enumerate(range(0, n_samples, batch_size)):
        count = min(batch_size, n_samples - start)
        tokens, nats, calls = torch.empty(count, length, dtype=torch.int64), torch.empty(count, length), 0
        chance = {"temperature": temperature, "top_p": top_p, "seed": seeded(seed, i).initial_seed()}
        how = {"order": order_of(i, count), "batch_size": count, "correct": correct}
        for step in decode_steps(writer.engine, length=length, **how, **chance):
            step.write_into(tokens)
            step.write_into(nats, -step.log_probs.float())
            calls += step.calls
        own += float(nats.double().sum())
        rows.append(tokens)
        n_calls = max(n_calls, calls)
    tokens = torch.cat(rows)
    texts = [writer.tokenizer.decode(row.tolist()) for row in tokens]
    same_ids = writer.tokenizer.fingerprint == judge.tokenizer.fingerprint
    read = list(tokens) if same_ids else [_recut(row, writer.tokenizer, judge.tokenizer) for row in tokens]
    sums, counts = _judged(judge, read)
    mean = float(sums.sum() / counts.sum())
    spread = ((sums - mean * counts) / counts.mean()).std() / math.sqrt(len(sums)) if len(sums) > 1 else math.nan
    entropies = torch.stack([_entropy(row) for row in tokens])
    return Generated(
        writer=_in_words(writer),
        order=order if correct is None else f"{order}, {correct}",
        nats_per_token=mean,
        standard_error=float(spread),
        own_nats_per_token=own / tokens.numel(),
        entropy=float(entropies.mean()),
        entropy_error=float(entropies.std() / math.sqrt(len(entropies))) if len(entropies) > 1 else math.nan,
        diversity=diversity(texts),
        n_samples=n_samples,
        length=length,
        n_calls=n_calls,
        temperature=temperature,
        top_p=1.0 if top_p is None else top_p,
        seed=seed,
        batch_size=batch_size,
        judge=f"{_in_words(judge)}, {_rows_in_words(judge, read)}",
        ids="raw ids" if same_ids else "retokenised",
        precision=f"writer in {precision_of(writer.model)}, judge in {precision_of(judge.model)}",
        tales=validity([writer.read(row) for row in tokens.tolist()]) if _writes_tales(writer) else None,
    )


def _orders(
    model: Transformer, length: int, streams: int, steps: int | None, seed: int
) -> tuple[Callable[[int, int], GenerationOrder], str]:
    """What order a batch (its number, its size) is written in, and that order in words."""
    if steps is None:
        strided = GenerationOrder.strided(length, streams)
        return lambda *_: strided, strided_in_words(streams)

    def drawn(batch: int, count: int) -> GenerationOrder:
        chance = seeded(seed, batch, REVEALING)
        return GenerationOrder.masking_process(
            length, steps, block_size=model.block_size, batch_size=count, generator=chance
        )

    where = "" if model.block_size >= length else f" for each block of {model.block_size}"
    return drawn, f"{steps} ancestral steps{where}"


@torch.no_grad()
def _judged(judge: Lab, rows: list[Tensor], batch_size: int = 16) -> tuple[Tensor, Tensor]:
    """Nats that the judge pays for each row, and how many tokens it has: twice float64 (R,).

    What is longer than the judge can read it reads in neighbouring parts, as held-out text is scored.
    """
    limit = judge.model.config.max_length
    sums = torch.zeros(len(rows), dtype=torch.float64)
    by_length: dict[int, list[tuple[int, Tensor]]] = {}
    for i, row in enumerate(rows):
        for part in row.split(limit):
            by_length.setdefault(len(part), []).append((i, part))
    with evaluating(judge.model) as device:
        for parts in by_length.values():
            for start in range(0, len(parts), batch_size):
                members, texts = zip(*parts[start : start + batch_size], strict=True)
                nats = nll(judge.model, torch.stack(texts).to(device), None, "none").cpu().double().sum(-1)
                sums.index_add_(0, torch.tensor(members), nats)
    return sums, torch.tensor([len(row) for row in rows], dtype=torch.float64)


def _rows_in_words(judge: Lab, rows: list[Tensor]) -> str:
    limit = judge.model.config.max_length
    longer = sum(len(row) > limit for row in rows)
    in_parts = f" (longer are {longer} of {len(rows)} texts, read in parts, blind across their seams)"
    return f"in rows of {limit}{in_parts * bool(longer)}"


def _recut(row: Tensor, writer: Tokenizer, judge: Tokenizer) -> Tensor:
    """A row in the ids of another tokenizer: where a text ends the judge reads its own end of a text, not its name."""
    ends = (row == writer.end_of_text).nonzero().flatten() + 1
    texts = [writer.decode(part[part != writer.end_of_text].tolist()) for part in row.tensor_split(ends)]
    return Text.encode(texts, judge).ids[:-1].long()  # the last text ends by the length of the row alone


def _entropy(row: Tensor) -> Tensor:
    shares = torch.bincount(row)[row.unique()].double() / len(row)
    return -(shares * shares.log()).sum()


def _writes_tales(lab: Lab) -> bool:
    """Whether a model was taught whole tales; one that was taught rows cut anywhere begins in the middle of one."""
    return is_tales(lab.card.get("corpus", "")) and lab.card.get("layout", "running") != "running"


def _in_words(lab: Lab) -> str:
    name, corpus = type(lab.model).__name__, lab.card.get("corpus", "a corpus that its card does not name")
    return f"{name} of {lab.model.n_parameters / 1e6:.2f} M parameters trained on {corpus}"
