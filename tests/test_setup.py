"""Laws of the set-up: three ways to one set of packages, and two commands that say what they do."""

import importlib.metadata
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import yaml
from packaging.markers import default_environment
from packaging.requirements import Requirement

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PINS = [Requirement(line) for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()]


def canonical(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def pins_here():
    """Name -> pinned version, on this Python and platform."""
    return {
        canonical(pin.name): str(pin.specifier).removeprefix("==")
        for pin in PINS
        if pin.marker is None or pin.marker.evaluate()
    }


def test_every_constraint_is_an_exact_pin():
    for pin in PINS:
        assert [spec.operator for spec in pin.specifier] == ["=="], str(pin)
    assert pins_here()["torch"] == "2.13.0"


def test_every_declared_dependency_is_pinned_above_its_floor():
    declared = PROJECT["dependencies"] + [line for extra in PROJECT["optional-dependencies"].values() for line in extra]
    for requirement in map(Requirement, declared):
        version = pins_here()[canonical(requirement.name)]
        assert requirement.specifier.contains(version), f"{requirement} but {version} is pinned"
        assert all(spec.operator == ">=" for spec in requirement.specifier), "floors only: Colab keeps what it has"


def test_everything_that_armdlab_pulls_in_is_pinned():
    """The closure of requirements, as installed; wheels of CUDA are pinned by torch itself."""
    pins, seen, queue = pins_here(), set(), [("armdlab", frozenset(["test"]))]
    while queue:
        name, extras = queue.pop()
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        try:
            lines = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue  # an optional one for another platform
        for requirement in map(Requirement, lines):
            wanted = [{**default_environment(), "extra": extra} for extra in {"", *extras}]
            if requirement.marker is None or any(requirement.marker.evaluate(where) for where in wanted):
                queue.append((canonical(requirement.name), frozenset(requirement.extras)))
    names = {name for name, _ in seen} - {"armdlab", "pip", "setuptools"}
    loose = {name for name in names - pins.keys() if not name.startswith(("nvidia-", "cuda-", "triton"))}
    assert not loose


def test_conda_reaches_the_same_set_by_the_same_pins():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    specs = [spec for spec in environment["dependencies"] if isinstance(spec, str)]
    (by_pip,) = [spec["pip"] for spec in environment["dependencies"] if isinstance(spec, dict)]
    assert by_pip == ["--constraint constraints.txt", "--editable .[test]"]
    (python,) = [spec.split("=")[1] for spec in specs if spec.startswith("python=")]
    assert tuple(map(int, python.split("."))) >= (3, 10)
    assert PROJECT["requires-python"] == ">=3.10"
    assert any(spec.startswith("pip") for spec in specs)


def test_conda_specs_are_well_formed():
    rattler = pytest.importorskip("rattler", reason="py-rattler is not installed: it reads conda specs offline")
    from rattler.exceptions import InvalidMatchSpecError

    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    for spec in environment["dependencies"]:
        if isinstance(spec, str):
            assert rattler.MatchSpec(spec).name is not None
    with pytest.raises(InvalidMatchSpecError):
        rattler.MatchSpec("python >=3.x.y,,")


def test_readme_opens_with_a_picture_and_the_two_commands():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    top = readme[: readme.index("## ")]
    assert re.search(r"!\[[^\]]{40,}\]\((data/pictures/[^)]+\.png)\)", top), "a picture with an alt text"
    assert "make lab" in top
    assert "make test" in top
    for target in re.findall(r"\]\((?!http|#)([^)#]+)\)", readme):
        assert (ROOT / target).exists(), f"README links to {target}, which is not there"
    for command in re.findall(r"\bmake ([a-z]+)\b", readme):
        assert re.search(rf"^{command}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE), command


def make(*arguments, **environment):
    return subprocess.run(
        ["make", "--no-print-directory", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        check=False,
    )


needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed (Windows has no make)")


@needs_make
def test_an_old_python_is_refused_with_a_sentence(tmp_path):
    old = tmp_path / "python3"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo "Python 3.8.18" && exit 0\nexit 1\n')
    old.chmod(0o755)
    run = make("lab", f"PYTHON={old}", f"VENV={tmp_path / 'venv'}")
    assert run.returncode != 0
    assert f"armdlab needs Python 3.10 or newer; {old} is Python 3.8.18." in run.stdout
    assert not (tmp_path / "venv").exists()


@needs_make
def test_a_missing_network_is_named_and_nothing_counts_as_ready(tmp_path):
    run = make(
        "lab",
        f"PYTHON={sys.executable}",
        f"VENV={tmp_path / 'venv'}",
        PIP_INDEX_URL="http://127.0.0.1:9/simple",
        PIP_EXTRA_INDEX_URL="",
        PIP_FIND_LINKS="",
        PIP_RETRIES="0",
        PIP_CONFIG_FILE=os.devnull,
    )
    assert run.returncode != 0
    assert "check the network and run the same command again" in run.stdout
    assert not (tmp_path / "venv" / "ready").exists()


@needs_make
@pytest.mark.skipif(not (ROOT / ".venv" / "ready").exists(), reason="set up by other means than make: no .venv/ready")
def test_make_lab_opens_a_server_on_the_first_lesson_within_seconds(tmp_path):
    environment = {
        **os.environ,
        "DISPLAY": "",
        "WAYLAND_DISPLAY": "",
        "JUPYTER_CONFIG_DIR": str(tmp_path),
        "JUPYTER_RUNTIME_DIR": str(tmp_path),
        "JUPYTER_DATA_DIR": str(tmp_path),
    }
    with (tmp_path / "log").open("w+") as log:
        server = subprocess.Popen(
            ["make", "--no-print-directory", "lab", "PORT=8931"],
            cwd=ROOT,
            stdout=log,
            stderr=log,
            env=environment,
            start_new_session=True,
        )
        try:
            url, deadline = None, time.time() + 60
            while url is None and time.time() < deadline:
                time.sleep(0.2)
                url = re.search(r"http://\S+/lab/tree/notebooks/00_\S+token=\w+", (tmp_path / "log").read_text())
            assert url, (tmp_path / "log").read_text()
            page = None
            while page is None:  # a server names its address before it listens there
                try:
                    page = urllib.request.urlopen(url.group(), timeout=30)
                except urllib.error.URLError:
                    assert time.time() < deadline, (tmp_path / "log").read_text()
                    time.sleep(0.2)
            with page:
                assert page.status == 200
                assert b"JupyterLab" in page.read()
        finally:
            os.killpg(server.pid, signal.SIGTERM)
            server.wait(30)


def test_a_missing_chromium_is_said_loudly_where_all_tests_end(tmp_path):
    tests = ["tests/ui/test_lessons_in_jupyterlab.py", "-k", "01_"]  # in a light and in a dark theme
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n", "1", "-p", "no:cacheprovider", *tests],
        cwd=ROOT,
        env={**os.environ, "PATH": str(tmp_path), "PYTEST_ADDOPTS": ""},  # options may add lines to the end
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout
    assert "2 TESTS LEFT OUT" in run.stdout
    assert "NO CHROMIUM FOUND: the tests in tests/ui did not run; install one" in run.stdout.splitlines()[-2]
