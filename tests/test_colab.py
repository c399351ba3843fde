"""Laws of Colab: the first cell of a lesson, as committed, makes the lesson work there and changes nothing else."""

import builtins
import re
import subprocess
import sys
import types
from pathlib import Path

import nbformat
import pytest
from packaging.requirements import Requirement

from armdlab import lab

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
LESSONS = sorted((ROOT / "notebooks").glob("*.ipynb"))
NOTEBOOKS = [*LESSONS, *sorted((ROOT / "notebooks" / "solutions").glob("*.ipynb"))]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
REPOSITORY = "https://github.com/armdlab/armdlab"


def first_cell(path):
    return next(cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code")


class Colab:
    """A machine without armdlab: commands are noted, and `pip install` makes the import work."""

    def __init__(self, monkeypatch, folder):
        self.commands, self.is_installed, self.switched_on = [], False, 0
        output = types.ModuleType("google.colab.output")
        output.enable_custom_widget_manager = self.switch_on
        google, colab = types.ModuleType("google"), types.ModuleType("google.colab")
        google.colab, colab.output = colab, output
        for module in (google, colab, output):
            monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setattr(subprocess, "run", self.run)
        monkeypatch.setattr(builtins, "__import__", self.importing(builtins.__import__))
        monkeypatch.setattr(sys, "path", [*sys.path])
        monkeypatch.chdir(folder)

    def switch_on(self):
        self.switched_on += 1

    def run(self, command, *, check):
        assert check, "a command that fails must stop the cell"
        self.commands.append([str(part) for part in command])
        if command[0] == "git":
            package = Path(command[-1]) / "armdlab"
            package.mkdir(parents=True)
            (package / "lab.py").touch()
        self.is_installed = self.is_installed or "install" in command
        return subprocess.CompletedProcess(command, 0)

    def importing(self, real):
        def importing(name, *rest, **more):
            if name.startswith("armdlab") and not self.is_installed:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)
            return real(name, *rest, **more)

        return importing


@pytest.fixture
def colab(monkeypatch, tmp_path):
    return Colab(monkeypatch, tmp_path)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_the_first_cell_fetches_installs_and_starts_the_lesson(path, colab, tmp_path, capsys):
    exec(compile(first_cell(path), path.name, "exec"), {})
    clone = str(tmp_path / "armdlab-clone")
    assert colab.commands == [
        ["git", "clone", "-q", "--depth", "1", REPOSITORY, clone],
        [sys.executable, "-m", "pip", "install", "-q", "-e", clone],
    ]
    assert sys.path[0] == clone  # an editable installation is seen by kernels that start later
    assert colab.switched_on == 1
    assert capsys.readouterr().out.startswith(f"Lesson {path.stem[:2]}, ")


def test_the_first_cell_takes_a_clone_that_is_there(colab, tmp_path, monkeypatch):
    (tmp_path / "mine" / "armdlab").mkdir(parents=True)
    (tmp_path / "mine" / "armdlab" / "lab.py").touch()
    (tmp_path / "mine" / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "mine" / "notebooks")
    exec(compile(first_cell(LESSONS[0]), "lesson", "exec"), {})
    assert [command[-1] for command in colab.commands] == [str(tmp_path / "mine")]
    assert colab.commands[0][:4] == [sys.executable, "-m", "pip", "install"]


def test_the_first_cell_run_again_installs_nothing_again(colab):
    for _ in range(2):
        exec(compile(first_cell(LESSONS[0]), "lesson", "exec"), {})
    assert len(colab.commands) == 2
    assert colab.switched_on == 2


def test_elsewhere_no_widget_manager_is_asked_for(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "google.colab", None)  # importing it fails, as on any other machine
    lab.start("00")
    assert capsys.readouterr().out.startswith("Lesson 00, Start here\n")


def test_all_lessons_share_one_set_up_cell():
    assert len({re.sub(r'start\("\w+"\)', "start()", first_cell(path)) for path in NOTEBOOKS}) == 1


def preinstalled():
    """Package -> version, as Colab had them when the list was taken."""
    lines = (ROOT / "tests" / "colab_preinstalled.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.lower().split("==") for line in lines if "==" in line)


def changed(dependencies):
    """What pip would have to install or upgrade in Colab for these dependencies."""
    there = preinstalled()
    return [line for line in map(Requirement, dependencies) if not line.specifier.contains(there.get(line.name, "0"))]


def test_colab_has_all_that_the_lab_needs_and_no_floor_upgrades_it():
    assert changed(PROJECT["dependencies"]) == []


@pytest.mark.parametrize("line", ["torch>=2.13", "jupyterlab>=4.0", "ipywidgets>=8.0"])
def test_a_floor_too_high_and_a_package_that_colab_lacks_are_found(line):
    assert [str(found) for found in changed([*PROJECT["dependencies"], line])] == [line]
