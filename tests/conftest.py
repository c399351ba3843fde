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


def pytest_collection_modifyitems(items):
    """Begin with what takes longest, lessons in a browser, so that no process is left alone with it at the end."""
    items.sort(key=lambda item: ("lessons_in_jupyterlab" not in item.nodeid, "tests/ui" not in item.nodeid))


@pytest.fixture(autouse=True)
def fixed_chance():
    """Start every test from the same random state."""
    torch.manual_seed(0)


def pytest_terminal_summary(terminalreporter):
    """Say at the very end, where it is read, also under -q and -n, that tests were left out for want of a browser."""
    missing = [report for report in terminalreporter.stats.get("skipped", []) if "NO CHROMIUM" in str(report.longrepr)]
    if missing:
        terminalreporter.write_sep("!", f"{len(missing)} TESTS LEFT OUT", red=True, bold=True)
        told = (
            "NO CHROMIUM FOUND: the tests in tests/ui did not run; install one (Debian, Ubuntu: apt install chromium)"
        )
        terminalreporter.write_line(told, red=True, bold=True)
