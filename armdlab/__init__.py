"""armdlab: a lab to learn, see and use Auto-Regressive Masked Diffusion (arXiv 2601.16971)."""

from armdlab.baselines import AR
from armdlab.decoding import DecodeStep, decode_steps, generate
from armdlab.model import ARMD, ARMDConfig
from armdlab.orders import GenerationOrder

__all__ = [
    "AR",
    "ARMD",
    "ARMDConfig",
    "DecodeStep",
    "GenerationOrder",
    "decode_steps",
    "generate",
]
