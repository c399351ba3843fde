"""One setting for all tests: deterministic hypothesis, no deadline on shared machines, one thread, no network."""

import os

import pytest
import torch
from hypothesis import HealthCheck, settings

os.environ["HF_HUB_OFFLINE"] = "1"
settings.register_profile(
    "armdlab", deadline=None, derandomize=True, max_examples=40, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("armdlab")
torch.set_num_threads(1)  # models of tests are tiny: a second thread only waits, and xdist brings processes


@pytest.fixture(autouse=True)
def fixed_chance():
    """Start every test from the same random state."""
    torch.manual_seed(0)
