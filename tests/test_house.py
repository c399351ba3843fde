"""The house rules that a machine can keep: who may import whom, and what a module must have."""

import ast
import importlib
import inspect
import pkgutil
from pathlib import Path

import pytest

import armdlab

PACKAGE = Path(armdlab.__file__).parent
# "orders", "grammar.values", "widgets.__init__", ...; its room is the first part of its name
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): ast.parse(path.read_text(encoding="utf-8"))
    for path in sorted(PACKAGE.rglob("*.py"))
}
ROOMS = {name.split(".")[0] for name in MODULES}

# A module may import those that stand before it in its line; lines follow the design's map.
LAYERS = {
    "counts": set(),
    "permutations": set(),
    "orders": {"counts", "permutations"},
    "masks": {"orders"},
    "checkpoints": {"model"},  # model at call time only: it names the config that it reads
    "positions": set(),
    "model": {"counts", "orders", "masks", "positions", "checkpoints"},
    "baselines": {"counts", "orders", "masks", "positions", "model"},
    "objectives": {"orders", "masks", "model", "baselines"},
    "curriculum": {"counts", "orders", "sampling"},
    "inference": {"model"},
    "packing": {"model"},
    "engine": {"orders", "masks", "model", "baselines", "packing"},
    "capture": {"masks", "engine"},
    "speculative": {"orders", "masks", "model", "engine", "sampling", "steps"},
    "gated": {"orders", "masks", "model", "engine", "sampling", "steps"},
    "correcting": {
        "counts",
        "orders",
        "model",
        "inference",
        "engine",
        "objectives",
        "sampling",
        "speculative",
        "steps",
    },
    "sampling": {"counts", "orders"},
    "steps": {"orders"},
    "calls": {"orders", "masks", "model"},
    "decoding": {
        "calls",
        "counts",
        "orders",
        "masks",
        "model",
        "baselines",
        "inference",
        "engine",
        "capture",
        "sampling",
        "steps",
        "speculative",
        "gated",
        "correcting",
    },
    "attention_maps": {"orders", "model"},
    "infilling": {"orders", "model", "inference", "objectives", "sampling", "steps"},
    "tokenization": {"checkpoints"},
    "grammar": set(),
    "tales": {"grammar"},
    "soft_targets": {"orders", "tokenization", "grammar", "tales"},
    "rows": {"counts", "orders", "tokenization", "soft_targets"},
    "detokenization": set(),
    "corpora": {"checkpoints", "tales", "rows", "tokenization", "detokenization"},
    "samples": {"orders", "model", "decoding", "sampling", "tokenization", "tales"},
    "scores": set(),
    "evaluation": {
        "counts",
        "orders",
        "model",
        "packing",
        "inference",
        "baselines",
        "objectives",
        "sampling",
        "rows",
        "scores",
    },
    "tale_evaluation": {"orders", "model", "baselines", "rows", "tokenization", "tales", "samples", "evaluation"},
    "processes": set(),
    "plans": {"counts", "curriculum", "checkpoints"},
    "costs": {"orders", "model", "baselines", "objectives", "rows"},
    "training": {"orders", "model", "baselines", "costs", "sampling", "plans", "rows", "checkpoints", "processes"},
    "trained": {"orders", "model", "baselines", "engine", "decoding", "sampling", "tokenization", "checkpoints"},
    "networks": {"counts", "positions", "model", "baselines", "trained"},
    "folders": {"checkpoints", "trained"},
    "recipes": {
        "folders",
        "networks",
        "soft_targets",
        "orders",
        "model",
        "baselines",
        "curriculum",
        "sampling",
        "decoding",
        "tokenization",
        "rows",
        "corpora",
        "checkpoints",
        "evaluation",
        "plans",
        "processes",
        "training",
        "trained",
    },
    "generative": {
        "inference",
        "orders",
        "model",
        "baselines",
        "sampling",
        "decoding",
        "correcting",
        "tokenization",
        "rows",
        "corpora",
        "samples",
        "objectives",
        "evaluation",
        "scores",
        "trained",
    },
    "budgets": {"recipes"},
    "tables": {"checkpoints"},
    "measured": {"checkpoints"},
    "reproduce": {
        "folders",
        "tables",
        "measured",
        "rows",
        "corpora",
        "checkpoints",
        "evaluation",
        "scores",
        "correcting",
        "generative",
        "recipes",
        "budgets",
        "trained",
    },
    "animation": set(),
    "traces": {"orders", "model", "inference", "engine", "decoding", "animation"},
}
# For notebooks and the terminal: nothing imports them.
FRONT = {
    "figures",
    "widgets",
    "lab",
    "checks",
    "questions",
    "cli",
    "training_command",
    "terminal",
    "doctor",
}
PRINTING = {"cli", "lab", "terminal"}


def imports(tree):
    """Rooms of armdlab from which a module imports, wherever in its text."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "armdlab":
            found |= {alias.name for alias in node.names if alias.name in ROOMS}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("armdlab."):
            found.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("armdlab.")}
    return found


@pytest.mark.parametrize("name", sorted(name for name in MODULES if name.split(".")[0] not in {*FRONT, "__init__"}))
def test_modules_import_along_the_map_only(name):
    room = name.split(".")[0]
    assert room in LAYERS, f"{name} is not on the map: say in LAYERS what it may import"
    assert imports(MODULES[name]) - {room} <= LAYERS[room]


def test_an_import_is_seen_however_it_is_written():
    lines = ["from armdlab import widgets", "from armdlab.widgets import view", "import armdlab.widgets.view"]
    assert [imports(ast.parse(line)) for line in lines] == [{"widgets"}] * 3
    assert imports(ast.parse("from armdlab import ARMD, load")) == set()
    assert "grammar" in imports(MODULES["tales"])


def test_the_map_has_no_cycle_but_the_config_that_checkpoints_read():
    order, left = [], {name: needs - {"model"} if name == "checkpoints" else needs for name, needs in LAYERS.items()}
    while left:
        free = [name for name, needs in left.items() if needs <= set(order)]
        assert free, f"cycle among {sorted(left)}"
        order += free
        left = {name: needs for name, needs in left.items() if name not in free}


@pytest.mark.parametrize("name", sorted(MODULES))
def test_a_module_opens_with_its_question(name):
    docstring = ast.get_docstring(MODULES[name])
    assert docstring
    assert name == "__init__" or "?" in docstring.split("\n\n")[0], f"{name} opens without a question"


@pytest.mark.parametrize("name", sorted(MODULES))
def test_modules_stay_of_a_size_that_is_read_in_one_sitting(name):
    path = PACKAGE.joinpath(*name.split(".")).with_suffix(".py")
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 420


@pytest.mark.parametrize("name", sorted(MODULES.keys() - PRINTING))
def test_nothing_prints_inside_the_package(name):
    calls = [node for node in ast.walk(MODULES[name]) if isinstance(node, ast.Call)]
    assert not [call.lineno for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"]


def test_no_pickle_no_pyplot_and_no_room_called_utils():
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert not any(word in text for word in ("import pickle", "torch.load(", "pyplot")), path.name
    assert not any(name.endswith("utils") for name in MODULES)


def test_every_public_name_is_there_and_documented():
    for name in armdlab.__all__:
        value = getattr(armdlab, name)
        assert inspect.getdoc(value), name
    for module in pkgutil.iter_modules([str(PACKAGE)]):
        importlib.import_module(f"armdlab.{module.name}")
