"""How does text that was cut into words become text again?

WikiText, the Penn Treebank and the One Billion Word benchmark are stored as words with a space between any two, commas
and the n't of don't among them. A model that was taught running text pays for that, so GPT-2 was scored on the words
put together again (section 3.1), as SEDD and MDLM are. The rules here are our own, written from the three formats; they
cannot tell where a space stood around a dash or a single quote, and leave these. No library knows these formats:
sacremoses undoes Moses' cuts alone, and none of the marks by which a corpus hides numbers and rare words.

Source: Radford et al., Language Models are Unsupervised Multitask Learners, 2019; of the formats Merity et al., Pointer
Sentinel Mixture Models, 2016 (WikiText), Mikolov et al., Recurrent neural network based language model, 2010 (Penn
Treebank), Chelba et al., One Billion Word Benchmark, 2013.
"""

from __future__ import annotations

import re

Rules = tuple[tuple[str, str], ...]  # what is found, by `re`, and what takes its place; in this order

WORDS: Rules = (
    (r"(?i) (n't|'(?:s|t|re|ve|ll|d|m))\b", r"\1"),  # does n't, doesn 't, it 's
    (r"(?<=s) '(?= |$)", "'"),  # the players ' union
    (r"(?<=[(\[{]) ", ""),
    (r" (?=[,.;:!?%)\]}](?:[ \n]|$))", ""),  # not before .22
    (r"(?<=[$£€#]) (?=\d)", ""),
    (r'" ([^"]*?) ?"', r'"\1"'),  # " Nameless "
    (r" *\n *", "\n"),
    (r"^ +| +$", ""),
)
# Cuts inside a number or a compound are marked by @; headings are = = Plot = =
WIKITEXT: Rules = ((r" @([-,.])@ ", r"\1"), (r"= (?==)", "="), *WORDS)
# All is lower case but N, which stands for every number; of rare words nothing is left. As in SEDD and MDLM, 1 and ?
# take their places: the token <unk> is in no other text
TREEBANK: Rules = (("N", "1"), (r"\\/", "/"), *WORDS, ("<unk>", "?"))

# A corpus of the Hub -> how its words are put together
RULES: dict[str, Rules] = {
    "Salesforce/wikitext": WIKITEXT,
    "ptb-text-only/ptb_text_only": TREEBANK,
    "dvruette/lm1b": WORDS,
    "billion-word-benchmark/lm1b": WORDS,
}


def detokenized(text: str, rules: Rules) -> str:
    r"""Put words that were cut apart together again.

    >>> print(detokenized(" It was n't real @-@ time , at $ 1 @,@ 200 ( \" cheap \" ) . ", WIKITEXT))
    It wasn't real-time, at $1,200 ("cheap").
    """
    for pattern, replacement in rules:
        text = re.sub(pattern, replacement, text)
    return text
