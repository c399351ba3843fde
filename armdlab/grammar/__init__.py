"""Can a language be small enough to be known exactly? How grammar files are read, checked and measured.

    values       what a grammar is; number of texts, entropy
    prefix_code  can every text be read in one way only?
    lexicon      headings and lists of the files
    markup       rules and stories of the files
    loading      a folder, read and checked
    readings     which derivation has a text, and what contradicts itself in it?
    alternatives what else could a tale have said?

Nothing here knows of heroes and kites; `armdlab.tales` is the door to the tales of the lab.
"""

from armdlab.grammar.alternatives import Alternatives, Span, alternatives
from armdlab.grammar.loading import read
from armdlab.grammar.readings import Choice, Derivation, Mention, Reading, Telling, Violation, read_text
from armdlab.grammar.values import Grammar, GrammarError

__all__ = [
    "Alternatives",
    "Choice",
    "Derivation",
    "Grammar",
    "GrammarError",
    "Mention",
    "Reading",
    "Span",
    "Telling",
    "Violation",
    "alternatives",
    "read",
    "read_text",
]
