# %% [markdown]
# # X1 Tales whose truth is known
#
# [Open in Colab]({COLAB}) · 35 minutes to read and do, under a minute to run on a CPU · [back: 08](08_the_tables.ipynb) · [all lessons](README.md)
#
# After this lesson you will be able to
#
# - **take** a tale apart into its choices, and **compute** its exact probability;
# - **break** an agreement over many words, and **say** why perplexity does not see it;
# - **measure** how many nats above the truth a model is, and why parallel streams must pay for padding.
#
# You need: Python, logarithms, and what a language model predicts; for the last section also orders ([lesson 01](01_masking_is_an_order.ipynb)) and streams ([lesson 05](05_parallel_streams.ipynb)). Words that are new stand in the [glossary](README.md#glossary).

# %%
import armdlab.lab as lab

lab.start("x1")

# %% [markdown]
# ## Where we are going
#
# Language models are usually judged by other language models. That ruler bends: a text in which the brown trunk is green
# two sentences later looks fine to it. This lab has a corpus with a straight ruler: short tales, told by a grammar that
# knows the exact probability of each, and what each must keep.

# %%
import math
import tempfile
import textwrap
from pathlib import Path

import torch

from armdlab import ARMD, ARMDConfig, GenerationOrder, tales
from armdlab.checks import tales as checks
from armdlab.figures import tales as tale_figures
from armdlab.widgets.tale_reader import TaleReader, steps

tale = tales.sample(7)
print(textwrap.fill(tale.text, 80))

# %% [markdown]
# ## 1. A tale is a list of choices
#
# The grammar draws a plot, a story, a cast, and then the wording. Click through the choices of this tale: pick one in the
# list, or walk by its number, and its words light up. Three things to try:
#
# - find the choice that fixed the colour of the trunk, and count how often the tale needs it;
# - tell another tale by another number;
# - break an agreement, and read what is said about it.

# %%
TaleReader(7)

# %% [markdown]
# Without the reader, the same list in plain text. Each line is one choice, with its probability given the choices before. A wording that has no name is called by
# its place: `lost.txt:21` is line 21 of that file in [data/tales](../data/tales/README.md), where the grammar stands.

# %%
for number, step in enumerate(steps(tale.text), 1):
    choice = step.choice
    print(f"{number:>2}. {choice.name}: {choice.text}  (p = {choice.probability:.4f}, {step.nats:.2f} nats)")

# %% [markdown]
# The grammar is *unambiguous*: a text has one derivation at most, so nothing has to be summed over derivations. Chances of
# choices made one after another multiply, and the nats $-\log p$ add.
#
# **Which of these choices of tale 7 costs most?** Commit to a guess, then run the cell.
#
# - **a** the plot, *lost-and-found*
# - **b** the thing, *trunk*
# - **c** where Theo looked, *behind every door*

# %%
lab.predict("dearest-choice", guess="a")

# %%
tale_figures.costs(tale.derivation)

# %% [markdown]
# ### Exercise 1: the price of a tale
#
# **Easy, 3 minutes.** Why it matters: this one line makes the ruler straight. Given the probabilities of all choices of a
# tale, return the nats that it costs, $-\log p(\text{tale})$.


# %%
def nats_of(probabilities: list[float]) -> float:
    ### BEGIN SOLUTION
    ### STUB: return None  # your code
    return -sum(math.log(p) for p in probabilities)
    ### END SOLUTION


# %%
first = checks.nats_of_choices(nats_of)
first

# %% [markdown]
# <details><summary>Hint 1</summary>The probability of the tale is the product of those of its choices.</details>
# <details><summary>Hint 2</summary>The logarithm of a product is the sum of the logarithms.</details>
# <details><summary>Solution</summary>In <a href="solutions/{NAME}.ipynb">the solution notebook</a>.</details>
#
# ## 2. What a tale costs on average
#
# The mean of $-\log p$ over tales is the **entropy** of the source. Because the grammar is known, it has a closed form: sum
# the entropy of each choice, weighted by how often the choice is met. A mean over samples must agree, up to its error.

# %%
grammar = tales.load_grammar()
nats = [-grammar.sample(tales.tale_seed(0, i)).log_prob for i in range(2000)]
mean, spread = torch.tensor(nats, dtype=torch.float64).mean(), torch.tensor(nats, dtype=torch.float64).std()
lab.report(entropy=grammar.entropy(), mean_of_2000=float(mean), standard_error=float(spread / 2000**0.5))
print(f"different tales: about 10^{math.log10(grammar.count()):.1f}")
tale_figures.surprise(nats, grammar.entropy())

# %% [markdown]
# The entropy is 42.0618 nats a tale, and the mean of 2000 tales stands within one standard error of it. No model can pay
# less on fresh tales, and we will use that in section 4.
#
# ## 3. What a tale must keep
#
# Some words are no choices. Once the trunk is brown, it stays brown; once Theo is a boy, he is *he*. Each arc below joins a
# word to the earlier one that settled it.

# %%
reading = grammar.read(tale.text)
far = max((m for m in reading.mentions if m.distance is not None), key=lambda m: m.distance)
lab.report(farthest=far.words, kind=far.kind, words_away=far.distance)
tale_figures.agreements(reading)

# %% [markdown]
# **Write *green trunk* for the second *brown trunk*. The text still reads well. What is its probability under the source?**
#
# - **a** about half of the tale's: one word of two is right
# - **b** about a ninth of it: there were nine colours
# - **c** zero

# %%
lab.predict("a-wrong-colour", guess="b")

# %%
wrong = tale.text.replace("the brown trunk", "the green trunk")
for violation in tales.check(wrong):
    print(f"{violation.kind}: {violation.sentence}")
lab.report(parses=grammar.read(wrong).parses, log_p_of_the_tale=tale.log_prob, log_p=tales.log_prob(wrong))

# %% [markdown]
# The text *parses* (some story could be worded like this) but is not *consistent*. Both shares are reported for what a
# model writes: the first asks whether it has learnt the language, the second whether it remembers.
#
# ### Exercise 2: break it
#
# **Easy, 5 minutes.** Why it matters: parallel streams write words that cannot see each other, and break exactly such
# agreements. Change tale 7 so that it still parses, and breaks one agreement of kind *object* over 40 words or more.

# %%
### BEGIN SOLUTION
### STUB: mine = tale.text  # change this
mine = tale.text.replace("the brown trunk", "the brown kite")
### END SOLUTION

# %%
second = checks.broken_tale(mine, 7, kind="object", at_least=40)
second

# %% [markdown]
# <details><summary>Hint 1</summary>Which thing was lost? It is named three times.</details>
# <details><summary>Hint 2</summary><code>tale.text.replace("the brown trunk", ...)</code> changes its last mention alone.</details>
# <details><summary>Solution</summary>In <a href="solutions/{NAME}.ipynb">the solution notebook</a>.</details>
#
# ## 4. How far is a model from the truth?
#
# Here is a whole grammar, small enough to count. A teacher can edit one just like it in `data/tales/`.

# %%
WORDS = """
list child
  name (name) | he (pronoun)
  Mia         | she
  Leo         | he

list colour
  colour (attribute)
  red
  blue
  green

list toy
  toy (object)
  kite
  boat
  drum
"""

# %%
STORY = """
plot day

story play
cast
  hero   from child
  toy    from toy
  colour from colour
text
  {hero} has {a colour} {toy}. [Today|Now] {hero.he} plays with the {colour} {toy}.
  [Good night, {hero}!|What a fine day it was! Good night, {hero}!]
"""
with tempfile.TemporaryDirectory() as folder:
    Path(folder, "words.txt").write_text(WORDS)
    Path(folder, "story.txt").write_text(STORY)
    little = tales.load_grammar(folder)
everything = [told.text for told in little.enumerate()]
total = math.fsum(math.exp(little.log_prob(text)) for text in everything)
lab.report(tales=len(everything), first=everything[0], sum_of_all_chances=total, entropy=little.entropy())

# %% [markdown]
# All 72 chances sum to 1, and the entropy is $\ln 72 = 4.2767$ because all 72 are equally likely.
#
# **A model scores fresh tales of this grammar, left to right. How low can its mean $-\log q$ come, in nats a tale?**
#
# - **a** to 0, if it is large enough
# - **b** to 4.2767 and no lower
# - **c** to a number that depends on its tokenizer

# %%
lab.predict("below-the-truth", guess="a")

# %% [markdown]
# So the distance $\mathrm{KL}(p\,\|\,q) = \mathbb{E}_p[\log p - \log q]$, the mean number of nats that $q$ pays above $p$, has a true zero, and is never negative. We train a very small ARMD on
# these tales through the whole curriculum (left to right, shuffled, strided) and print everything that can be said
# exactly, for one, two and four streams. The numbers below change a little between machines, what they say does not.

# %%
from armdlab.curriculum import Curriculum
from armdlab.rows import Rows
from armdlab.tale_evaluation import tale_report
from armdlab.tokenization import Tokenizer
from armdlab.training import Plan, Training

torch.set_num_threads(1)  # the model is so small that a second thread only waits
tokenizer = Tokenizer.train(everything * 5, vocab_size=400)
told = list(tales.tales(300, 1, little))
N = 28
rows = Rows.encode(told, tokenizer, length=N, layout="padded")
torch.manual_seed(0)
model = ARMD(ARMDConfig(tokenizer.vocab_size, N, n_layer=2, n_head=2, d_model=48))
training = Training(model, rows, Plan(200, Curriculum.for_steps(200, N), batch_size=16, learning_rate=1e-2))
losses = [step.loss for step in training.run()]

# %% tags=["nbval-ignore-output"]
splits = {"train": {"text": told}, "validation": {"text": everything}}
report = tale_report(model, tokenizer, splits, n_samples=200, grammar=little)
print(report)

# %% tags=["nbval-ignore-output"]
tale_figures.tale_table(report)

# %% [markdown]
# Read the table from left to right. The *excess* is what the model has not learnt and, in streams, also what no model could know: tokens that are
# made together cannot see each other. Here streams cost hardly more than left to right, no more than the errors allow: they were its last lesson. Both parts
# lower the share of *consistent* tales. The tales that are scored are all 72 there are, each as likely as the others, so the mean is the exact divergence, and +- says only how much tales differ. (Nearly all are among the 300 that were trained on. That cannot push the mean below the entropy: all 72 are scored, each once.) The last column is the source itself, which is what perfection looks like; its 200 tales are the fair measure of how different 200 texts can be.
#
# **NLL for padding.** A row holds one tale; the rest of it is padding. Left to right it costs nothing: whoever reads stops at
# the end of the text, so the chances of all that could follow sum to 1. A stream that starts behind the end of the tale is
# another matter. It makes padding *before* the tale is finished, and the other streams see it: they learn for free how
# short the tale will be. If that were not paid for, the chances of all texts would sum to more than 1.

# %%
short = rows.pad(rows.bounds.diff().argmin()[None])
for streams in (1, 2, 4):
    paid = rows.is_paid(short, GenerationOrder.strided(N, streams))
    print(f"S = {streams}: of {N} tokens {int(rows.is_text(short).sum())} are text, {int(paid.sum())} are paid for")

# %% [markdown]
# ### What chance need not tell
#
# A tale shows *one* name of sixty, and a loss that learns from it pushes towards that one, down with all others. Only over many tales do
# these pushes become the truth. But the grammar knows what else could have stood there, all other choices staying as they are:

# %%
from armdlab.grammar import alternatives

for choice in alternatives(reading.telling):
    if choice.name in ("weather", "friend", "there", "thing", "material"):
        words = [choice.spans[0].forms[row] for row in choice.spans[0].rows]
        said, others = words[choice.chosen], ", ".join(words[:3])
        print(f"{choice.name:8} {len(words):2}: {said}; it could be {others}, ...")

# %% [markdown]
# Twelve things can be brown and made of leather; fifty-nine can be Theo's friend. A target that names them all, each with its chance, asks for the same in the mean, with less noise: replacing a draw by its expectation
# is known as the *Rao-Blackwell* way. `armdlab train --soft-targets` does so for any order: what stands in earlier blocks is known, so a
# name that is told before is none of the sixty. The ARMD and the AR that we ship were taught so at last. A second term of their loss, *unlikelihood* (Welleck et al., 2020), pushed down tokens that had been said already
# where many could come: a name used twice costs a model only $\ln(60/59)$ = 0.017 nats, which the loss hardly feels. English has no such oracle.
#
# ## Recap
#
# Say it aloud: a tale is a list of choices, and its nats are the sum of theirs. The mean of these nats is the entropy, and no
# model pays less on fresh tales. What a model pays above it is a KL divergence, in nats, with a true zero. Texts that parse
# can still contradict themselves; `check` finds each contradiction, with its kind and its distance.
#
# ## Where this sits
#
# The paper (Karami and Ghodsi, arXiv 2601.16971) judges samples by the perplexity that GPT-2 Large gives them, beside their entropy.
# We keep those in mind, and add a ruler that cannot be fooled. What it costs: our tales are far simpler than English, so
# an excess here says how well a *method* learns what there is to learn, not how well it writes novels. The price of a text is
# that of its canonical tokens, the one way in which the tokenizer itself cuts it. Other tokens spell the same text and are not counted, so its true price can only be lower, and the
# excess is an upper bound on the divergence between texts.

# %%
lab.finish("x1", the_price_of_a_tale=first, break_it=second)
