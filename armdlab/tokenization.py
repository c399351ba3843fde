"""How does text become numbers, and come back without a loss? (byte-level BPE, by `tokenizers`)"""

from __future__ import annotations

import hashlib
import itertools
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from armdlab.checkpoints import first_line, written_whole

FILE = "tokenizer.json"
END_OF_TEXT = "<|endoftext|>"
PROBE = "".join(map(chr, range(32, 0x180))) + "\n\t  two \u65e5\u672c \U0001f642"  # comes back from bytes alone


class Tokenizer:
    """Byte-level BPE: any text can be encoded, and decoding gives it back, byte for byte.

    Args:
        backend: a tokenizer of the library `tokenizers` that knows `END_OF_TEXT`.
    """

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        self.backend = backend
        self.backend.encode_special_tokens = True  # "<|endoftext|>" in a user's text is text
        self.end_of_text: int = backend.token_to_id(END_OF_TEXT)

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int = 1024) -> Tokenizer:
        """Learn merges from texts.

        Args:
            texts: documents.
            vocab_size: number of ids V wanted, at least 257 (every byte and the end of a text); a small corpus may
                hold fewer merges.

        Raises:
            ValueError: if `vocab_size` cannot hold every byte.
        """
        if vocab_size < 257:
            raise ValueError(f"vocab_size={vocab_size} cannot hold the 256 bytes and {END_OF_TEXT}; give 257 or more")
        backend = tokenizers.Tokenizer(models.BPE())
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=[END_OF_TEXT],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        backend.train_from_iterator(texts, trainer)
        return cls(backend)

    @classmethod
    def load(cls, folder: str | Path) -> Tokenizer:
        """Read the tokenizer that was saved in a folder.

        Raises:
            FileNotFoundError: if the folder holds none.
            ValueError: if the file is torn or no tokenizer of this lab.
        """
        path = Path(folder) / FILE
        if not path.is_file():
            raise FileNotFoundError(f"{folder} holds no {FILE}; give a folder that `armdlab train --out` wrote")
        try:
            backend = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:
            raise ValueError(f"{path} is no whole tokenizer ({error}); restore it, or train again") from None
        return cls._checked(backend, path)

    @classmethod
    def from_hub(cls, name: str) -> Tokenizer:
        """Take over a byte-level tokenizer of the Hub, such as "openai-community/gpt2".

        Raises:
            FileNotFoundError: if it could not be fetched.
            ValueError: if it has no token `END_OF_TEXT`, or is not byte-level.
        """
        try:
            backend = tokenizers.Tokenizer.from_pretrained(name)
        except Exception as error:
            raise FileNotFoundError(
                f"tokenizer {name} could not be read from the Hub ({first_line(error)}); check the name and "
                "the network, or give a number, to train one of that many ids"
            ) from None
        return cls._checked(backend, name)

    @classmethod
    def _checked(cls, backend: tokenizers.Tokenizer, where: object) -> Tokenizer:
        if backend.token_to_id(END_OF_TEXT) is None:
            raise ValueError(f"{where} has no token {END_OF_TEXT}; give the tokenizer that was saved beside the model")
        if backend.decode(backend.encode(PROBE, add_special_tokens=False).ids, skip_special_tokens=False) != PROBE:
            raise ValueError(f"{where} does not give back every text that it reads; give a byte-level tokenizer")
        return cls(backend)

    def save(self, folder: str | Path) -> None:
        """Write tokenizer.json into a folder, whole or not at all."""
        with written_whole(Path(folder) / FILE) as path:
            path.write_text(self.backend.to_str(pretty=True), encoding="utf-8")

    @property
    def fingerprint(self) -> str:
        """SHA-256 of what it is: two tokenizers of equal fingerprint cut every text alike."""
        return hashlib.sha256(self.backend.to_str().encode()).hexdigest()

    @property
    def vocab_size(self) -> int:
        """Number of ids V."""
        return self.backend.get_vocab_size()

    def encode(self, text: str) -> list[int]:
        """Text to ids."""
        return self.backend.encode(text, add_special_tokens=False).ids

    def encode_with_starts(self, text: str) -> tuple[list[int], list[int]]:
        """Text to ids, and the character of the text with which each of them begins."""
        encoding = self.backend.encode(text, add_special_tokens=False)
        return encoding.ids, [start for start, _ in encoding.offsets]

    def words(self, text: str) -> list[list[int]]:
        """Text to ids, word by word, in the sense of the tokenizer: the space before a word belongs to it.

        A mark stays with its letter, so that each word by itself decodes to whole characters. One after another they
        are `encode(text)`.
        """
        encoding = self.backend.encode(text, add_special_tokens=False)
        words: list[list[int]] = []
        for _, pairs in itertools.groupby(zip(encoding.word_ids, encoding.ids, strict=True), key=lambda pair: pair[0]):
            ids = [i for _, i in pairs]
            if words and unicodedata.category(self.decode(ids)[0]).startswith("M"):
                words[-1] += ids
            else:
                words.append(ids)
        return words

    def encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        """Texts to ids, on all cores."""
        return [encoding.ids for encoding in self.backend.encode_batch_fast(list(texts), add_special_tokens=False)]

    def decode(self, ids: Sequence[int]) -> str:
        """Ids to text; the end of a text shows as itself, bytes that are no whole character as U+FFFD."""
        return self.backend.decode(list(ids), skip_special_tokens=False)
