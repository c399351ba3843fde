"""How does a model reach the disk and come back whole? (config.json and model.safetensors; never a pickle)

The Hub's own mixin brings `from_pretrained` for names on the Hub and `push_to_hub`; what is ours is that a file is
never half-written, and that what is missing, torn or of another shape is named in a sentence.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelHubMixin, hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

CONFIG, WEIGHTS, PLAN = "config.json", "model.safetensors", "training.json"

_CARD = """---
{{ card_data }}
---
# A model from armdlab

    import armdlab
    lab = armdlab.load("this folder")  # model, tokenizer, and the card that says how it was made

A model for the study of Auto-Regressive Masked Diffusion (Karami and Ghodsi, arXiv 2601.16971), or a baseline of it.
"""


class Checkpointed(ModelHubMixin, library_name="armdlab", license="apache-2.0", model_card_template=_CARD):
    """Adds `save_pretrained`, `from_pretrained` and `push_to_hub` to a model that is built from one config.

    What else a model was built from, it names in `settings`: arguments that are attributes too.
    """

    settings: tuple[str, ...] = ()

    def _save_pretrained(
        self, save_directory: Path, *, dtype: torch.dtype | None = None, step: int | None = None
    ) -> None:
        """Write weights and config; `dtype` narrows them on disk only."""
        state = {name: _detached(value, dtype) for name, value in self.state_dict().items()}
        if getattr(self.config, "tie_weights", False):
            del state["head.weight"]  # the embedding again: safetensors refuses to store one tensor twice
        write_json(save_directory / CONFIG, self.description)
        metadata = {"format": "pt"} | ({} if step is None else {"step": str(step)})
        with written_whole(save_directory / WEIGHTS) as path:
            save_file(state, path, metadata=metadata)

    @property
    def description(self) -> dict[str, Any]:
        """What config.json holds: the class, its config and its settings."""
        chosen = {name: getattr(self, name) for name in self.settings}
        return {"architecture": type(self).__name__, **asdict(self.config), **chosen}

    @property
    def fingerprint(self) -> str:
        """SHA-256 of description and weights: two models of equal fingerprint pay the same for every text."""
        digest = hashlib.sha256(to_json(self.description).encode())
        for name, value in self.state_dict().items():
            digest.update(f"{name} {value.dtype}".encode())
            digest.update(_detached(value, None).flatten().view(torch.uint8).numpy())
        return digest.hexdigest()

    def save_pretrained(
        self,
        save_directory: str | Path,
        *,
        dtype: torch.dtype | None = None,
        step: int | None = None,
        **hub: Any,  # noqa: ANN401
    ) -> str | None:
        """Save config.json and model.safetensors, each written whole or not at all.

        Args:
            save_directory: folder to save into; made if missing.
            dtype: floating type on disk, such as torch.float16; None for the weights' own.
            step: of the training that goes on from these weights, for `step_of`; None if there is none.
            hub: `repo_id`, `push_to_hub` and their kin, as `huggingface_hub.ModelHubMixin` takes them.

        Raises:
            OSError: if the folder cannot be made, or a file not be written; what it held before is still there.
        """
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        self._save_pretrained(folder, dtype=dtype, step=step)
        readme = folder / "README.md"
        if not readme.exists():
            with written_whole(readme) as path:
                path.write_text(str(self.generate_model_card()), encoding="utf-8")
        if hub.pop("push_to_hub", False):
            return self.push_to_hub(repo_id=hub.pop("repo_id", None) or folder.name, **hub)
        return None

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **hub: Any) -> Checkpointed:  # noqa: ANN401
        """Load a model from a folder that `save_pretrained` wrote, or from the Hub.

        Args:
            pretrained_model_name_or_path: a folder, or "owner/name" on the Hub.
            hub: `revision`, `token`, `cache_dir`, `local_files_only`, `force_download`.

        Returns:
            The model in evaluation mode, in float32, on the CPU.

        Raises:
            FileNotFoundError: if there is no such folder or Hub name, or a file is missing in it.
            ValueError: if a file is torn, the config is no config of this class, or it does not fit the weights.
        """
        source = str(pretrained_model_name_or_path)
        config_path, weights_path = (_fetch(source, name, hub) for name in (CONFIG, WEIGHTS))
        config, chosen = cls._read_config(config_path)
        model = cls(config, **chosen)
        try:
            state = load_file(weights_path)
        except (SafetensorError, OSError) as error:
            raise ValueError(
                f"{weights_path} is no whole safetensors file ({error}); train or download again"
            ) from None
        model._fit(state, weights_path)
        return model.eval()

    @classmethod
    def _read_config(cls, path: Path) -> tuple[Any, dict[str, Any]]:
        from armdlab.model import ARMDConfig  # the model is built on this module

        config = read_json(path)
        architecture = config.pop("architecture", cls.__name__)
        if architecture != cls.__name__:
            raise ValueError(
                f"{path} describes {architecture}, not {cls.__name__}; load it by {architecture}.from_pretrained, "
                "or by armdlab.load, which finds the class itself"
            )
        chosen = {name: config.pop(name) for name in cls.settings if name in config}
        unknown = sorted(config.keys() - {field.name for field in fields(ARMDConfig)})
        lacking = sorted(({"vocab_size", "max_length"} - config.keys()) | (set(cls.settings) - chosen.keys()))
        if unknown or lacking:
            what = f"holds unknown settings {unknown}" if unknown else f"lacks {' and '.join(lacking)}"
            raise ValueError(f"{path} {what}; it was not written by this version of armdlab")
        return ARMDConfig(**config), chosen

    def _fit(self, state: dict[str, Tensor], path: Path) -> None:
        own = self.state_dict()
        if getattr(self.config, "tie_weights", False):
            del own["head.weight"]
        if "position" in state and "position" not in own:
            raise ValueError(
                f"{path} holds a table of position embeddings, as ARMD had in earlier versions; in {CONFIG} beside it, "
                'write "TableARMD" in the place of "ARMD", and it loads as it was'
            )
        for name in sorted(own.keys() | state.keys()):
            expected, found = (tuple(tensors[name].shape) if name in tensors else "nothing" for tensors in (own, state))
            if expected != found:
                raise ValueError(
                    f"{path} does not fit its {CONFIG}: {name} should be {expected}, the file holds {found}; "
                    "restore the two files that were saved together"
                )
        self.load_state_dict(state, strict=False)


def _fetch(source: str, name: str, hub: dict[str, Any]) -> Path:
    """Find one file of a checkpoint in a folder or on the Hub."""
    folder = Path(source)
    if folder.is_dir():
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder} holds no {name}; give a folder that `armdlab train --out` wrote")
        return folder / name
    try:
        return Path(hf_hub_download(repo_id=source, filename=name, **hub))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise FileNotFoundError(
            f"{source} is no folder here and could not be read from the Hub ({first_line(error)}); "
            "check the path, or train a model by `armdlab train --out DIR`"
        ) from None


def first_line(error: BaseException) -> str:
    """What an error says, in one line; its kind, where it has no words."""
    return str(error).strip().split("\n")[0] or type(error).__name__


def step_of(path: Path) -> int | None:
    """At which step of a training a safetensors file was saved; None where it does not tell.

    Raises:
        ValueError: if the file is torn.
    """
    try:
        with safe_open(path, "pt") as opened:
            step = (opened.metadata() or {}).get("step")
    except SafetensorError as error:
        raise ValueError(f"{path} is no whole safetensors file ({error}); train again") from None
    return None if step is None else int(step)


def _detached(value: Tensor, dtype: torch.dtype | None) -> Tensor:
    value = value.detach().cpu().contiguous()
    return value.to(dtype) if dtype is not None and value.is_floating_point() else value


class WritingError(OSError):
    """A file could not be written, and holds what it held before."""


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside `path`, renamed to it once the block ends well: a file is whole or absent.

    Raises:
        WritingError: if it could not be written; what it held before is still there.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    except WritingError:
        raise  # another file, written inside the block, has said so
    except (OSError, SafetensorError) as error:  # the latter is no OSError, even where the disk is full
        raise WritingError(
            f"{path} could not be written ({error}); see that its disk has room and its folder takes files"
        ) from None
    finally:
        temporary.unlink(missing_ok=True)


def to_json(value: Any) -> str:  # noqa: ANN401
    r"""A value as readable JSON; a number that is not finite becomes null, for JSON has none.

    >>> to_json({"nats": 1.5, "standard_error": float("nan")})
    '{\n  "nats": 1.5,\n  "standard_error": null\n}'
    """
    return json.dumps(_finite(value), indent=2, allow_nan=False)


def _finite(value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(path: Path, value: Any) -> None:  # noqa: ANN401
    """Write a value as `to_json` gives it, whole or not at all."""
    with written_whole(path) as temporary:
        temporary.write_text(to_json(value) + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no JSON object.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; give a folder that `armdlab train --out` wrote")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON ({error}); restore it, or train again") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path} holds a {type(value).__name__}, not an object; restore it, or train again")
    return value


def differences(first: Mapping[str, Any], second: Mapping[str, Any], said: str = "was {}, now {}") -> str:
    """Which settings of two records differ, in words; empty where they agree in all that both of them tell.

    >>> differences({"steps": 9, "curriculum": {"rho": 2}}, {"steps": 9, "curriculum": {"rho": 3}, "new": 1})
    'rho was 2, now 3'
    """
    found = []
    for name in first:
        one, other = first[name], second.get(name, first[name])
        if isinstance(one, dict) and isinstance(other, dict):
            found.append(differences(one, other, said))
        elif one != other:
            found.append(f"{name} {said.format(one, other)}")
    return "; ".join(filter(None, found))
