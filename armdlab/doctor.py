"""Is everything here that the lab needs, and if not, what mends it?"""

from __future__ import annotations

import importlib.metadata
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from jupyter_core.paths import jupyter_path
from packaging.requirements import Requirement

from armdlab.decoding import generate
from armdlab.model import ARMD, ARMDConfig
from armdlab.trained import SHIPPED, load

FRONT_ENDS = {"ipywidgets": "@jupyter-widgets/jupyterlab-manager", "anywidget": "anywidget"}
LEAST_DISK = 2 * 10**9  # bytes: a virtual environment, and room for a few checkpoints


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Args:
        name: what it is.
        is_ok: whether it serves.
        found: what was found.
        mend: what to do if it does not serve.
    """

    name: str
    is_ok: bool
    found: str
    mend: str

    def __str__(self) -> str:
        mend = "" if self.is_ok else f"\n       mend: {self.mend}"
        return f"{'[OK]  ' if self.is_ok else '[FAIL]'} {self.name}: {self.found}{mend}"


def examine() -> Iterator[Finding]:
    """Look at one thing after another: Python, torch and its devices, packages, front ends, disk, checkpoints."""
    version = ".".join(map(str, sys.version_info[:3]))
    yield Finding("Python", sys.version_info >= (3, 10), version, "install Python 3.10 or newer")
    yield from map(_device, _devices())
    yield from _packages()
    yield from _front_ends()
    free = shutil.disk_usage(Path.cwd()).free
    yield Finding("disk", free > LEAST_DISK, f"{free / 1e9:.1f} GB free", "free at least 2 GB")
    yield from _checkpoints()


def _devices() -> list[str]:
    found = ["cpu"]
    if torch.cuda.is_available():
        found += [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        found.append("mps")
    return found


def _device(name: str) -> Finding:
    """Write eight tokens with a tiny model: a device is fine when it works, not when it is listed."""
    what = torch.cuda.get_device_name(name) if name.startswith("cuda") else f"{torch.get_num_threads()} threads"
    try:
        model = ARMD(ARMDConfig(vocab_size=8, max_length=8, n_layer=2, n_head=2, d_model=16)).to(name)
        generate(model, length=8, streams=2, seed=0)
        return Finding(f"torch {torch.__version__} on {name}", True, f"writes text ({what})", "")
    except Exception as error:
        mend = "reinstall torch for this device, or use --device cpu"
        return Finding(f"torch {torch.__version__} on {name}", False, str(error).split("\n")[0], mend)


def _packages() -> Iterator[Finding]:
    for line in importlib.metadata.requires("armdlab") or []:
        requirement = Requirement(line)
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        mend = f"pip install '{requirement.name}{requirement.specifier}'"
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            yield Finding(requirement.name, False, "not installed", mend)
        else:
            fits = requirement.specifier.contains(version, prereleases=True)
            yield Finding(requirement.name, fits, f"{version} (needs {requirement.specifier})", mend)


def _front_ends() -> Iterator[Finding]:
    folders = [Path(folder) for folder in jupyter_path("labextensions")]
    for package, extension in FRONT_ENDS.items():
        found = any((folder / extension / "package.json").is_file() for folder in folders)
        mend = f"pip install --force-reinstall {package}, in the environment that JupyterLab runs in"
        yield Finding(f"{package} in JupyterLab", found, "served locally" if found else "front end missing", mend)


def _checkpoints() -> Iterator[Finding]:
    names = sorted(path.name for path in SHIPPED.iterdir() if path.is_dir()) if SHIPPED.is_dir() else []
    if not names:
        found = "none shipped with this version; `armdlab train` makes your own"
        yield Finding("checkpoints", True, found, "")
    for name in names:
        try:
            lab = load(SHIPPED / name)
            yield Finding(f"checkpoint {name}", True, f"{lab.model.n_parameters:,} parameters", "")
        except (OSError, ValueError) as error:
            yield Finding(f"checkpoint {name}", False, str(error), f"restore {SHIPPED / name} from the repository")
