"""Which run did a reader ask for, and what became of it? (stream viewer and race)"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from armdlab import tales
from armdlab.correcting import Corrector
from armdlab.decoding import default_order
from armdlab.orders import GenerationOrder
from armdlab.sampling import seeded
from armdlab.traces import Recorder
from armdlab.trained import Lab

CORRECTED = "corrected streams"
ORDERS = ("streams", CORRECTED, "left to right", "random")
DOUBT = Corrector(above=5.0)  # nats: a name out of sixty is 4.1 dearer where it comes first, without fault


def start_run(lab: Lab, asked: Mapping[str, Any]) -> Recorder:
    """A run that a view asked for.

    Args:
        lab: who writes.
        asked: `prompt`, `streams`, `temperature`, `order` (one of `ORDERS`) and `seed`, as the view's controls say.

    Raises:
        ValueError: if they do not suit the model; the message says what to change.
    """
    longest, prompt = lab.model.config.max_length, str(asked.get("prompt", ""))
    ids = lab.tokenizer.encode(prompt)
    if len(ids) >= longest:
        raise ValueError(f"the prompt has {len(ids)} tokens and the model can hold {longest}; shorten it")
    streams, kind = whole("streams", asked.get("streams", 1)), asked.get("order", "streams")
    if kind not in ORDERS:
        raise ValueError(f"order={kind!r} is unknown; choose {', '.join(ORDERS)}")
    new = longest - len(ids)
    if not 1 <= streams <= new:
        raise ValueError(f"streams={streams} must be from 1 to {new}, the number of tokens that are to be made")
    seed = whole("seed", asked.get("seed", 0))
    how: dict[str, Any] = {"temperature": asked.get("temperature", 1.0), "seed": seed, "prompt": ids or None}
    is_in_streams = kind in ("streams", CORRECTED)
    streams = streams if is_in_streams else 1
    length, order = longest if ids else longest // streams * streams, kind
    if hasattr(lab.model, "block_size"):  # masked diffusion: as many calls as so many streams would take
        known = torch.arange(length).unsqueeze(0) < len(ids)
        calls = default_order(known, streams).n_blocks - len(ids)
        how["order"], order = lab.denoising_order(calls, length=length, n_known=len(ids), seed=seed), "masked diffusion"
    elif kind == "random":
        first = list(range(len(ids)))
        rest = (GenerationOrder.random(new, generator=seeded(seed)).positions + len(ids)).tolist()
        how["order"] = GenerationOrder(first + rest, list(range(longest)))
    elif type(lab.model).__name__ == "AR":
        order = "left to right"
    elif is_in_streams:
        how["streams"], how["correct"] = streams, DOUBT if kind == CORRECTED else None
    settings = {"model": lab.folder.name, "order": order, "prompt": prompt}
    return Recorder(lab.engine, lab.tokenizer, settings, length=length, end=lab.tokenizer.end_of_text, **how)


def whole(name: str, value: object) -> int:
    """A number of a control, which is empty or broken while a reader types."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{name}={value!r} must be a whole number; choose one")
    return value


def verdict(text: str) -> str:
    """What a text is as a tale, in words."""
    found = tales.check(text)
    if not found:
        return "a tale, and consistent"
    if any(violation.kind == "grammar" for violation in found):
        return "no tale: the grammar cannot have written it"
    return f"reads as a tale, with {len(found)} contradiction{'s' if len(found) > 1 else ''}"
