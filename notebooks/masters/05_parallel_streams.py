# %% [markdown]
# # 05 Parallel streams
#
# [Open in Colab]({COLAB}) · 45 minutes to read and do, less than a minute to run on a CPU · [back: 04](04_permutation_training.ipynb) · [next: 06](06_exact_parallel.ipynb) · [all lessons](README.md)
#
# After this lesson you will be able to
#
# - **decode** a text in $S$ streams with a KV cache, and say which rows go into each call;
# - **count** the calls that it takes, and say why heads are made one by one;
# - **show** what conditional independence costs, in nats, and where in the text it is paid.
#
# You need: [lesson 03](03_one_pass_likelihood.ipynb) for prices, and the strided order of [lesson 01](01_masking_is_an_order.ipynb).
# Words that are new stand in the [glossary](README.md#glossary).

# %%
import armdlab.lab as lab

lab.start("05")

# %% [markdown]
# ## Where we are going
#
# An autoregressive model makes one token a network call, and each call needs the token that the last one made: $N$ tokens,
# $N$ calls, one after another. To need fewer, some calls must make several tokens. Those cannot see each other. Here are
# twelve words in three *streams*: what has one colour is made in one call. The number is its *rank*, the place in the order.

# %%
import textwrap

import torch

from armdlab import Corrector, GenerationOrder, figures, generate, tales
from armdlab.checks import decoding as checks
from armdlab.decoding import decode_steps
from armdlab.engine import Engine
from armdlab.evaluation import likelihood
from armdlab.figures import lessons as lesson_figures
from armdlab.gated import Gate
from armdlab.masks import ALL_VISIBLE
from armdlab.objectives import nll
from armdlab.rows import Rows

words = "once there was a king and he had a very old cat".split()
figures.ribbon(GenerationOrder.strided(12, 3), words, "Twelve words in three streams")

# %% [markdown]
# ## 1. The strided order
#
# Cut the text into $S$ streams of $N/S$ neighbouring positions; stream $s$ starts at position $s \cdot N/S$, its *head*.
#
# 1. The heads are made first, **one by one**: $S$ calls.
# 2. Then one token of every stream at a time, left to right in each: $N/S - 1$ calls.
#
# As in lesson 00, $\text{calls} = S + N/S - 1$.
#
# Why streams, and not blocks of $S$ neighbours? Neighbours depend on each other most. Tokens that are made together here stand $N/S$ apart, so drawing
# them independently costs little: that is the whole design. It costs most where distant words must agree (a name, a colour), and where $N/S$ is small.
# And it has a price of its own: $N$ is fixed before the first token, since heads stand at multiples of $N/S$. A shorter text ends in padding, and the last streams may hold nothing else.
#
# **A row has $N = 160$ tokens. Which $S$ needs the fewest calls?**
#
# - **a** 8
# - **b** 10
# - **c** 160

# %%
lab.predict("fewest-steps", guess="c")

# %%
N = 160
calls = [(S, S + N // S - 1) for S in range(1, N + 1) if N % S == 0]
lab.report(**{f"S = {S}": f"{count} calls" for S, count in calls})
lesson_figures.lines({"S + N/S - 1": calls}, title="Calls for 160 tokens", x="streams S", y="network calls", log=True)

# %% [markdown]
# A call is not a second: one that makes eight tokens has more to compute than one that makes one, and how much longer it takes
# depends on the machine. The tables of the [README](../README.md) have seconds.
#
# ### Exercise 1: the strided order
#
# **Medium, 8 minutes.** Why it matters: this order is the whole interface between the model and parallel writing. Return two lists of
# $N$ whole numbers each, by rank: the text position that is made, and the block (call) in which it is made, both from 0.
# Inside a block, stream by stream. For $N = 8$, $S = 2$: positions `0 4 1 5 2 6 3 7`, blocks `0 1 2 2 3 3 4 4`.


# %%
def strided(length: int, streams: int) -> tuple[list[int], list[int]]:
    ### BEGIN SOLUTION
    ### STUB: return None  # your code
    lane = length // streams
    positions = [stream * lane + place for place in range(lane) for stream in range(streams)]
    blocks = [rank if rank < streams else streams - 1 + rank // streams for rank in range(length)]
    return positions, blocks
    ### END SOLUTION


# %%
first = checks.strided_order(strided)
first

# %% [markdown]
# <details><summary>Hint 1</summary>Two loops: over places in a stream outside, over streams inside. The position is <code>stream * (length // streams) + place</code>.</details>
# <details><summary>Hint 2</summary>The first S ranks are heads: block = rank. Rank r behind them stands at place <code>r // streams</code> of its stream, and place 1 is block S.</details>
# <details><summary>Solution</summary>In <a href="solutions/{NAME}.ipynb">the solution notebook</a>.</details>
#
# ## 2. Why heads are made one by one
#
# Why not all four heads in the first call, and save three? Two tokens made in one call are drawn independently of each
# other, given all that was made before. Take two coins that always show the same side, each side with chance 1/2.
#
# **A perfect model draws both in one call. How often do they agree?**
#
# - **a** always, for the model is perfect
# - **b** half of the time
# - **c** never

# %%
lab.predict("agreeing-coins", guess="a")

# %% [markdown]
# What is lost has a name, *total correlation*: the nats by which drawing the tokens of block $b$ each for itself differs from
# drawing them jointly, given what came before. It is never negative, and 0 only where they are independent:
#
# $$\text{TC}_b = \sum_{n \in b} H(x_n \mid x_{<b}) - H(x_b \mid x_{<b})$$
#
# Here $H$ is the entropy: the mean price under the true chances. For heads made all at once, nothing came before, and to be blind to each other costs
# most just there. Let us measure it. What a perfect model would pay for each of four heads *by itself* can be counted, without any model: how often does each token stand
# there, in 10,000 tales? What they cost *one by one* our model tells, on 64 tales that it has not seen (a perfect one would pay no more). Its own price at once is printed
# as well: that order is not in the package, but any order can be asked (lesson 03).

# %%
armd = lab.load("tales")
rows = Rows.encode([tales.sample(seed).text for seed in range(100, 164)], armd.tokenizer, length=N)
ids = rows.pad(torch.arange(64))


def prices(order):
    with torch.no_grad():
        return torch.cat([nll(armd.model, part, order, "none") for part in ids.split(16)]).double()  # (64, N)


# %%
four = GenerationOrder.strided(N, 4)
at_once = GenerationOrder(four.positions, [rank // 4 for rank in range(N)])
heads = [0, 40, 80, 120]
many = Rows.encode(list(tales.tales(10_000, 1)), armd.tokenizer, length=N).pad(torch.arange(10_000))[:, heads]
alone = [float(torch.special.entr(column.bincount() / len(many)).sum()) for column in many.T]
print(f"heads, each by itself: {' + '.join(f'{nats:.2f}' for nats in alone)} = {sum(alone):.2f} nats, counted")
for name, order in {"one by one": four, "at once": at_once}.items():
    paid = prices(order).mean(0)[heads]
    print(f"heads {name}: {' + '.join(f'{nats:.2f}' for nats in paid)} = {paid.sum():.2f} nats")

# %% [markdown]
# The second line is smaller than the first: each head is predicted from those before it, and three calls out of 43 pay for it. The difference is total correlation, or a little less, as our model is
# not perfect. Do not take the third line for it: nobody taught the model this order, and asked with nothing but BOS in sight it hardly knows where in the text it stands (lesson 02, section 2). Practice would bring that
# price down to the first line, and no further. And what
# comes out when it is written? Three rows in each way, the first five tokens of every stream:


# %%
def start_of_each_stream(order, seed, shown=5):
    row = armd.tokens(length=N, order=order, seed=seed)[0].view(4, -1)[:, :shown]
    return " | ".join(armd.tokenizer.decode(lane.tolist()).split("<|endoftext|>")[0].strip() for lane in row)


for seed in (0, 1, 2):
    print(f"one by one: {start_of_each_stream(four, seed)}")
    print(f"at once:    {start_of_each_stream(at_once, seed)}")

# %% [markdown]
# ## 3. A cache: compute nothing twice
#
# A call needs all tokens that were made so far. But their keys and values do not change: a row of X sees only its own block and
# earlier ones (lesson 02), so later tokens cannot alter it. Hence the *KV cache*: each layer keeps the keys and values
# of its rows, prefix aggregation keeps its state, and a call computes new rows only:
#
# - **evidence**, rows of X: the tokens that the last call made (BOS in the first call);
# - **targets**, rows of G: the positions that this call is to predict; their logits come out.
#
# (An AR transformer has one row a token, which is both. Two are not twice the work: X ends with the two-stream layers, and G makes no keys and values there, so it is about 1.3 times again, as in lesson 02.)
#
# **160 tokens in four streams, 43 calls. How many rows of X and G go through the network in all, with a cache?**
#
# - **a** 43 calls of 320 rows, 13,760
# - **b** 43, one a call
# - **c** 317

# %%
lab.predict("rows-with-a-cache", guess="a")

# %% [markdown]
# ### Exercise 2: which rows go in, which come out
#
# **Medium, 8 minutes.** Why it matters: a row too few and the model forgets a word; a row too many and it is counted twice. `steps` lists,
# for each call, the text positions that it makes; so `steps[0]` is `[0]`. Return two lists for call `k`: the positions whose
# tokens go in as new evidence, and those that are its targets. BOS goes in by itself.


# %%
def rows_of_a_call(steps: list[list[int]], k: int) -> tuple[list[int], list[int]]:
    ### BEGIN SOLUTION
    ### STUB: return None  # your code
    return (steps[k - 1] if k > 0 else []), steps[k]
    ### END SOLUTION


# %%
second = checks.rows_of_a_call(rows_of_a_call)
second

# %% [markdown]
# <details><summary>Hint 1</summary>What did earlier calls take in? All that was made before the last call. So what is new?</details>
# <details><summary>Hint 2</summary>In Python <code>steps[-1]</code> is the last step: mind call 0.</details>
# <details><summary>Solution</summary>In <a href="solutions/{NAME}.ipynb">the solution notebook</a>.</details>

# %% [markdown]
# Now do it with the package's engine. An `Engine` is the same network, packed to run a few rows at a time. We feed it one
# tale, call by call, and take the price of each token when it is due. (The rows are spelt out once more, so that the lesson
# goes on without your answer.)

# %%
engine, tale = Engine.of(armd.model), ids[:1]
cache = engine.new_cache(batch_size=1, length=N)
steps = [four.positions[four.blocks == block] for block in range(four.n_blocks)]
cached, n_rows = torch.zeros(N), 0
with torch.no_grad():
    for k, targets in enumerate(steps):
        evidence = steps[k - 1] if k else torch.tensor([], dtype=torch.int64)
        hidden = engine.hidden(
            tale[:, evidence], evidence, targets, ALL_VISIBLE, cache
        )  # all that is cached may be seen
        log_p = engine.head(hidden).float().log_softmax(-1)  # (1, targets, V)
        cached[targets] = -log_p[0, range(len(targets)), tale[0, targets]]
        n_rows += len(evidence) + (k == 0) + len(targets)

# %%
one_pass = prices(four)[0]
lab.report(calls=len(steps), rows=n_rows, kilobytes_of_cache=cache.n_bytes // 1024)
is_near = bool((cached - one_pass).abs().max() < 1e-5)
lab.report(price_of_the_tale=float(one_pass.sum()), **{"each token within 1e-5": is_near})

# %% [markdown]
# The 160 prices of 43 small calls are those of one full pass, to 1e-5: the cache is no approximation. No mask was needed, for a cache holds
# only what may be seen. That is the whole decoder; `decode_steps` adds the drawing of tokens.
#
# **Break it:** once streams run, forget what the first of them made last (`steps[k - 1][-3:]` in place of `steps[k - 1]`; a head still goes in), and run both cells again. Nothing stops you; only the price rises, to several times what it was.
#
# ### Watch the streams
#
# A text in four streams, after 4, 16 and 43 calls. A bar begins a stream, and the text is read stream after stream.

# %%
made = torch.full((1, N), -1)
for call, step in enumerate(decode_steps(armd.engine, length=N, streams=4, seed=1), 1):
    step.write_into(made)
    if call in (4, 16, 43):
        print(f"after {call} calls")
        for lane in made.view(4, -1):
            stream = armd.tokenizer.decode([i for i in lane.tolist() if i >= 0]).split("<|endoftext|>")[0]
            print(textwrap.fill(stream, 80, initial_indent="   | ", subsequent_indent="     "))

# %% tags=["nbval-ignore-output"]
from armdlab.widgets.stream_viewer import StreamViewer

StreamViewer({"tales": armd})

# %% [markdown]
# In the viewer, press *Write* with 1 stream, then with 8, and point at tokens: which were unsure, and what had they seen?
#
# Look at the seams, where a stream runs into the head of the next one: its last words must fit a beginning that was written
# long before. And look for words that two streams have both used, or that neither has prepared.
#
# ## 4. What it costs
#
# What does a tale cost when it is made in streams? Exact prices, one pass each, of the 64 tales, in nats a token.

# %%
by_streams = {S: likelihood(armd.model, rows, N, streams=S).nats_per_token for S in (1, 2, 4, 8)}
lab.report(**{f"S = {S}, nats a token": nats for S, nats in by_streams.items()})
per_tale = {f"S = {S}": nats * len(rows.ids) / 64 for S, nats in by_streams.items()}
lesson_figures.bars(per_tale, title="The same tales, made in streams", x="nats a tale")

# %% [markdown]
# The first is the smallest. Now position by position: the price in four streams minus the price left to right, mean over the tales.
# (A row is a tale and its padding, which is part of what the streams write, and paid for too.)
#
# **What does the first stream pay, positions 0 to 39, compared with left to right?**
#
# - **a** less
# - **b** the same, for it too is written left to right
# - **c** more, as all do

# %%
lab.predict("what-the-first-stream-pays", guess="b")

# %%
plain = prices(GenerationOrder.left_to_right(N))
extra = {S: (prices(GenerationOrder.strided(N, S)) - plain).mean(0) for S in (2, 4, 8)}
dearest = int(extra[4].argmax())
lab.report(dearest_position=dearest, it_pays=f"{extra[4][dearest]:+.2f} nats", whole_row=f"{extra[4].sum():+.2f} nats")
lab.report(**{f"stream_{s + 1}": f"{nats:+.2f} nats" for s, nats in enumerate(extra[4].view(4, -1).sum(-1))})
lesson_figures.lanes(extra[4], 4, title="Four streams against left to right", unit="extra nats")

# %% [markdown]
# The dearest position is a head, or stands close behind one: a head opens its quarter of a tale of which hardly a word is known. The tokens behind it pay
# while their stream is short. The first stream gains, for it can look ahead. Now add up from the left: where does the
# curve jump, where does it fall?

# %%
curves = {f"S = {S}": list(enumerate(extra[S].cumsum(0).tolist())) for S in (2, 4, 8)}
lab.report(**{name: f"{points[-1][1]:+.2f} nats a row" for name, points in curves.items()})
lesson_figures.lines(curves, title="Extra nats so far", x="text position", y="nats, summed from the left")

# %% [markdown]
# Two things make a row in streams dearer: tokens of one call cannot see each other (total correlation), and the order asks for
# words before what leads up to them. For a perfect model the second would cost nothing: by the chain rule every order
# that goes one by one has the same price. We can ask for the order of four streams, but one token a call:

# %%
one_by_one = GenerationOrder(four.positions, range(N))
row = {"left to right": plain, "four streams": prices(four), "their order, one a call": prices(one_by_one)}
lab.report(**{name: f"{nats.sum(-1).mean():.2f} nats a row" for name, nats in row.items()})

# %% [markdown]
# The difference of the last two estimates what is lost because tokens of a call are blind to each other, 40 tokens apart; that of the last and the first, what it
# costs to begin in the middle. Which is larger? (With one reserve: for most of its training the model practised the last order half as often as
# streams, so the estimate may be too low.)
#
# ## 5. Streams that wait
#
# If some tokens are sure and others are guesses, let the sure ones go first. A *gate* commits a drawn token only if the
# model gave it at least a probability $p$; other streams wait, and try again with more evidence. The surest one always
# passes, so that every call makes at least one token.

# %%
lab.show_source(Gate.passes)

# %% [markdown]
# Eight streams, 64 texts for each threshold. At 0 nobody waits: 8 heads one by one, then 19 steps of all streams, 27 calls. At 1, streams go one at a time.


# %%
def calls_and_valid(p):
    made, calls = torch.full((64, N), -1), torch.zeros(64)
    how = {"end": armd.tokenizer.end_of_text, "batch_size": 64, "seed": 0}
    for step in decode_steps(armd.engine, length=N, streams=8, gate=Gate(min_probability=p), **how):
        step.write_into(made)
        calls += (step.positions >= 0).any(-1)
    valid = sum(tales.parse(armd.read(row.clamp(min=0).tolist())) is not None for row in made)
    return float(calls.mean()), valid


thresholds = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9)
found = {p: calls_and_valid(p) for p in thresholds}
for p, (mean_calls, valid) in found.items():
    print(f"p >= {p}: {mean_calls:.1f} calls a text, {valid} of 64 are tales without a fault")
by_threshold = {"gated, 8 streams": [(p, mean_calls) for p, (mean_calls, _) in found.items()]}
levels = {"8 streams": 27.0, "left to right": 160.0}
lesson_figures.lines(
    by_threshold, title="Calls against the threshold", x="threshold p", y="calls a text", levels=levels
)

# %% [markdown]
# So one number buys care with calls, up to a point (of 64 texts, a count has a standard error of up to 4). But a gate is no free lunch: a token that was drawn and refused is drawn anew, so likely
# words are favoured, and what comes out is not quite the model's distribution. A gate on entropy (`Gate(max_entropy=...)`) looks
# before it draws.
#
# ## 6. A second reading
#
# Or write first, and read afterwards. The finished text is priced once more, left to right, in one pass. Where a word is much dearer now than when it
# was written, two streams did not know of each other: it is drawn anew with its neighbours, given *all the rest*, and stays if the
# text is cheaper for it. (Dearer by more than 5 nats, that is: a name drawn from sixty costs 4.1 wherever it comes first, and nothing afterwards.)


# %%
def read_again(correct):
    how = {"length": N, "streams": 8, "end": armd.tokenizer.end_of_text, "batch_size": 64, "seed": 0}
    return generate(armd.engine, correct=correct, **how)


before, after = read_again(None), read_again(Corrector(above=5.0))
for name, texts in {"as written": before, "read again": after}.items():
    valid = sum(tales.parse(armd.read(row.tolist())) is not None for row in texts)
    print(f"{name}: {valid} of 64 are tales without a fault")
for old, new in zip(before, after, strict=True):
    changed = (old != new).nonzero().flatten()
    if len(changed) == 1:
        around = slice(max(0, int(changed) - 9), int(changed) + 5)
        print("  ", armd.tokenizer.decode(old[around].tolist()), "->", armd.tokenizer.decode(new[changed].tolist()))

# %% [markdown]
# Neither reading is the truth; where they disagree, one of them has missed something. All of it takes a few calls a text, most of them only where
# there is a doubt. As behind a gate, what comes out is no longer the distribution of streams: it is nearer to that of one token after another.
#
# ## What to be able to say aloud
#
# - $N$ tokens in $S$ streams take $S + N/S - 1$ calls; calls are not seconds.
# - Heads are made one by one, because at once they would be drawn from nothing.
# - With a cache, each token goes in once as evidence and once as a target; the prices are those of one full pass.
# - Tokens of one call are independent given the earlier ones. What this costs at least is the total correlation of the call.
# - The heads of streams, and what stands right behind them, pay; the first stream gains, because it can look ahead.
# - One pass in another order finds where streams contradict each other, and the model itself can mend it.
#
# ## In the paper, and what we simplified
#
# This is *strided block-parallel* generation, section 3.1 of *Auto-Regressive Masked Diffusion Models* (Karami and Ghodsi,
# arXiv 2601.16971), with the recurrent form of section 3.3. Gated streams are not in the paper; the idea comes from samplers of
# masked diffusion that go by confidence (Chang et al., 2022; Fast-dLLM, Wu et al., 2025). Nor is the second reading; informed correctors of
# masked diffusion (Zhao et al., 2024) are its kin. Prices here are of a small model on tales
# with few rules; natural text has more that ties distant words together.

# %%
lab.finish("05", the_strided_order=first, the_rows_of_a_call=second)
