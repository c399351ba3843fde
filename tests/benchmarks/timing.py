"""How are seconds told, so that programs are compared and not what else the machine did?"""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable, Mapping

import torch


def clock_of(device: torch.device, threads: int) -> Callable[[], float]:
    """What tells seconds: one thread of a CPU by what the processor worked for this process, all else by the wall.

    An accelerator has then done what it was asked, or the seconds would be those of asking. What several threads work
    adds up, which is not how long one waits.
    """
    if device.type == "cpu":
        return time.process_time if threads == 1 else time.perf_counter

    def when_done() -> float:
        torch.accelerator.synchronize(device)
        return time.perf_counter()

    return when_done


def take_turns(
    jobs: Mapping[object, Callable[[], object]], repeats: int, clock: Callable[[], float]
) -> dict[object, list[float]]:
    """Seconds of every job in every turn; a turn before them warms up."""
    seconds: dict[object, list[float]] = {name: [] for name in jobs}
    for turn in range(repeats + 1):
        for name, job in jobs.items():
            started = clock()
            job()
            if turn:
                seconds[name].append(clock() - started)
    return seconds


def times_as_fast(seconds: Mapping[object, list[float]], name: object, base: object) -> float | None:
    """Median over the turns of how often job `name` is done in the time of `base`; None without it."""
    if base not in seconds:
        return None
    return statistics.median(b / t for b, t in zip(seconds[base], seconds[name], strict=True))


@functools.cache
def machine(device: torch.device, threads: int, dtype: torch.dtype) -> tuple[float, float]:
    """Bytes a second that a product with one row streams, and operations a second of a large product of a dtype."""
    size, n_rows = (1024, 2**14) if device.type == "cpu" else (8192, 2**18)  # 64 MiB, 1 GiB: more than caches hold
    many, row = torch.randn(n_rows, 1024, device=device), torch.randn(1024, device=device)
    large = torch.randn(size, size, device=device, dtype=dtype)
    jobs = {"stream": lambda: many @ row, "peak": lambda: large @ large}
    taken = take_turns(jobs, 9, clock_of(device, threads))
    return many.nbytes / min(taken["stream"]), 2 * size**3 / min(taken["peak"])
