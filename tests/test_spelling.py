"""Laws of spelling: a word of the prose is in the dictionary, or a term that this lab chose to use."""

import re
from pathlib import Path

import nbformat
import pytest

from armdlab.questions import QUESTIONS

spellchecker = pytest.importorskip(
    "spellchecker", reason="pyspellchecker is not installed (extra `test`): spelling is not looked at"
)
ROOT = Path(__file__).resolve().parents[1]
TERMS = set((Path(__file__).parent / "words.txt").read_text(encoding="utf-8").split())
PAGES = [*sorted((ROOT / "notebooks").glob("*.ipynb")), ROOT / "notebooks" / "README.md", ROOT / "README.md"]
# What is not prose, in the order in which it is taken out: code, formulas, addresses, tags, file names
NOT_PROSE = (r"```.*?```", r"`[^`]*`", r"<code>.*?</code>", r"\$\$.*?\$\$", r"\$[^$]*\$", r"\]\([^)]*\)")
NOT_PROSE += (r"https?://\S+", r"<[^>]*>", r"^ {4}.*$", r"\S+\.(?:py|md|json|ipynb|cff|txt|yml)\b", r"&\w+;")


@pytest.fixture(scope="module")
def dictionary():
    return spellchecker.SpellChecker(language="en", distance=1)


def prose(path):
    """The words that people read: of a notebook its Markdown cells."""
    if path.suffix != ".ipynb":
        return path.read_text(encoding="utf-8")
    cells = nbformat.read(path, as_version=4).cells
    return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


def words(text):
    for pattern in NOT_PROSE:
        text = re.sub(pattern, " ", text, flags=re.DOTALL if "```" in pattern or "$$" in pattern else re.MULTILINE)
    found = re.findall(r"[A-Za-z][A-Za-z'\u2019]*[A-Za-z]", text)  # no single letter
    return {re.sub(r"['\u2019]s?$", "", word) for word in found if not re.search(r"[a-z][A-Z]|^[A-Z0-9]{2,}s?$", word)}


def misspelt(text, dictionary):
    """Words that neither the dictionary nor the lab's own list holds."""
    return sorted(word for word in words(text) if word.lower() not in TERMS and dictionary.unknown([word.lower()]))


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_words_of_the_lessons_and_pages_are_spelt_right(path, dictionary):
    assert misspelt(prose(path), dictionary) == []


def test_words_of_the_answers_are_spelt_right(dictionary):
    assert misspelt(" ".join(asked.because for asked in QUESTIONS.values()), dictionary) == []


@pytest.mark.parametrize("fault", ["recieve", "likelyhood", "agrement", "teh", "sequnce", "seperate"])
def test_a_planted_fault_is_found(fault, dictionary):
    text = prose(PAGES[1])
    assert misspelt(f"{text}\n\nThe model will {fault} it.", dictionary) == [fault]


def test_what_is_no_prose_is_left_alone(dictionary):
    text = "See `kv_chache` and $\\thta_n$, [here](fle_nme.md) or <a href='xyzzy'>there</a>:\n\n    pythn -m lrn\n"
    assert misspelt(text, dictionary) == []


def test_every_term_of_the_list_is_one_that_the_dictionary_lacks(dictionary):
    assert sorted(dictionary.known(TERMS)) == []
