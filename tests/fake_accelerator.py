"""An accelerator that computes, on the CPU: whatever depends on values can run there, and mistakes of device show.

Its tensors meet no others, and hold no float64, as those of MPS. To import this file changes torch for the whole
process, so tests start one of their own for it.
"""

import torch
from torch.utils import backend_registration as registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

registration._setup_privateuseone_for_python_backend("fakegpu")
# Both may read on one device and write on another
ACROSS = {torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default}


class There(torch.Tensor):
    """A tensor of the accelerator; its numbers are `held` on the CPU."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held):
        if held.dtype == torch.float64:
            raise TypeError("the fake accelerator has no float64")
        layout = {"strides": held.stride(), "storage_offset": held.storage_offset(), "dtype": held.dtype}
        it = torch.Tensor._make_wrapper_subclass(cls, held.shape, device="fakegpu:0", **layout)
        it.held = held
        return it

    def tolist(self):
        return self.held.tolist()

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return run(func, args, kwargs or {})


class FakeAccelerator(TorchDispatchMode):
    """While it is entered, tensors can be made there; `n_waits` counts how often the host waited for it to finish."""

    def __enter__(self):
        self.n_waits, self._synchronize = 0, torch.accelerator.synchronize
        torch.accelerator.synchronize = self._wait
        return super().__enter__()

    def __exit__(self, *error):
        torch.accelerator.synchronize = self._synchronize
        return super().__exit__(*error)

    def _wait(self):
        self.n_waits += 1

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return run(func, args, kwargs or {})


def run(func, args, kwargs):
    """Compute on the CPU what stands there, and send the result where a real accelerator would leave it."""
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    there = {id(tensor.held): tensor for tensor in tensors if isinstance(tensor, There)}
    if there and func not in ACROSS and any(tensor.dim() and not isinstance(tensor, There) for tensor in tensors):
        raise RuntimeError(f"{func} meets tensors of two devices")
    goes_there = isinstance(args[0], There) if func is torch.ops.aten.copy_.default else bool(there)
    if kwargs.get("device") is not None:
        goes_there = torch.device(kwargs["device"]).type == "fakegpu"
        kwargs = {**kwargs, "device": torch.device("cpu")}
    args, kwargs = tree_map(lambda leaf: leaf.held if isinstance(leaf, There) else leaf, (args, kwargs))
    found = func(*args, **kwargs)

    def send(leaf):
        if not (goes_there and isinstance(leaf, torch.Tensor)):
            return leaf
        return there[id(leaf)] if id(leaf) in there else There(leaf)  # what is written in place stays itself

    return tree_map(send, found)
