"""What must be switched off while a model is only read?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from armdlab.model import Transformer


@contextmanager
def evaluating(model: Transformer) -> Iterator[torch.device]:
    """Switch dropout off for the while, and say on which device the model is; whoever trained it can go on."""
    was_training = model.training
    if was_training:
        model.eval()
    try:
        yield model.bos.device
    finally:
        if was_training:
            model.train()
