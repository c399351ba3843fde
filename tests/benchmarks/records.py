"""Under which settings was a row measured, and which file holds it?"""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path
from typing import Any

import torch

# Rows of one name are different rows where one of these differs
SETTINGS = ("what", "length", "batch", "layers", "width", "vocab", "precision", "device", "threads")
SETTINGS += ("torch", "processor")

Row = dict[str, Any]


def settings(args: argparse.Namespace) -> Row:
    """Everything that a row depends on beside its name, and how often it was measured."""
    made_by = {"device": str(args.device), "torch": torch.__version__, "processor": processor(args.device)}
    how_often = {"repeats": args.repeats, "samples": args.samples}
    return {name: made_by[name] if name in made_by else getattr(args, name) for name in SETTINGS} | how_often


def read(path: Path) -> list[Row]:
    """The rows of a file, each with its settings; none if there is no file. Older files name settings once for all."""
    if not path.exists():
        return []
    held = json.loads(path.read_text(encoding="utf-8"))
    for_all = {"device": "cpu", **held.get("settings", {})} | {key: held[key] for key in SETTINGS if key in held}
    for_all.pop("streams", None)
    return [{"row": row["row"], **({} if "what" in row else for_all), **row} for row in held["found"]]


def add_to(path: Path, rows: list[Row]) -> list[Row]:
    """Put rows into a file, in the place of those of the same name and settings; return all of these settings."""
    by_key = {(row["row"], _key(row)): row for row in [*read(path), *rows]}
    path.write_text(json.dumps({"found": list(by_key.values())}, indent=1) + "\n", encoding="utf-8")
    now = {_key(row) for row in rows}
    return [row for row in by_key.values() if _key(row) in now]


def processor(device: torch.device) -> str:
    """What this machine calls what computes: its GPU, or its processor (Linux), else what Python knows."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(": ", 1)[1] for line in lines if line.startswith("model name")), platform.processor())


def _key(row: Row) -> tuple[Any, ...]:
    return tuple(row.get(name) for name in SETTINGS)
