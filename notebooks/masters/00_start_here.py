# %% [markdown]
# # 00 Start here
#
# [Open in Colab]({COLAB}) · 15 minutes to read and do, a few seconds to run on a CPU · [next: 01](01_masking_is_an_order.ipynb) · [all lessons](README.md)
#
# After this lesson you will be able to
#
# - **check** that this machine has all that the lab needs;
# - **load** a trained model, and **let it write** one token at a time or in four streams at once;
# - **find** your way through the lessons.
#
# You need: a little Python. Nothing about diffusion is asked for, and no GPU.
# Words that are new stand in the [glossary](README.md#glossary).
#
# A notebook is a column of cells. Click into the first grey one and press Shift and Enter: it runs, and the next one is chosen.

# %%
import armdlab.lab as lab

lab.start("00")

# %% [markdown]
# ## Watch a model write
#
# This is a recorded run. Press *Play*, or click into the picture and press the right arrow, and see a short tale come into being in
# four places at the same time. A *token* is a word or a piece of one; a *stream* is a part of the text that is written left to right; a *step* makes at most one token of each stream.

# %% tags=["nbval-ignore-output"]
from armdlab.widgets.stream_viewer import StreamViewer

viewer = StreamViewer()
viewer

# %% [markdown]
# Four things to try:
#
# - point at a word: when was it made, how sure was the model, and which words did it see?
# - let the model write itself: press *Write* with 1 stream, then with 8;
# - write your own beginning into *prompt*, with 1 stream. (The model has read short tales and nothing else, so be kind; and how several streams go on behind a prompt it was never taught.)
# - choose *corrected streams*, with 8 of them, and look at the last steps: the text is read again, and what does not fit is drawn anew.
#
# ## Is everything here?
#
# The next cell looks at Python, PyTorch, every package, the views and the models that the lab ships, and says how to mend what is missing or broken.

# %%
from armdlab.doctor import examine

faults = [finding for finding in examine() if not finding.is_ok]
print(*faults or ["everything that the lab needs is here"], sep="\n")

# %% [markdown]
# ## One after another, or four at once
#
# Load the model of the viewer, and let it write a tale from left to right. `seed` fixes the dice: the same seed gives the same
# tale. `temperature` below 1 makes likely words likelier.

# %%
armd = lab.load("tales")
lab.report(parameters=f"{armd.model.n_parameters:,}", longest_text=f"{armd.model.config.max_length} tokens")

# %%
import textwrap

one = armd.write(streams=1, seed=5, temperature=0.7)
print(textwrap.fill(one, 80))

# %% [markdown]
# Now in four streams. It is the same model, with the same weights; only the order in which it makes the tokens is different.

# %%
four = armd.write(streams=4, seed=5, temperature=0.7)
print(textwrap.fill(four, 80))

# %% [markdown]
# **Once every stream has its first word, each step of four streams makes four tokens. Can they see each other while they are made?**
#
# - **a** yes, a transformer sees everything
# - **b** no, each is chosen without knowing the other three
# - **c** those that stand to the left can be seen
#
# Put your letter into the cell in place of the one that stands there, then run it. A wrong guess teaches more than a right one.

# %%
lab.predict("made-together", guess="a")

# %% [markdown]
# That is the whole bargain: fewer steps, and words that may not fit together. Read both tales again: where does a sentence break off, or
# one thing turn into another? The tales that the model has read were told by a grammar that knows all its tales, so the lab can tell
# exactly whether a text is one of them and nowhere contradicts itself.

# %%
from armdlab.samples import validity, write_tales

for streams in (1, 4):
    texts = write_tales(armd.model, armd.tokenizer, 50, streams=streams, temperature=0.7)
    print(f"streams: {streams}, tales without a fault: {validity(texts).is_consistent}")

# %% [markdown]
# Small models err in either way, and the margins are wide: after +- stands one standard error, over 50 tales (as if one more had been good and one more bad, so that 50 of 50 is no certainty). [Lesson 05](05_parallel_streams.ipynb) measures what streams cost, and
# [lesson 06](06_exact_parallel.ipynb) writes in parallel without that cost.
#
# Two pictures of two runs. Each dot is a token, at its place in the text and at the step in which it was made; its colour is how likely
# the model found it.

# %%
run = viewer.run_now(model="tales", prompt="", streams=1, seed=1)
lab.report(tokens_made=sum(len(step.made) for step in run.steps), steps=len(run.steps))
viewer.picture()

# %%
run = viewer.run_now(model="tales", prompt="", streams=4, seed=1)
lab.report(tokens_made=sum(len(step.made) for step in run.steps), steps=len(run.steps))
viewer.picture()

# %% [markdown]
# Left to right, the run stops when the tale is told. Streams fill the whole row of 160 tokens, and what stands after the end of the tale is
# not shown to readers. Four lines rise side by side. They start one after another: the first token of each stream, its *head*, is made alone.
#
# **160 tokens, two streams. How many steps?**
#
# - **a** 80
# - **b** 81
# - **c** 160

# %%
lab.predict("steps-of-two-streams", guess="a")

# %% [markdown]
# ## Where this comes from
#
# *Masked diffusion* teaches a model by hiding words step after step until nothing is left, and by undoing that. Read the picture
# downwards: words go, and `[m]` stands in their place (bold where it is new). Read it upwards: they come back.

# %%
from armdlab import GenerationOrder, figures

words = "the cat sat on the mat".split()
masked_at = [4, 3, 1, 3, 2, 2]  # step at which each word is hidden
figures.masking(masked_at, words)

# %% [markdown]
# Undoing is writing, so the process has become an *order*: who is made when, and together with whom. Words of one colour are made together,
# in one step. The *rank* above a word numbers them in the order of their making, from 0.

# %%
figures.ribbon(GenerationOrder.from_masking_times(masked_at), words)

# %% [markdown]
# *Auto-Regressive Masked Diffusion* (ARMD) takes that seriously: it is a language model that is told the order. With a left-to-right order it is
# an ordinary one, with streams it writes in parallel, and one pass of the network trains it on all tokens at once. Everything in this lab
# is an order and what follows from it.
#
# ### Warm-up: be the model
#
# **Easy, 3 minutes.** Why it matters: whoever can write this list by hand has understood streams. Six words, at positions 0 to 5, in two
# streams: the first holds 0, 1, 2 and the second 3, 4, 5. Which positions are made at each step? Heads are made one by one, then one
# token of each stream at a time. Write a list of steps, each a list of positions, such as `[[0], [1, 2]]`.

# %%
### BEGIN SOLUTION
### STUB: steps = None  # change this
steps = [[0], [3], [1, 4], [2, 5]]
### END SOLUTION

# %%
from armdlab.checks import start as checks

warm_up = checks.steps_by_hand(steps)
warm_up

# %% [markdown]
# <details><summary>Hint 1</summary>The head of a stream is its first position. Two streams, two heads, two steps.</details>
# <details><summary>Hint 2</summary>Two tokens are left in each stream, so there are two more steps, of two positions each.</details>
# <details><summary>Solution</summary>In <a href="solutions/{NAME}.ipynb">the solution notebook</a>.</details>
#
# ## The way from here
#
# | lesson | its question | minutes |
# |---|---|---|
# | [01 Masking is an order](01_masking_is_an_order.ipynb) | how does a masking process become an order, and an order two masks? | 40 |
# | [02 Strictly causal](02_strictly_causal.ipynb) | why does a mask alone leak, and what closes the leak? | 50 |
# | [03 One-pass likelihood](03_one_pass_likelihood.ipynb) | what does a text cost, exactly, in one pass? | 45 |
# | [04 Permutation training](04_permutation_training.ipynb) | how does a model learn many orders? You train one, live | 50 |
# | [05 Parallel streams](05_parallel_streams.ipynb) | how are streams written fast, and what do they cost? | 45 |
# | [06 Exact and parallel](06_exact_parallel.ipynb) | can parallel text be as good as one by one? | 45 |
# | [07 Infill and edit](07_infill_and_edit.ipynb) | how are gaps filled, and alternatives weighed? | 45 |
# | [08 The tables](08_the_tables.ipynb) | do the paper's numbers hold, and what do such numbers hide? | 50 |
# | [X1 Tales whose truth is known](x1_tales.ipynb) | how far is a model from the truth? Needs none of the others, but for its last section | 35 |
#
# If you are in a hurry, take 01, 02 and 05. If you would rather read code, begin with the table of modules in the
# [README](../README.md). If you teach, there is a [teacher's page](README.md#for-teachers).
#
# ## What to be able to say aloud
#
# - A stream is a part of the text; a step makes at most one token of each stream.
# - Tokens of one step cannot see each other. That saves steps, and costs agreement.
# - A masking process, undone, is an order. ARMD is a language model that is told the order.
#
# ## In the paper
#
# *Auto-Regressive Masked Diffusion Models* (Karami and Ghodsi, arXiv 2601.16971) trains 125 million parameters on web text. The model
# here is some seventy times smaller and knows tales alone, so that all of this runs on a laptop and its errors can be counted.

# %%
lab.finish("00", be_the_model=warm_up)
