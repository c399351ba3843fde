"""What lies in a folder that training wrote, or that the lab ships, and how is it used?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from armdlab import baselines, model
from armdlab.checkpoints import CONFIG, PLAN, read_json, write_json
from armdlab.decoding import generate
from armdlab.engine import Engine
from armdlab.model import Transformer
from armdlab.orders import GenerationOrder
from armdlab.sampling import REVEALING, seeded
from armdlab.tokenization import Tokenizer

CARD = "card.json"
SHIPPED = Path(__file__).resolve().parents[1] / "data" / "checkpoints"


@dataclass(frozen=True)
class Lab:
    """A trained model with everything that it needs to read and write text.

    Args:
        model: in evaluation mode.
        tokenizer: the one that it was trained with.
        card: how it was made: command, corpus, seed, steps, seconds, versions, figures; empty if unknown.
        folder: where it was loaded from.
    """

    model: Transformer
    tokenizer: Tokenizer
    card: dict[str, Any] = field(repr=False)
    folder: Path
    _engine: Engine | None = field(default=None, init=False, repr=False, compare=False)

    @property
    def fingerprint(self) -> str:
        """Those of model and tokenizer: two labs of equal fingerprint write the same, and read it alike."""
        return f"{self.model.fingerprint} {self.tokenizer.fingerprint}"

    def write(self, prompt: str = "", *, length: int | None = None, **how: Any) -> str:  # noqa: ANN401
        """Continue a prompt.

        Args:
            prompt: what the text starts with.
            length: tokens in all, prompt included; None for the longest text that the model can hold.
            how: `streams`, `temperature` and their kin, as `generate` takes them.

        Returns:
            Prompt and continuation, up to the end of the text where the model made one.
        """
        length = self.model.config.max_length if length is None else length
        how = {"end": self.tokenizer.end_of_text} | how
        return self.read(self.tokens(prompt, length=length, **how)[0].tolist())

    def read(self, ids: Sequence[int]) -> str:
        """Ids to text, up to the first end of a text: what a model makes behind it is padding, or another text."""
        ids = list(ids)
        end = self.tokenizer.end_of_text
        return self.tokenizer.decode(ids[: ids.index(end)] if end in ids else ids)

    def export(self, folder: str | Path, *, dtype: torch.dtype = torch.float16) -> None:
        """Write what is needed to use the model, and not to train it on: weights, tokenizer, card.

        Args:
            folder: made if missing.
            dtype: of the weights on disk; they are read into float32 again.

        Raises:
            ValueError: if a weight is too large for `dtype`, or the folder holds a training that could go on.
        """
        folder, largest = Path(folder), torch.finfo(dtype).max
        if (folder / PLAN).exists():
            raise ValueError(f"{folder} holds a training that --resume can go on with; export into another folder")
        for name, weight in self.model.named_parameters():
            if weight.detach().abs().max() > largest:
                raise ValueError(
                    f"{name} holds {float(weight.detach().abs().max()):g}, more than dtype={dtype} can; keep float32"
                )
        self.model.save_pretrained(folder, dtype=dtype)
        self.tokenizer.save(folder)
        write_json(folder / CARD, self.card | {"dtype_on_disk": str(dtype).removeprefix("torch.")})

    def tokens(self, prompt: str | Sequence[int] = "", **how: Any) -> torch.Tensor:  # noqa: ANN401
        """As `write`, in token ids: int64 (B, length)."""
        ids = self.tokenizer.encode(prompt) if isinstance(prompt, str) else list(prompt)
        return generate(self.engine, prompt=ids or None, **how)

    @property
    def engine(self) -> Transformer | Engine:
        """The model, packed for decoding; packed anew if it was trained on. A class of one's own stays as it is."""
        if not Engine.follows(self.model):
            return self.model
        if self._engine is None or not self._engine.is_current:
            object.__setattr__(self, "_engine", Engine.of(self.model))
        return self._engine

    def denoising_order(self, steps: int, *, length: int, n_known: int = 0, seed: int | None = None) -> GenerationOrder:
        """What `generate` takes as `order`, to write by masked diffusion in so many steps.

        Args:
            steps: denoising steps T of ancestral sampling; of each block, where there are several.
            length: tokens in all, N.
            n_known: how many of them, from the start, are a prompt.
            seed: of which token is shown when; None for a fresh one.

        Raises:
            ValueError: if the model is neither masked diffusion nor block diffusion.
        """
        if not isinstance(self.model, baselines.BlockDiffusion):
            raise ValueError(
                f"steps={steps} for {type(self.model).__name__}: denoising steps are for masked diffusion and block "
                "diffusion; leave them out, and name streams instead"
            )
        # Not the stream of chance that the tokens are drawn from: which is shown when says nothing of what it is.
        chance = seeded(torch.seed() if seed is None else seed, REVEALING)
        how = {"block_size": self.model.block_size, "known": torch.arange(length) < n_known, "generator": chance}
        return GenerationOrder.masking_process(length, steps, **how)


def load(name: str | Path, *, device: str | torch.device = "cpu") -> Lab:
    """Load a trained model with its tokenizer and card.

    Args:
        name: a folder that `armdlab train --out` wrote, or the name of a model that the lab ships.
        device: where to put the model.

    Raises:
        FileNotFoundError: if there is neither, or a file is missing in it.
        ValueError: if a file is torn, the class of the model is unknown, or model and tokenizer do not belong together.
    """
    folder = Path(name) if Path(name).is_dir() else SHIPPED / str(name)
    if not folder.is_dir():
        shipped = sorted(path.parent.name for path in SHIPPED.glob(f"*/{CONFIG}"))
        raise FileNotFoundError(
            f"{name} is no folder here and no model that the lab ships ({', '.join(shipped) or 'none yet'}); "
            "train one by `armdlab train --out DIR`"
        )
    architecture = read_json(folder / CONFIG).get("architecture", "ARMD")
    cls = getattr(model, architecture, None) or getattr(baselines, architecture, None)
    if cls is None:
        raise ValueError(f"{folder / CONFIG} describes {architecture}, which this version of armdlab does not know")
    network, tokenizer = cls.from_pretrained(folder), Tokenizer.load(folder)
    if tokenizer.vocab_size != network.config.vocab_size:
        raise ValueError(
            f"{folder} holds a tokenizer of {tokenizer.vocab_size} ids and a model of {network.config.vocab_size}; "
            "restore the files that were saved together"
        )
    card = read_json(folder / CARD) if (folder / CARD).is_file() else {}
    return Lab(network.to(device), tokenizer, card, folder)


def fastest_device(asked: str | None = None) -> torch.device:
    """The device to use a model on: the one that is asked for, else the fastest that is there.

    Raises:
        ValueError: if the device that is asked for cannot be used here.
    """
    if asked is not None:
        try:
            torch.empty(1, device=asked)
        except (RuntimeError, AssertionError):
            raise ValueError(f"device={asked} cannot be used here; `armdlab doctor` lists those that can") from None
        return torch.device(asked)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
