"""armdlab: a lab to learn, see and use Auto-Regressive Masked Diffusion (arXiv 2601.16971)."""

from importlib.metadata import version

from armdlab import baselines, objectives
from armdlab.baselines import AR
from armdlab.correcting import Corrector
from armdlab.decoding import DecodeStep, decode_steps, generate
from armdlab.engine import Engine
from armdlab.gated import Gate
from armdlab.model import ARMD, ARMDConfig
from armdlab.orders import GenerationOrder
from armdlab.trained import Lab, load

__version__ = version("armdlab")

__all__ = [
    "AR",
    "ARMD",
    "ARMDConfig",
    "Corrector",
    "DecodeStep",
    "Engine",
    "Gate",
    "GenerationOrder",
    "Lab",
    "baselines",
    "decode_steps",
    "generate",
    "load",
    "objectives",
]
