# %% [markdown]
# # 08 The tables
#
# [Open in Colab]({COLAB}) · 50 minutes to read and do, about two minutes to run on a CPU · [back: 07](07_infill_and_edit.ipynb) · [next: X1](x1_tales.ipynb) · [all lessons](README.md)
#
# After this lesson you will be able to
#
# - **reproduce** the paper's three tables at a laptop's budget, and say which of their relations hold;
# - **ask** of any published number what it was measured on, under which order, averaged how, and in which unit;
# - **launch** the paper's own budget on GPUs, and say beforehand how long it takes.
#
# You need: [lesson 03](03_one_pass_likelihood.ipynb) for prices and bounds, [lesson 05](05_parallel_streams.ipynb) for streams. Words that are new stand in the [glossary](README.md#glossary).

# %%
import armdlab.lab as lab

lab.start("08")

# %% [markdown]
# ## Where we are going
#
# A paper's claim lives in its tables. This is Table 3 as this lab measured it: held-out perplexity of ARMD, of an autoregressive model and of
# masked diffusion, trained from nothing by `armdlab reproduce table3`. The result is recorded in `data/tables/`, with all of its conditions.

# %%
import math
import textwrap
import time

import torch

from armdlab import ARMD, ARMDConfig, Corrector, tales
from armdlab.budgets import BUDGETS
from armdlab.checks import tables as checks
from armdlab.decoding import generate
from armdlab.evaluation import any_order, bound, likelihood
from armdlab.figures import lessons as lesson_figures
from armdlab.figures import tables as table_figures
from armdlab.objectives import nll
from armdlab.rows import Rows
from armdlab.samples import diversity, validity, write_tales
from armdlab.tables import recorded
from armdlab.tale_evaluation import excess_nats

table3 = recorded("table3")
table_figures.bars(table3)

# %% [markdown]
# A laptop cannot train 125 million parameters on a billion words, so the numbers are other numbers. What can be compared is how models
# **relate**: behind each figure stands its ratio to the autoregressive model's (x). Unfold the conditions; each figure says its own.

# %%
table3

# %% [markdown]
# Behind +- stands a standard error: over three seeds for AR and ARMD, over rows of text for the others, of which there is one run each. Read with three rules of thumb:
#
# - a difference smaller than two standard errors is no difference;
# - a *bound* is compared with a bound, an exact figure with an exact one;
# - steps, seconds and tokens seen are three different costs; a ratio at equal steps says nothing of the others.
#
# Try them on ARMD after 240 steps and MDLM after 2,400, ten times as many. 24.1 looks far below 29.9, but by the second rule the two should not be compared
# at all: MDLM's is a bound. On 16 rows both have figures that are exact (MDLM's in the limit of many orders), ARMD's of 20.75 after 48 steps more in streams, and MDLM's of 26.3. The difference is 2.6 of its standard errors, and more than
# that in truth: the +- is mostly how much rows differ, and both read the same rows. (These rows are easier than the rest, so 29.9 on all beside 26.3 on them is
# not the gap between bound and truth: for that, look at the bound on the same rows, 27.6, which is 5 % above.) So the claim that survives is about steps: after 240 of them,
# and 48 in streams, ARMD's perplexity is a fifth below that of MDLM after 2,400.
#
# Two ratios look unlike the paper's. ARMD is 30 % *better* than AR here, there 4 % worse after 300,000 steps and 2 % better after a million. After only 240 steps it may just learn
# faster, and this table cannot say whether the lead lasts (with a table of position embeddings in the place of the waves of lesson 02 it led by 15 % after 240 steps, and no more after 960). *Block diffusion* writes blocks
# from left to right and denoises inside each; it was given 240 steps, after which MDLM stood at 278, so its ratio says nothing about the paper's.
#
# ## 1. One model, many perplexities
#
# Now live, on the shipped models of tales. The objects that measure in this package say what they measured. The same 32 tales, by three models:

# %%
armd, ar, mdlm = (lab.load(name) for name in ("tales", "tales_ar", "tales_mdlm"))
N, held_out = 160, [tales.sample(seed).text for seed in range(100, 132)]
rows = Rows.encode(held_out, armd.tokenizer, length=N)
figures = {
    "AR": likelihood(ar.model, rows, N, name="32 tales"),
    "ARMD": likelihood(armd.model, rows, N, name="32 tales"),
    "ARMD in 4 streams": likelihood(armd.model, rows, N, streams=4, name="32 tales"),
    "MDLM": bound(mdlm.model, rows, N, samples=2, name="32 tales"),
}
for name, figure in figures.items():
    print(textwrap.fill(f"{name}: {figure}", 80, subsequent_indent="    "))

# %% [markdown]
# Three of these are exact, each for the order that it names; *at most* stands before the fourth, for it is a bound.
#
# **MDLM's perplexity on LM1B is printed as 31.78 in the paper (Table 3) and as 26.82 by Eso-LMs (Sahoo et al., 2025), for the same weights. Who is wrong?**
#
# - **a** the first: numbers that are too high are mistakes
# - **b** the second: one cannot beat one's own paper
# - **c** neither

# %%
lab.predict("two-papers", guess="a")

# %% [markdown]
# Both for our own MDLM, on three tales (lesson 03 has the formulas):

# %%
few = Rows.encode(held_out[:3], mdlm.tokenizer, length=N)
exact = any_order(mdlm.model, few, N, n_orders=2, name="3 tales")
print(textwrap.fill(f"MDLM: {exact}", 80))
lab.report(bound_minus_exact=f"{exact.mean_of_logs - exact.nats_per_token:.4f} nats a token")

# %% [markdown]
# The difference is never negative, by Jensen's inequality, and on average it grows with the number of orders that are drawn. It favours the model whose
# figure is exact: a table that sets an exact ARMD beside a bounded MDLM has too kind a ratio, and where the two are close, it cannot say who is ahead.
# Look for both in Table 3 above.
#
# ### Exercise 1: the perplexity of a corpus
#
# **Easy, 5 minutes.** Why it matters: papers average in at least three ways, and each flatters somebody. You get the nats of every token, one list
# for each text. Return the perplexity as nearly everybody defines it: exp of the mean over **all tokens**.


# %%
def perplexity(nats: list[list[float]]) -> float:
    ### BEGIN SOLUTION
    ### STUB: return None  # your code
    return math.exp(sum(map(sum, nats)) / sum(map(len, nats)))
    ### END SOLUTION


# %%
first = checks.perplexity(perplexity)
first

# %% [markdown]
# <details><summary>Hint 1</summary>Two sums: of all nats, and of all lengths. Texts do not matter, tokens do.</details>
# <details><summary>Hint 2</summary>One division, one <code>math.exp</code>, in this order.</details>
# <details><summary>Solution</summary>In <a href="solutions/{NAME}.ipynb">the solution notebook</a>.</details>

# %% [markdown]
# How much does it matter? ARMD writes 32 texts in eight streams, AR judges them, and the same nats are averaged in three ways:

# %%
written = [armd.tokenizer.encode(text) for text in write_tales(armd.engine, armd.tokenizer, 32, streams=8)]
with torch.no_grad():
    nats = [nll(ar.model, torch.tensor([ids]), None, "none")[0].double() for ids in written]
of_texts = torch.stack([each.mean() for each in nats])
averages = {
    "exp of the mean over tokens": float(torch.cat(nats).mean().exp()),
    "exp of the mean over texts": float(of_texts.mean().exp()),
    "mean over texts of exp": float(of_texts.exp().mean()),
}
lab.report(**averages)
title = "The same nats, averaged in three ways"
lesson_figures.bars(averages, title=title, x="generative perplexity by the AR judge", digits=2)

# %% [markdown]
# The third is never below the second, since exp bends upwards. When a paper does not say which it took, you cannot compare.
#
# ## 2. What they write, and how to flatter it
#
# Table 2 lets models write, and a larger one judge. Here is ours (`ar_0` is the AR model of seed 0):

# %%
recorded("table2")

# %% [markdown]
# Which relations of the paper hold? ARMD left to right does as well as AR, here far better. Two streams cost 3.5 % and four 10 %, both +- 2 %, near the paper's 4 and 8 %; eight cost 29 %. MDLM was three
# times as bad as AR there, and here, after ten times the steps, 15 % worse in about as many calls as ARMD in four streams, which is far better than either. The rows of 512 are
# another model's, so lengths are not compared; within them streams cost 1, 4 and 11 %. The paper has no *corrected* lines: texts read again, as in lesson 05. There four streams cost 4 % and eight 13 %, of 512 tokens 2 and 4 %, at an
# entropy as before, for some 25 calls more (unfold the conditions: 91 and 65, as many as the slowest of 64 texts needs).
#
# Where do streams pay? The judge can say it place by place (`armdlab bench seams`). A text in eight streams costs it 63 nats more than one left to right, all of them within four tokens of the seven *seams*: a head costs
# 8.9 nats, not 3.9, for it was drawn before the words that should lead up to it, and these have not yet learnt to. To a model that knows every order equally well seams would cost nothing. (Elsewhere in
# a text streams cost nothing, blind as tokens of one call are to each other.) So what a second reading doubts are seams, and little else.
#
# Each figure stands beside an **entropy**, for a good reason: a model that repeats itself is easy to foresee. The paper's entropies, of texts of 1,024
# tokens, lie between 7.9 and 8.1. Entropy here is that of the *frequencies of the tokens inside a text*, mean over the texts.
#
# **In which unit?**
#
# - **a** in nats, as most papers of this field have it
# - **b** in bits
# - **c** one cannot know

# %%
lab.predict("which-unit", guess="a")

# %% [markdown]
# ### Exercise 2: the entropy of samples, in both units
#
# **Medium, 8 minutes.** Why it matters: 8.1 looks like much more than 5.6, and is the same thing. Given samples, each a list of token ids, return two numbers:
# the entropy of the frequencies inside a sample, mean over the samples, in nats and in bits.


# %%
def entropy_of_samples(samples: list[list[int]]) -> tuple[float, float]:
    ### BEGIN SOLUTION
    ### STUB: return None  # your code
    def entropy(sample):
        shares = [sample.count(token) / len(sample) for token in set(sample)]
        return -sum(share * math.log(share) for share in shares)

    nats = sum(map(entropy, samples)) / len(samples)
    return nats, nats / math.log(2)
    ### END SOLUTION


# %%
second = checks.entropy_of_samples(entropy_of_samples)
second

# %% [markdown]
# <details><summary>Hint 1</summary>For one sample: count each kind of token, divide by the length, and sum -share * log(share).</details>
# <details><summary>Hint 2</summary>A bit is ln 2 = 0.693 nats, so the number of bits is the larger one.</details>
# <details><summary>Solution</summary>In <a href="solutions/{NAME}.ipynb">the solution notebook</a>.</details>

# %% [markdown]
# Let us cheat. One and the same ARMD writes in eight streams, at lower and lower temperature. Nothing about the model gets better. What does the judge say?


# %%
def looked_at(tokens):
    """Of samples (R, N): perplexity by the judge, entropy in bits, share without a fault, bits a word pooled."""
    is_end = tokens == armd.tokenizer.end_of_text
    text = is_end.cumsum(-1) - is_end.long() == 0  # up to its end: the judge never learnt what padding costs
    with torch.no_grad():
        nats = nll(ar.model, tokens, None, "none").double()[text]
    shares = [torch.bincount(row[mask]) / mask.sum() for row, mask in zip(tokens, text, strict=True)]
    entropy = torch.stack([torch.special.entr(share).sum() for share in shares]).mean()
    texts = [armd.read(row.tolist()) for row in tokens]
    sound, pooled = validity(texts).is_consistent.value, diversity(texts).nats_per_word
    return float(nats.mean().exp()), float(entropy) / math.log(2), sound, pooled / math.log(2)


seen = {"real tales": looked_at(rows.pad(torch.arange(32)))}
for temperature in (1.0, 0.7, 0.4, 0.1):
    tokens = generate(armd.engine, length=N, streams=8, temperature=temperature, batch_size=32, seed=0)
    seen[f"temperature {temperature}"] = looked_at(tokens)
for name, (judged, bits, sound, pooled) in seen.items():
    shown = f"{name}: perplexity {judged:.3f}, entropy {bits:.3f} bits"
    print(f"{shown}, without a fault {sound:.2f}, pooled {pooled:.3f} bits")
points = [(float(name.split()[1]), found[0]) for name, found in seen.items() if name != "real tales"]
real = {"real tales": seen["real tales"][0]}
lesson_figures.lines(
    {"8 streams": points}, title="Cooler and cooler", x="temperature", y="generative perplexity", levels=real
)

# %% [markdown]
# Nothing about the model got better, and in the end the judge finds its texts *as likely as real tales*, although 7 of the 32 still have a fault. (32 texts are few.) A
# perplexity near that of the truth is no quality: the coolest model tells what is likeliest, again and again. Entropy *inside* a text hardly moves, for a tale has
# its words at any temperature. What goes is the variety *between* texts, which the last column counts and Table 2 keeps among its conditions: words of all texts
# pooled. So a generative perplexity is a number only together with entropy, length, temperature,
# nucleus, judge and number of samples. Unfold the conditions of Table 2 above: each of its figures says them all.
#
# There is a way to cheat without knowing. Drawing a token by the *Gumbel trick* adds $g = -\ln(-\ln u)$ to each log-probability and takes the largest. With $u$ in
# float32, $g$ has a ceiling and a floor:

# %%
unit = torch.tensor(2.0**-24)  # spacing of torch.rand in float32
highest, lowest = (float(-(-u.log()).log()) for u in (1 - unit, unit))
lab.report(highest=highest, lowest=lowest, rarest_that_can_win=f"{math.exp(lowest - highest):.1e} of the likeliest")

# %% [markdown]
# **In the first of 1,024 denoising steps the mask itself wins with chance 1,023/1,024 (with $k$ steps left, $(k-1)/k$), and words compete with it. What does sampling in float32 do to the perplexity of masked diffusion?**
#
# - **a** it makes it look worse
# - **b** it makes it look better
# - **c** nothing that one could measure

# %%
lab.predict("float32-noise", guess="c")

# %% [markdown]
# ## 3. A ruler that does not bend
#
# Table 1 prices texts that a model has never seen the like of. Ours is recorded, too:

# %%
recorded("table1")

# %% [markdown]
# One relation of the paper does not hold at our size: there ARMD (400,000 steps) beats GPT-2 on four corpora of five, here it ties with AR on tales, and on the manual it is dearer, by four
# standard errors of the difference. A model that has read nothing but the Bible knows little of Python or of tales, and near 250 or 2,000 this compares ways to be wrong. It is
# reported all the same.
#
# A perplexity per token belongs to a tokenizer: cut words into more pieces, and each piece gets cheaper. Ratios within a column compare, columns do not.
#
# All of these rulers are other models, or other texts. For tales the truth itself is known (lesson [X1](x1_tales.ipynb)): the nats *above the entropy of the source*, whose zero is perfection.

# %%
for S in (1, 2, 4, 8):
    excess = excess_nats(armd.model, armd.tokenizer, held_out, streams=S)
    print(
        f"ARMD, {excess.order}: {excess.nats_per_tale:.3f} +- {excess.standard_error:.3f} nats a tale above the truth"
    )
excess = excess_nats(ar.model, ar.tokenizer, held_out)
print(textwrap.fill(f"AR: {excess}", 80))

# %% [markdown]
# ## 4. Steps, seconds, and who is ahead when
#
# A table shows where runs ended. Their way there shows more: these are the runs of Table 3, held-out perplexity against steps, and against seconds.

# %%
ends = {name: history[-1] for name, history in table3.curves.items() if history}
for name, end in ends.items():
    print(f"{name}: {math.exp(end['nats_per_token']):.2f} after {end['step']:,} steps")
table_figures.curves(table3.curves, title=table3.title)

# %% [markdown]
# Look for crossings. A model may lead per step and trail per second, or the other way round, and whoever chooses the axis chooses the winner. ARMD's last part is
# practice in streams: the hump at the end is what it costs left to right, and it is more than paid back. The machine had other work at the same time:
# steps repeat, seconds do not.
#
# The other trade-off is at writing. Nine ways to write a tale: the share of 24 tales that have no fault, and seconds for one tale, alone in its batch (the faster of two).


# %%
def way(writer, **how):
    """(share of 24 tales without a fault, seconds for one)."""
    texts = write_tales(writer.engine, writer.tokenizer, 24, length=N, temperature=0.7, **how)
    seconds = []
    for seed in range(2):
        alone = dict(how)
        if "steps" in alone:
            alone = {"order": writer.denoising_order(alone["steps"], length=N, seed=seed)}
        started = time.perf_counter()
        writer.write(length=N, temperature=0.7, seed=seed, **alone)
        seconds.append(time.perf_counter() - started)
    return validity(texts).is_consistent.value, min(seconds)


ways = {"AR": way(ar)}
ways |= {f"ARMD S={S}": way(armd, streams=S) for S in (1, 2, 4, 8)}
ways |= {f"ARMD S={S} verified": way(armd, streams=S, verify=True) for S in (4, 8)}
ways |= {f"ARMD S={S} corrected": way(armd, streams=S, correct=Corrector(above=5.0)) for S in (4, 8)}
ways |= {f"MDLM {steps} steps": way(mdlm, steps=steps) for steps in (14, 43)}
for name, (sound, seconds) in ways.items():
    print(f"{name}: {sound:.3f} without a fault, {seconds:.3f} s a tale")

# %% tags=["nbval-ignore-output"]
table_figures.front(ways, title="Quality against time, one tale at a time", y="share of tales without a fault")

# %% [markdown]
# Whatever lies below the line is beaten: something else is as fast and better, or as good and faster. The line moves with the machine. On a GPU a
# call with many rows costs what one with few does, and *verified* moves to the left; in large batches it moves to the right (lesson 06).
# And 24 tales give a standard error of up to 0.1, so do not believe small steps of the line.
# (The shipped MDLM had far fewer steps and tales than the other two, so the picture says nothing of masked diffusion at equal training; Table 3 does.)
#
# Watch them: ARMD in eight streams, AR, and MDLM in as many calls write at the same time, each by its own clock. What stands there was recorded; *Start* lets them run on your machine.

# %% tags=["nbval-ignore-output"]
from armdlab.widgets.stream_viewer import Race

Race()

# %% [markdown]
# ## 5. The paper's own budget
#
# What stands between you and the paper's numbers is mostly a machine, and three choices that were ours: the learning rate, which the paper does not state (MDLM's 3e-4);
# on LM1B the tokenizer of GPT-2 (the paper: that of BERT); and a judge that is trained here (the paper: GPT-2 Large). So compare ratios, not perplexities. All recipes are in the package.
#
# A transformer of $P$ parameters needs about $2P$ operations a token going forward and twice as much going backward, $6PD$ for $D$ tokens. An H100 can do
# 989 TFLOP/s in bf16 on paper, and 40 % of that in good training code. (This leaves out attention's own products, and that two-stream layers
# run on X and on G: lesson 02 counted how much that adds.)

# %%
for name, recipe in BUDGETS["gpu"].recipes.items():
    with torch.device("meta"):  # shapes without memory
        sizes = {name: getattr(recipe, name) for name in ("n_layer", "n_head", "d_model", "tie_weights")}
        config = ARMDConfig(50_257, recipe.length, **sizes)
        parameters = ARMD(config).n_parameters
    tokens = recipe.steps * recipe.batch_size * recipe.length
    days = 6 * parameters * tokens / (0.4 * 989e12) / 86_400
    shown = f"{name}: {parameters / 1e6:.0f} M parameters, {recipe.steps:,} steps, {tokens:.3g} tokens"
    print(f"{shown}, {days:.1f} days of an H100")

# %% [markdown]
# (124 M is what the paper calls 125 M: as in GPT-2, embedding and head are one table, of 38.6 M parameters.) A table needs several of these runs. On a machine that has the card, this is all there is to do (do not run it here):
#
#     armdlab reproduce table2 --budget gpu --out /scratch/armd
#
# It trains what is missing, can be stopped and goes on, measures, and writes the table beside the paper's. The same with `--budget laptop` makes the tables
# of this lesson, in one to three hours on one core.
#
# ## Seven questions to a published number
#
# 1. Exact, or a bound? Under which order, or over how many?
# 2. The mean over what: tokens, rows, or texts? Is position 0 scored, is padding, is the remainder dropped?
# 3. Whose tokens? And how was the text cleaned before?
# 4. Nats or bits?
# 5. How many samples, how long, at which temperature, with which nucleus? (Does its *top p* keep the token that crosses p?)
# 6. In which precision was chance drawn, and was any sample thrown away?
# 7. Equal parameters, equal tokens, equal seconds: which of them, and averaged weights or the last ones?
#
# ## What to be able to say aloud
#
# - A perplexity is exp of nats per token: of a text, a tokenizer, an order. Without these it is no number.
# - A bound beside an exact figure favours the exact one; where they are close, it does not say who is ahead.
# - Generative perplexity falls when a model says the likeliest again and again. Entropy inside a text, with its unit, tells repetition; variety between texts tells the rest.
# - Calls, steps and seconds are three different axes.
# - Where the truth is known, measure against it.
#
# ## In the paper, and what we simplified
#
# Tables 1 to 3 of *Auto-Regressive Masked Diffusion Models* (Karami and Ghodsi, arXiv 2601.16971) use 125 million parameters (Table 1 also 345 million), OpenWebText and LM1B; their judge is GPT-2 Large. Ours are
# trained for minutes on the King James Bible, and a larger model of the same text judges. So relations can be tested here, and sizes cannot.

# %%
lab.finish("08", perplexity=first, entropy=second)
