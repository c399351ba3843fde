"""How fast are tales told and read, and what does the source of tales measure? Prints the figures.

Run it from the root of the repository: `python tests/benchmarks/tales.py` (about two minutes on one core).
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
import tempfile
import time
import timeit
from collections.abc import Callable
from pathlib import Path

from armdlab import tales
from armdlab.grammar import read
from armdlab.tales import Tale, TaleGrammar, load_grammar, tale_seed

SEED = 2026


def seconds(work: Callable[[], object], repeat: int = 5) -> float:
    """Median time of a call, in seconds, without the garbage collector, as `timeit` has it."""
    return statistics.median(timeit.repeat(work, number=1, repeat=repeat))


def speed(source: TaleGrammar, n: int) -> list[Tale]:
    """Tell n tales, read them all, and compare the derivations."""
    begun = time.perf_counter()
    told = [source.sample(tale_seed(SEED, index)) for index in range(n)]
    print(f"sampling {n:,} tales: {time.perf_counter() - begun:.1f} s")
    begun = time.perf_counter()
    same = sum(source.parse(tale.text) == tale.derivation for tale in told)
    print(f"parsing {n:,} tales: {time.perf_counter() - begun:.1f} s; derivation recovered: {same:,} of {n:,}")
    begun = time.perf_counter()
    list(tales.tales(n, SEED, source))
    print(f"tales(n={n:,}), texts only: {time.perf_counter() - begun:.1f} s")
    return told


def measures(source: TaleGrammar, told: list[Tale]) -> None:
    """Entropy in closed form and by Monte Carlo, counts and lengths."""
    surprise = [-tale.log_prob for tale in told]
    words = [len(tale.text.split()) for tale in told]
    error = statistics.stdev(surprise) / math.sqrt(len(told))
    entropy, mean_words = source.entropy(), statistics.fmean(words)
    print(f"entropy, closed form: {entropy:.4f} nats = {entropy / math.log(2):.4f} bits a tale")
    print(f"entropy, Monte Carlo: {statistics.fmean(surprise):.4f} +- {error:.4f} nats a tale")
    print(f"entropy a word: {entropy / mean_words:.4f} nats")
    print(f"distinct tales: {source.count():,} = 10^{math.log10(source.count()):.2f}")
    print(f"words a tale: {min(words)} to {max(words)}, mean {mean_words:.1f}")
    print(f"different tales among {len(told):,}: {len({tale.text for tale in told}):,}")


def tokens(source: TaleGrammar, told: list[Tale], vocabulary: int = 1024) -> None:
    """Tokens a tale under a byte-level BPE that is trained on other tales."""
    from tokenizers import ByteLevelBPETokenizer

    tokenizer = ByteLevelBPETokenizer()
    trained_on = (tale for tale in tales.tales(20_000, SEED + 1, source))
    tokenizer.train_from_iterator(trained_on, vocab_size=vocabulary, show_progress=False)
    lengths = sorted(len(tokenizer.encode(tale.text)) for tale in told[:20_000])
    mean = statistics.fmean(lengths)
    middle = lengths[len(lengths) // 2]
    print(f"tokens a tale (BPE, {vocabulary}): {lengths[0]} to {lengths[-1]}, median {middle}, mean {mean:.1f}")
    for most in (128, 160, 192, 256):
        share = sum(length <= most for length in lengths) / len(lengths)
        print(f"tales of at most {most} tokens: {share:.2%}")
    print(f"entropy a token: {source.entropy() / mean:.4f} nats")


def fuzz(source: TaleGrammar, told: list[Tale]) -> None:
    """Time to read text that is no tale, from 1 KB to 1 MB."""
    rng = random.Random(0)
    vocabulary = " ".join(tale.text for tale in told[:500]).split()
    kinds = {
        "any characters": lambda n: "".join(map(chr, rng.choices(range(1, 0xD800), k=n))),
        "one long word": lambda n: "a" * n,
        "words of tales": lambda n: " ".join(rng.choices(vocabulary, k=n // 5))[:n],
        "tales, one after another": lambda n: (" ".join(tale.text for tale in told[: n // 400 + 1]) * 2)[:n],
        "half a tale, then noise": lambda n: told[0].text[:250] + "x" * (n - 250),
    }
    for name, make in kinds.items():
        row = []
        for size in (1_000, 10_000, 100_000, 1_000_000):
            text = make(size)
            row.append(f"{seconds(lambda text=text: source.read(text)) * 1e3:.3f}")
        print(f"reading {name}, 1 KB to 1 MB: {' '.join(row)} ms")


def long_tales() -> None:
    """Time to read a text of the language, from 1 KB to 1 MB: a grammar whose one tale is that long."""
    row = []
    for size in (1_000, 10_000, 100_000, 1_000_000):
        with tempfile.TemporaryDirectory() as folder:
            line = "  [It rained|It snowed] on {hero}, and {hero.he} sang.\n" * (size // 36)
            words = "list person\n  name (name) | he (pronoun)\n  Ann | she\n  Bob | he\n"
            text = f"{words}plot p\nstory s\ncast\n  hero from person\ntext\n{line}"
            (Path(folder) / "long.txt").write_text(text, encoding="utf-8")
            source = TaleGrammar(read(folder))
        tale = source.sample(0)
        took = seconds(lambda source=source, tale=tale: source.parse(tale.text), repeat=3)
        row.append(f"{len(tale.text) / 1e3:,.0f} KB {took * 1e3:.2f} ms")
    print(f"parsing one long tale of the language: {'; '.join(row)}")


def main() -> None:
    """Print all figures."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--tales", type=int, default=100_000, help="how many tales to tell and to read")
    n = parser.parse_args().tales
    print(f"loading and checking the grammar: {seconds(lambda: read(tales.data_folder()), 3):.2f} s")
    source = load_grammar()
    told = speed(source, n)
    measures(source, told)
    tokens(source, told)
    fuzz(source, told)
    long_tales()


if __name__ == "__main__":
    main()
