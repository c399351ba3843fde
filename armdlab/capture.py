"""How does a step run without being told anew what to do? (torch.compile, CUDA graphs)

A decoding run calls the network over and over on one more block, and only the cache grows. Here nothing grows: the
cache is read whole under a mask that slots make, so every call has the same shapes and the same addresses. Then a
compiler needs to see it once, and a GPU can replay its kernels as one graph, for which Python does nothing at all.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from armdlab.engine import ARMDEngine, Engine, KVCache, Trial
from armdlab.masks import Mask, Masks

OFTEN = 8  # calls of one shape in a run; below it, compiling or capturing costs more than it saves


class FixedSteps:
    """The fixed steps of one run, by their shapes; none where the engine is not compiled.

    Args:
        engine: what runs.
        cache: of the run.
        sizes: rows of evidence and of targets of each call to come.
    """

    def __init__(self, engine: Engine, cache: KVCache, sizes: Iterable[tuple[int, int]]) -> None:
        self.engine, self.cache = engine, cache
        counts = Counter(sizes) if engine.is_compiled else Counter()
        self._often = {size for size, count in counts.items() if count >= OFTEN}
        self._steps: dict[tuple[int, int], FixedStep] = {}

    def get(self, size: tuple[int, int]) -> FixedStep | None:
        """The step of this shape; None if it is too rare."""
        if size not in self._often:
            return None
        if size not in self._steps:
            self._steps[size] = FixedStep(self.engine, self.cache, *size)
        return self._steps[size]

    def forget(self) -> None:
        """Begin anew, as rows have left the batch."""
        self._steps.clear()


class FixedStep:
    """One call of an ARMD on one block after all that is known, at constant shape: its logits.

    Args:
        engine: on CUDA its kernels are captured, elsewhere its code is compiled.
        cache: of the run; a `FixedStep` belongs to it, and to its number of rows.
        n_evidence: rows of X in each call, E.
        n_targets: rows of G in each call, T.
    """

    def __init__(self, engine: ARMDEngine, cache: KVCache, n_evidence: int, n_targets: int) -> None:
        self.engine, self.cache = engine, cache
        B, device = len(cache.prefix), engine.device
        self.inputs = [
            torch.zeros(shape, dtype=torch.int64, device=device)
            for shape in ((B, n_evidence), (B, n_evidence), (B, n_targets), (1, n_evidence), (1, n_targets))
        ]  # tokens, where they stand, where the targets stand, slots of X and of G
        self._replay: Callable[[], Tensor] | None = None

    def __call__(self, tokens: Tensor, token_at: Tensor, target_at: Tensor) -> Tensor:
        """Logits (B, T, V), valid until the next call; arguments as for `ARMDEngine.hidden`."""
        taken = self.cache.next_slots(tokens.shape[1], target_at.shape[-1])
        slots = [torch.arange(new.start, new.stop, device=tokens.device) for new in taken]
        for held, given in zip(self.inputs, (tokens, token_at, target_at, *slots), strict=True):
            held.copy_(given)
        if self.engine.device.type != "cuda":
            return _compiled()(self.engine, self.cache, *self.inputs)
        self._replay = self._replay or self._capture()
        return self._replay()

    def _capture(self) -> Callable[[], Tensor]:
        """Record the kernels of a call. What rehearsals add to the prefix is taken back; slots are written again."""
        before, graph, aside = self.cache.prefix.clone(), torch.cuda.CUDAGraph(), torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(3):  # libraries choose kernels and take their memory before the recording
                logits(self.engine, self.cache, *self.inputs)
        torch.cuda.current_stream().wait_stream(aside)
        with torch.cuda.graph(graph):
            found = logits(self.engine, self.cache, *self.inputs)
        self.cache.prefix.copy_(before)

        def replay() -> Tensor:
            graph.replay()
            return found

        return replay


@functools.cache
def _compiled() -> Callable[..., Tensor]:
    return torch.compile(logits, dynamic=False)  # one for all runs: what was compiled for one serves the next


def logits(
    engine: ARMDEngine,
    cache: KVCache,
    tokens: Tensor,
    token_at: Tensor,
    target_at: Tensor,
    x_slots: Tensor,
    g_slots: Tensor,
) -> Tensor:
    """The network on rows whose slots are numbers in tensors: (B, T, V)."""
    columns = torch.arange(cache.n_slots, device=tokens.device)
    to_x, to_g = (columns <= slots[:, -1:] for slots in (x_slots, g_slots))  # (1, slots)
    E, T = x_slots.shape[1], g_slots.shape[1]
    masks = Masks(Mask(to_x.expand(E, -1)), Mask(to_x.expand(T, -1)), Mask(to_g.expand(T, -1)))
    trial = Trial(x_slots.expand(len(tokens), -1), g_slots.expand(len(tokens), -1))
    return engine.head(engine.hidden(tokens, token_at, target_at, masks, cache, trial))
