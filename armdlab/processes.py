"""Which processes train one model together, and where? (a thin front of `accelerate`)"""

from __future__ import annotations

import os

import accelerate
import torch


def accelerator_of_all() -> accelerate.Accelerator:
    """Accelerate, at the head of every process that was launched.

    Raises:
        ValueError: if it knows of fewer: each would learn the same alone, and write into one folder.
    """
    accelerator, launched = accelerate.Accelerator(), int(os.environ.get("WORLD_SIZE") or 1)
    if accelerator.num_processes < launched:
        raise ValueError(
            f"WORLD_SIZE={launched} processes were launched, and Accelerate knows of {accelerator.num_processes}; "
            "for processes on CPUs set ACCELERATE_USE_CPU=true, to train alone unset WORLD_SIZE"
        )
    return accelerator


def any_process(accelerator: accelerate.Accelerator, flag: bool) -> bool:
    """Whether it is true in any of the processes: what one of them wants, all do at the same step."""
    if accelerator.num_processes == 1:
        return flag
    return bool(accelerator.reduce(torch.tensor(float(flag), device=accelerator.device), "sum"))
