"""Build every lesson and its solution from one master, run them, and store their outputs.

    python notebooks/make_lessons.py             # all lessons
    python notebooks/make_lessons.py 01          # one
    python notebooks/make_lessons.py --check     # fail if a committed notebook does not come from its master

A master is a Python file in jupytext's percent format. Between `### BEGIN SOLUTION` and `### END SOLUTION` stands what
the learner writes; in the lesson a stub takes its place: the text behind `### STUB:`, or `...`. Its first code cell
imports `armdlab.lab` and starts the lesson; every notebook gets the same guard around that import, `SETUP`.
"""

import argparse
import re
import sys
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).resolve().parent
REPOSITORY = "https://github.com/armdlab/armdlab"
COLAB = REPOSITORY.replace("//github.com", "//colab.research.google.com/github") + "/blob/main/notebooks"
# Where the lab is not installed (Colab, a fresh clone) it is fetched and installed once. Editable, since `data/` lies
# beside the package; without constraints, so that what is preinstalled stays as it is.
SETUP = """\
try:
    import armdlab.lab as lab
except ModuleNotFoundError:  # in Colab, or in a fresh clone: install once; what is there already stays as it is
    import subprocess
    import sys
    from pathlib import Path

    here = Path.cwd()
    clone = next((f for f in (here, *here.parents) if (f / "armdlab" / "lab.py").is_file()), here / "armdlab-clone")
    if not clone.exists():
        git = ["git", "clone", "-q", "--depth", "1", "{REPOSITORY}", str(clone)]
        subprocess.run(git, check=True)
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "-e", str(clone)], check=True)
    sys.path.insert(0, str(clone))
    import armdlab.lab as lab

"""
LOCAL_LINK = re.compile(r"""(\]\(|href=")(?!https?:|#|\{COLAB)""")
SOLUTION = re.compile(r"^( *)### BEGIN SOLUTION\n(.*?)^ *### END SOLUTION\n?", re.DOTALL | re.MULTILINE)
IMPORT = re.compile(r"\A(try:|import armdlab\.lab as lab\n).*(?=^lab\.start\()", re.DOTALL | re.MULTILINE)
STUB = re.compile(r"^ *### STUB: ?(.*)\n", re.MULTILINE)


def build(master, solved):
    """The notebook of a master, not yet run: the lesson, or with `solved` its solution."""
    source = master.read_text(encoding="utf-8")
    notebook = jupytext.reads(source, fmt="py:percent")
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number:02d}"
        cell.metadata = {key: value for key, value in cell.metadata.items() if key == "tags"}
        cell.source = IMPORT.sub(lambda _: SETUP, cell.source)
        cell.source = _solved(cell.source) if solved else _stubbed(cell.source)
        if solved and cell.cell_type == "markdown":  # a solution lies one folder deeper
            cell.source = LOCAL_LINK.sub(r"\1../", cell.source)
        file = f"solutions/{master.stem}.ipynb" if solved else f"{master.stem}.ipynb"
        cell.source = cell.source.replace("{COLAB}", f"{COLAB}/{file}")
        cell.source = cell.source.replace("{REPOSITORY}", REPOSITORY).replace("{NAME}", master.stem)
        if solved and number == 0:
            cell.source += "\n\n**This is the solution notebook: every exercise is filled in.**"
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    return notebook


def _solved(source):
    return SOLUTION.sub(lambda match: STUB.sub("", match[2]), source).rstrip("\n")


def _stubbed(source):
    def stub(match):
        told = STUB.search(match[2])
        return f"{match[1]}{told[1] if told else '...'}\n"

    return SOLUTION.sub(stub, source).rstrip("\n")


def run(notebook, folder):
    """Run a notebook from a fresh kernel and keep nothing that changes from run to run."""
    where = {"metadata": {"path": folder}}
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources=where, coalesce_streams=True).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        for output in cell.get("outputs", []):  # a view is gone with its kernel; its picture stays
            output.get("data", {}).pop("application/vnd.jupyter.widget-view+json", None)
    notebook.metadata.pop("widgets", None)
    notebook.metadata["language_info"] = {"name": "python"}
    return notebook


def targets(master):
    """(path of a notebook, whether it is the solution) for a master."""
    return [(FOLDER / f"{master.stem}.ipynb", False), (FOLDER / "solutions" / f"{master.stem}.ipynb", True)]


def stale(master):
    """Committed notebooks of a master whose cells are not what the master says."""
    found = []
    for path, solved in targets(master):
        wanted = [(cell.cell_type, cell.source) for cell in build(master, solved).cells]
        if not path.exists():
            found.append(path)
            continue
        cells = nbformat.read(path, as_version=4).cells
        if [(cell.cell_type, cell.source) for cell in cells] != wanted:
            found.append(path)
    return found


def masters(names=()):
    """Masters whose name begins with one of the given names; all, if none is given."""
    return sorted(m for m in (FOLDER / "masters").glob("*.py") if not names or m.stem.startswith(tuple(names)))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="beginnings of names, such as 01")
    parser.add_argument("--check", action="store_true", help="build nothing; fail if a notebook is stale")
    a = parser.parse_args()
    if a.check:
        old = [path for master in masters(a.names) for path in stale(master)]
        for path in old:
            print(f"{path.relative_to(FOLDER.parent)} does not come from its master; run: make lessons")
        sys.exit(bool(old))
    for master in masters(a.names):
        for path, solved in targets(master):
            print(f"running {path.relative_to(FOLDER.parent)}")
            path.parent.mkdir(exist_ok=True)
            nbformat.write(run(build(master, solved), str(path.parent)), path)


if __name__ == "__main__":
    main()
