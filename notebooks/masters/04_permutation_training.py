# %% [markdown]
# # 04 Permutation training
#
# [Open in Colab]({COLAB}) · 50 minutes to read and do, two to four to run on a CPU · [back: 03](03_one_pass_likelihood.ipynb) · [next: 05](05_parallel_streams.ipynb) · [all lessons](README.md)
#
# After this lesson you will be able to
#
# - **train** a model live through the curriculum: left to right, shuffled, in streams;
# - **read** its curves: what jumps, what falls, what is forgotten;
# - **predict** what a change of the curriculum does, and **check** it by an experiment.
#
# You need: [lesson 03](03_one_pass_likelihood.ipynb), and the idea of a training loop. Words that are new stand in the
# [glossary](README.md#glossary).

# %%
import armdlab.lab as lab

lab.start("04")

# %% [markdown]
# ## Where we are going
#
# How one of the shipped models learnt, ARMD on the Python manual, from its training record: held-out price, left to right, at each
# stage of its training. By the end of this lesson you will have made such a curve yourself, and can say what happened where it
# breaks.

# %%
import math
import tempfile
from dataclasses import replace

import datasets
import torch

from armdlab import ARMD, ARMDConfig
from armdlab.baselines import LeakyMask
from armdlab.checks import curriculum as checks
from armdlab.curriculum import Curriculum
from armdlab.evaluation import likelihood
from armdlab.figures import lessons as lesson_figures
from armdlab.figures.tables import curriculum
from armdlab.recipes import Recipe, Session
from armdlab.rows import Text
from armdlab.training import Plan, Training
from armdlab.widgets.training_cockpit import TrainingCockpit

datasets.disable_progress_bars()
history = lab.load("manual").card["history"]

# %%
phases = dict.fromkeys(entry["phase"] for entry in history)
way = {
    phase: [(entry["step"], entry["nats_per_token"]) for entry in history if entry["phase"] == phase]
    for phase in phases
}
lab.report(**{phase: f"{points[0][1]:.2f} to {points[-1][1]:.2f} nats a token" for phase, points in way.items()})
lesson_figures.lines(way, title="ARMD on the Python manual", x="step", y="nats a token, left to right")

# %% [markdown]
# ## 1. Three phases
#
# A network that must predict any token from any others has much to learn at once. The paper's *progressive permutation* starts
# with what is easy:
#
# 1. **left to right**, for $i_{AR}$ steps: learn the language;
# 2. **shuffled**: a few positions, drawn at random, exchange their places in the order. Their number grows from 1
#    to $\rho$ at step $i_{perm}$, and stays: learn to jump;
# 3. **in streams**: *strided* orders, as at the right of the first picture in lesson 01, the number of streams $S$ drawn anew at every step: learn to write in parallel.
#
# Here is the plan of this lesson's model: 900 steps, rows of 64 tokens, at the end 16 of them shuffled.

# %%
recipe = Recipe(
    corpus="tales:4000",
    layout="running",
    steps=900,
    length=64,
    n_layer=4,
    d_model=96,
    dropout=0.0,
    rho=16,
    streams=(1, 2, 4),
    learning_rate=3e-3,
)
plan = recipe.plan.curriculum
lab.report(i_AR=plan.i_ar, i_perm=plan.i_perm, streams_begin_at=plan.i_strided)
curriculum(plan, recipe.steps)

# %% [markdown]
# ### Exercise 1: the ramp
#
# **Easy, 6 minutes.** Why it matters: off by one here, and the model meets its hardest orders a phase too early, or never. Return
# the number of shuffled tokens at a step, a whole number: 0 before `i_ar`; from step `i_ar` on it grows evenly from 1, so as
# to be `rho` at the last step before `i_perm`; from then on it stays `rho`. Between, round down:
#
# $$n(\text{step}) = 1 + \Big\lfloor (\rho - 1)\, \frac{\text{step} - i_{AR}}{i_{perm} - i_{AR} - 1} \Big\rfloor$$
#
# Mind a `rho` of 0, which shuffles nothing, and a ramp of one step, which has nothing to divide by: there it is 1.


# %%
def n_shuffled(step: int, i_ar: int, i_perm: int, rho: int) -> int:
    ### BEGIN SOLUTION
    ### STUB: return None  # your code
    if step < i_ar or rho == 0:
        return 0
    if step >= i_perm:
        return rho
    return 1 + (rho - 1) * (step - i_ar) // max(1, i_perm - i_ar - 1)
    ### END SOLUTION


# %%
first = checks.ramp(n_shuffled)
first

# %% [markdown]
# <details><summary>Hint 1</summary>Three cases in this order: before the ramp (or no rho), after it, on it.</details>
# <details><summary>Hint 2</summary><code>//</code> rounds down; multiply before you divide. <code>max(1, ...)</code> saves the ramp of one step.</details>
# <details><summary>Solution</summary>In <a href="solutions/{NAME}.ipynb">the solution notebook</a>.</details>
#
# ### Exercise 2: a partly shuffled order
#
# **Medium, 10 minutes.** Why it matters: "shuffle $\rho$ tokens" can be read in five ways, and four of them teach something else.
# Here: choose `count` positions anywhere, all choices equally likely; they exchange places among themselves at random; all
# others stay where left to right has them. (A single one has nobody to exchange with.) Return the int64 tensor of positions by rank. Draw from `generator` alone, so
# that the same seed gives the same order on every machine that resumes a run.


# %%
def shuffled_order(length: int, count: int, generator: torch.Generator) -> torch.Tensor:
    ### BEGIN SOLUTION
    ### STUB: return None  # your code
    chosen = torch.randperm(length, generator=generator)[:count]
    positions = torch.arange(length)
    positions[chosen.sort().values] = chosen
    return positions
    ### END SOLUTION


# %%
second = checks.shuffled_order(shuffled_order)
second

# %% [markdown]
# <details><summary>Hint 1</summary><code>torch.randperm(length, generator=generator)[:count]</code> chooses the positions, in a random order already.</details>
# <details><summary>Hint 2</summary>Their places are the same positions, sorted: write the one into the other.</details>
# <details><summary>Solution</summary>In <a href="solutions/{NAME}.ipynb">the solution notebook</a>.</details>
#
# ### What the plan does to the order
#
# The orders come from the package's own curriculum. Each stripe is the order of one row at one step: smooth colour is
# left to right, specks are jumps, and streams look like what they are.

# %%
stripes = [0, 135, 200, 260, 500, *[s for s in range(750, 900) if plan.n_streams(s) == 4][:1]]
rows = [f"step {step}, {plan.in_words(step)}" for step in stripes]
positions = torch.stack([plan.order(step, 1).positions.view(-1) for step in stripes])
lab.report(
    **{
        row.replace(",", ":"): f"{int((p != torch.arange(64)).sum())} moved"
        for row, p in zip(rows, positions, strict=True)
    }
)
lesson_figures.orders(positions, rows, "The order at six steps")

# %% [markdown]
# **Why are sometimes fewer tokens moved than shuffled?** Who exchanges places at random may draw his own place again: of $\rho$ tokens one stays,
# on average, whatever $\rho$ is.
#
# ## 2. Train it, live
#
# The corpus is 4,000 children's tales, told by the lab's grammar. The cockpit below shows loss, held-out price and what is being
# taught. **Press Play and watch**, or run the cells that follow: they train the same model phase by phase, and the cockpit
# follows. (Have you pressed *Play*? Then *Pause* before you run on: the cells take over where it stopped. The table
# of all phases wants a model that has not trained yet; *Kernel, Restart* gives you one.)

# %%
session = Session.begin(recipe, f"{tempfile.mkdtemp()}/run")
cockpit = TrainingCockpit(session, scores=3)
cockpit

# %% [markdown]
# Three things to try while it plays: *Pause* and look at the sample; find the step at which the loss breaks; *Stop and save*, then go on.
#
# After each phase we ask the model for the price of held-out text under four kinds of orders, as lesson 03 did. Two guesses
# first.
#
# **At step 750 the orders change from 16 shuffled tokens to 1, 2 or 4 streams. What will the loss of the training steps do?**
#
# - **a** jump up: streams are new
# - **b** drop at once
# - **c** go on as before: the model is the same

# %%
lab.predict("first-streams", guess="c")

# %% [markdown]
# **And after the last phase, what will the price of *shuffled* orders be, against what it was before the phase?**
#
# - **a** lower: the model has trained on
# - **b** the same: nothing was said about them
# - **c** higher

# %%
lab.predict("price-of-shuffled", guess="b")

# %%
held_out = Text(session.held_out.ids[: 64 * 128], 0)
questions = {
    "left to right": {},
    "16 shuffled": {"shuffled": 16},
    "2 streams": {"streams": 2},
    "4 streams": {"streams": 4},
}
prices = {}


def ask(moment):
    prices[moment] = {
        name: likelihood(session.model, held_out, 64, **order).nats_per_token for name, order in questions.items()
    }


def train_until(step):
    cockpit.run_now(max(0, step - session.training.step))


ask("at the start")
lab.report(
    a_guess_among_1024=f"{math.log(1024):.2f} nats",
    at_the_start=f"{prices['at the start']['4 streams']:.2f}",
)

# %% [markdown]
# Untrained, it pays about $\ln 1024$ nats for each of 1,024 tokens, under any order: it guesses.

# %%
train_until(plan.i_ar)
ask("left to right")

# %%
train_until(plan.i_perm)
ask("ramp")

# %%
train_until(plan.i_strided)
ask("shuffled")

# %%
train_until(recipe.steps)
ask("streams")
along = [price["left to right"] for price in prices.values()]
lab.report(
    left_to_right_grew_cheaper_in_each_phase=along == sorted(along, reverse=True),
    finished=session.training.step == recipe.steps,
)

# %% tags=["nbval-ignore-output"]
lesson_figures.table(prices, title="What each phase did", unit="nats a token")

# %% [markdown]
# Read it row by row. *Left to right* lowers its own column most. The *ramp* and the *shuffled* phase lower all, and the second column by
# most nats. *Streams* lower all but the second column, and there something is lost: what is not practised is
# forgotten. (The last digits differ from machine to machine, and what they say does not.)
#
# And the loss of every step, as the cockpit drew it:

# %% tags=["nbval-ignore-output"]
seen = [(frame["step"], frame["loss"]) for frame in cockpit.frames]
scored = [(frame["step"], frame["nats"]) for frame in cockpit.frames if "nats" in frame]
lesson_figures.lines(
    {"training loss, smoothed": seen, "held out, left to right": scored}, title="This run", x="step", y="nats a token"
)

# %% [markdown]
# The two curves do not show the same thing. The training loss is the price of the orders *being taught*. While the ramp makes them
# harder (steps 112 to 300) it hardly moves, though the model learns fast, as the held-out price shows, which is left to right
# throughout. At step 750 it drops (a smoothed curve takes some steps to show it), and nothing has been learnt in that moment: the questions have become easier. Whoever compares
# a curve of ARMD with one of an AR model must compare held-out prices under one order.
#
# The break in the manual's curve, at the top of this lesson, is of another kind: it *is* a held-out price, and it rose. Where streams
# begin, the schedule of the learning rate starts anew, and large steps shake what was settled; and of the orders that follow only
# one in four is left to right. And what does our model write? (`<|endoftext|>` stands between two tales.)

# %% tags=["nbval-ignore-output"]
print(session.sample())

# %% [markdown]
# ## 3. What each phase is good for
#
# In the run above the model also grew better for the simple reason that it trained longer. To see what an *order* teaches, we hold
# all else fixed: four small models, the same start, the same batches, the same 600 steps, four curricula.
#
# **One of them sees random orders from the first step on. What will it pay left to right, against the one that learnt nothing else?**
#
# - **a** less: it has seen more
# - **b** about the same
# - **c** much more

# %%
lab.predict("random-from-the-start", guess="a")

# %% [markdown]
# **Another is shuffled (8 of 32 tokens) and never sees a stream. What will it pay in 4 streams, against the one that only ever read left to right?**
#
# - **a** as much: neither has seen streams
# - **b** less
# - **c** more: it has wasted steps

# %%
lab.predict("transfer", guess="a")

# %%
N, steps = 32, 600
whole = Curriculum.for_steps(steps, N, rho=8, streams=(1, 2, 4))
curricula = {
    "left to right": Curriculum.left_to_right(N),
    "shuffled": replace(whole, i_strided=steps),
    "streams": replace(whole, i_ar=0, i_perm=0, i_strided=0),
    "random": replace(whole, i_ar=0, i_perm=0, i_strided=steps, rho=N),
}
asked = {"left to right": {}, "8 shuffled": {"shuffled": 8}, "4 streams": {"streams": 4}, "random": {"shuffled": N}}
fresh = Text(session.held_out.ids[: N * 256], 0)


def taught(curriculum, kind=ARMD, steps=steps):
    torch.manual_seed(0)
    model = kind(ARMDConfig(session.tokenizer.vocab_size, N, n_layer=2, n_head=2, d_model=64))
    for _ in Training(model, session.text, Plan(steps, curriculum, learning_rate=5e-3)).run():
        pass
    return {name: likelihood(model, fresh, N, **order).nats_per_token for name, order in asked.items()}


# %%
by_curriculum = {name: taught(curriculum) for name, curriculum in curricula.items()}
best = {question: min(curricula, key=lambda name: by_curriculum[name][question]) for question in asked}
lab.report(**{f"cheapest, asked {question}": f"taught {name}" for question, name in best.items()})
gain = by_curriculum["left to right"]["4 streams"] - by_curriculum["shuffled"]["4 streams"]
lab.report(in_4_streams_shuffled_pays_less_than_left_to_right=gain > 0.1)

# %% tags=["nbval-ignore-output"]
lesson_figures.table(by_curriculum, title="Taught in rows, asked in columns", unit="nats a token")

# %% [markdown]
# Every order is learnt best by practising it: the diagonal wins. But look off the diagonal, at the column *4 streams*. The model that was
# *shuffled* has never seen a stream, and pays far less than the one that only read left to right: it has learnt to predict from a text with
# holes. That is the paper's reason for the second phase. And *random* from the start is the best at random orders
# alone; in every other column it pays more than *shuffled*.
#
# ### Break it
#
# Here is the same training with `LeakyMask` of lesson 01, whose targets can see themselves, for 300 steps left to right. The source itself
# pays 42.06 nats for a tale (lesson X1), which has 164 tokens here: 0.26 a token, and more in rows that begin anywhere. Then
# change `LeakyMask` to `ARMD` and run it again.

# %%
leaky = taught(Curriculum.left_to_right(N), LeakyMask, steps=300)
lab.report(below_what_the_source_pays=leaky["left to right"] < 0.25)

# %% [markdown]
# No model can pay less than the source. A loss that is too good to be true is not true: look for a leak before you celebrate.
#
# ## What to be able to say aloud
#
# - The curriculum is a function from the step to an order: left to right, then a growing number of shuffled tokens, then streams.
# - The training loss prices the orders being taught, so it moves when they change. Compare held-out prices under a named order.
# - What is practised grows cheap, what is not is forgotten; a budget of steps is divided among orders.
# - Shuffling teaches to predict from a text with holes, and so prepares for streams.
#
# ## In the paper, and what we simplified
#
# This is sections 3.2 and 4 of *Auto-Regressive Masked Diffusion Models* (Karami and Ghodsi, arXiv 2601.16971). On OpenWebText the paper
# takes $i_{AR}$ = 9,000, $i_{perm}$ = 48,000 and $\rho$ = 32 of 1,024, then fine-tunes for 10,000 to 80,000 steps with $S$ from {1, 2, 4}; our
# default has the same shape in fewer steps. Here a quarter of the tokens is shuffled, far more than the paper's 3 %, so that its effect
# shows in minutes. The models are small, the text is simple, and one seed is no average; with other sizes the distances change.
# Order curricula are older than ARMD: see sigma-GPT (Pannatier et al., 2024).

# %%
lab.finish("04", the_ramp=first, a_partly_shuffled_order=second)
