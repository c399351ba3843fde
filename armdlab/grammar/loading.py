"""Is this folder a grammar? Loading reads its rules, plots and stories, and refuses what is wrong."""

from __future__ import annotations

import re
from pathlib import Path

from armdlab.grammar.lexicon import Lexicon, Section, sections, shares_of
from armdlab.grammar.markup import Rule, StoryTeller, cut, rules_named
from armdlab.grammar.prefix_code import END, chain, first, refuse_clash
from armdlab.grammar.values import Grammar, Plot, Story, Where

_SHARE = re.compile(r"(\d+/\d+|\d*\.?\d+)(?:\s+|$)")  # before an option


def read(folder: Path | str) -> Grammar:
    """Read the grammar in a folder, and check it.

    Args:
        folder: a folder whose `.txt` files hold the lists, rules, plots and stories.

    Returns:
        The grammar, which is unambiguous.

    Raises:
        FileNotFoundError: if the folder is missing or has no `.txt` file.
        GrammarError: if a file breaks a rule of the format, or two derivations may give one text.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"no grammar at {folder}: the folder does not exist; data/tales has one")
    found = list(sections(folder))
    lexicon = Lexicon.of([section for section in found if section.word == "list"])
    rules: dict[str, Rule] = {}
    for section in found:
        if section.word == "rule":
            _add_rule(section, rules)
    _refuse_cycles(rules)
    plots, shares = _plots(
        [section for section in found if section.word not in ("list", "rule")], lexicon, rules, folder
    )
    for name, rule in rules.items():
        if not rule.used:
            rule.at.refuse(f"no story uses rule {name}; write <{name}> somewhere, or delete it")

    # To pick a story is a choice as well: no tale of one may begin a tale of another.
    places = [(p, s) for p, plot in enumerate(plots) for s in range(len(plot.stories))]
    stories = [plots[p].stories[s] for p, s in places]
    chains = [chain(story.items, END) for story in stories]
    refuse_clash(chains, [story.at for story in stories], [f"story {story.name}" for story in stories])
    starts = {token: tuple(places[i] for i in options) for token, options in first(chains).items()}
    return Grammar(lexicon.lists, lexicon.groups, plots, shares, starts)


def _add_rule(section: Section, rules: dict[str, Rule]) -> None:
    if section.name in rules:
        section.at.refuse(f"rule {section.name} is also defined on line {rules[section.name].at.line}")
    if not section.lines:
        section.at.refuse(f"rule {section.name} has no options; write one on each line below it, indented")
    written, options = [], []
    for at, line in section.lines:
        share = _SHARE.match(line)
        written.append(share.group(1) if share else "")
        options.append(cut(line[share.end() :] if share else line, at))
    lines = tuple(at for at, _ in section.lines)
    shares = shares_of(written, lines, section.at, f"rule {section.name}")
    rules[section.name] = Rule(section.at, options, shares, lines)


def _refuse_cycles(rules: dict[str, Rule]) -> None:
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        for at, inner in rules_named(rules[name].options):
            if inner not in rules:
                at.refuse(f"unknown symbol <{inner}>: no rule has this name")
            if inner in (*path, name):
                loop = (*path, name)[(*path, name).index(inner) :]
                at.refuse(f"a cycle: {' > '.join((*loop, inner))}; such a tale would never end")
            if inner not in done:
                visit(inner, (*path, name))
        done.add(name)

    for name in rules:
        visit(name, ())


def _plots(
    found: list[Section], lexicon: Lexicon, rules: dict[str, Rule], folder: Path
) -> tuple[tuple[Plot, ...], tuple[int, ...]]:
    """The plots with their stories, and their shares."""
    plots: list[tuple[Section, list[Section], list[Story]]] = []
    names: dict[str, Where] = {}
    for i, section in enumerate(found):
        word, name, at = section.word, section.name, section.at
        if word in ("plot", "story"):
            if section.lines:
                section.lines[0][0].refuse(f"this line belongs neither to a cast nor to a text of {word} {name}")
            if f"{word} {name}" in names:
                at.refuse(f"the name {name} is taken by another {word}; choose another one")
            names[f"{word} {name}"] = at
        if word == "plot":
            plots.append((section, [], []))
        elif word == "story":
            if not plots or plots[-1][0].at.file != at.file:
                at.refuse(f"story {name} stands before any plot of its file; begin with `plot NAME`")
            parts = found[i : i + 3]
            if [part.word for part in parts] != ["story", "cast", "text"]:
                at.refuse(f"story {name} needs a cast and then a text below it")
            plots[-1][1].append(section)
            plots[-1][2].append(StoryTeller(lexicon, rules, tuple(parts)).story())
        elif [part.word for part in found[max(0, i - 2) : i]][-1:] != (["story"] if word == "cast" else ["cast"]):
            at.refuse(f"{word} stands outside a story; begin with `story NAME`")
    if not plots:
        raise FileNotFoundError(f"no grammar at {folder}: its files hold no plot; see data/tales/README.md")
    built = []
    for section, heads, stories in plots:
        if not stories:
            section.at.refuse(f"plot {section.name} has no story; write one below it")
        built.append(
            Plot(
                section.name,
                tuple(stories),
                _shares_of_heads(heads, section.at, f"the stories of {section.name}"),
            )
        )
    return tuple(built), _shares_of_heads([head for head, _, _ in plots], plots[0][0].at, "the plots")


def _shares_of_heads(heads: list[Section], at: Where, of: str) -> tuple[int, ...]:
    return shares_of([head.share for head in heads], [head.at for head in heads], at, of)
