# %% [markdown]
# # 02 Strictly causal
#
# [Open in Colab]({COLAB}) · 50 minutes to read and do, under a minute to run on a CPU · [back: 01](01_masking_is_an_order.ipynb) · [next: 03](03_one_pass_likelihood.ipynb) · [all lessons](README.md)
#
# After this lesson you will be able to
#
# - **say** why the right mask alone leaks, and why shifting the query by one token is no cure;
# - **build** prefix aggregation (eq. 6) in its two forms, and the two streams (eq. 7);
# - **test** any model for leaks, bit by bit.
#
# You need: [lesson 01](01_masking_is_an_order.ipynb), and attention written with queries, keys and values. Words that are new
# stand in the [glossary](README.md#glossary).

# %%
import armdlab.lab as lab

lab.start("02")

# %% [markdown]
# ## Where we are going
#
# One transformer, two rows for each token. The rows of **X** hold tokens that are known, the *evidence*. The rows of **G** hold
# no token at all, only the question *what stands at this position?*: the *targets*. Both read X, under the two masks of
# lesson 01. BOS, *beginning of sequence*, is a row before the text that is always known, so that every row has something to read.

# %%
import math
from dataclasses import replace

import torch
import torch.nn.functional as F

from armdlab import AR, ARMD, ARMDConfig, GenerationOrder, figures
from armdlab.baselines import LeakyQuery, ShiftedQuery
from armdlab.checks import streams as checks
from armdlab.figures import lessons as lesson_figures
from armdlab.masks import Mask, Masks, may_see, strictly_causal_mask
from armdlab.model import Layer, attend
from armdlab.objectives import nll
from armdlab.positions import Rotary

tales, manual = lab.load("tales"), lab.load("manual")  # trained models, for sections 2 and 3
words = ["the", "cat", "sat", "on", "the", "mat"]
order = GenerationOrder.from_masking_times([2, 3, 1, 3, 2, 1])
lesson_figures.two_streams(order, words)

# %% [markdown]
# First *cat* and *on* are made, which see BOS alone; then the two *the*; then *sat* and *mat*, whose targets read BOS and all four.
# (X has no row for *mat*: it is made last, and nobody reads it.) Now let us see why nothing simpler works.
#
# ## 1. Three doors, and the mask closes one
#
# In one ordinary transformer layer, row $n$ starts as $x_n$, the embedding of token $n$. The layer computes
#
# $$y_n = x_n + \sum_{i:\, M_{n,i} = 1} a_{n,i}\, W_v x_i, \qquad a_{n,i} = \mathrm{softmax}_i\big(\langle W_q x_n, W_k x_i \rangle / \sqrt{d}\big)$$
#
# (then an output matrix and a feed-forward, row by row). $W_q, W_k, W_v$ make queries, keys and values, $d$ is their width. Look for $x_n$:
#
# 1. among the **keys and values**, where $i = n$; the mask $M^{sc}$ of eq. (5) closes this door;
# 2. in the **query** $W_q x_n$, which decides how much is read from where;
# 3. in the **residual** term, the first $x_n$ of the formula.
#
# **Give the layer the mask $M^{sc}$ and set $W_q = 0$, so that no query holds anything. Change token $n$. Does output $n$ move?**
#
# - **a** no, now every door is closed
# - **b** yes, through the softmax
# - **c** yes, through the residual

# %%
lab.predict("no-query", guess="a")

# %% [markdown]
# The same in code, with the package's own layer: six tokens in generation order, BOS before them.

# %%
config = ARMDConfig(vocab_size=6, max_length=6, n_layer=4, n_head=2, d_model=32)
layer, embedding, rotary = Layer(config), torch.nn.Embedding(7, 32), Rotary(16, 7, 10_000.0)
tokens = torch.tensor([[0, 1, 2, 3, 0, 4]])  # the cat sat on the mat, in text order
rows_of = F.pad(order.to_generation_order(tokens), (1, 0), value=6)  # 6 stands for BOS
at = F.pad(order.positions + 1, (1, 0))
blocks = F.pad(order.blocks, (1, 0), value=-1)


@torch.no_grad()
def one_layer(ids):
    x = embedding(ids)
    normed, angles = layer.attention_norm(x), rotary.at(at)
    allowed = may_see(blocks, blocks, strictly=True)
    allowed[0, 0] = True  # BOS may see itself: a softmax over nothing is no number
    read = attend(layer.queries(normed, angles), *layer.keys_values(normed, angles), Mask(allowed))
    return layer.finish(x, read)


changed = rows_of.clone()
changed[0, 3] = 5  # rank 2, the first word of block 1
layer.query.weight.data.zero_()
moved = (one_layer(changed) != one_layer(rows_of)).any(-1)[0]
lab.report(words=["BOS", *[words[p] for p in order.positions]], output_moves=moved.int().tolist())

# %% [markdown]
# Its own output moves, as it must not, and so do those of the later block, as they may. A cure has to start elsewhere: row $n$
# must not hold $x_n$ **when it begins**.
#
# ## 2. What a target may start from
#
# ### The obvious idea: shift by one
#
# An autoregressive transformer has solved this long ago. Its row for target $n$ starts as the token *before*, $x_{n-1}$. Let
# us keep that for any order: G starts as X shifted by one. The package holds that model, too:

# %%
lab.show_source(ShiftedQuery)

# %% [markdown]
# For single tokens it leaks nothing. But look at what it has become. With the same weights, left to right, we compare it with
# the autoregressive baseline. Then we ask it under two orders that begin alike: ranks 0, 1 and 2 make positions 0, 1 and 2;
# rank 3 makes position 3 in one order, and position 5 in the other.
#
# **What does the shifted model say about position 3 in the first order, and about position 5 in the second?**
#
# - **a** the same, bit by bit
# - **b** different chances, since RoPE tells it the position
# - **c** different chances, since attention sees different tokens

# %%
lab.predict("where-to", guess="b")

# %%
shifted, ar, armd = ShiftedQuery(config).eval(), AR(config).eval(), ARMD(config).eval()
ar.load_state_dict(shifted.state_dict(), strict=False)  # its own weights, less those of prefix aggregation
next_is_3 = GenerationOrder([0, 1, 2, 3, 4, 5], range(6))
next_is_5 = GenerationOrder([0, 1, 2, 5, 4, 3], range(6))
with torch.no_grad():
    lab.report(
        shifted_differs_from_AR_by=float((shifted(tokens) - ar(tokens)).abs().max()),
        shifted_says_the_same=torch.equal(shifted(tokens, next_is_3)[0, 3], shifted(tokens, next_is_5)[0, 5]),
        ARMD_says_the_same=torch.equal(armd(tokens, next_is_3)[0, 3], armd(tokens, next_is_5)[0, 5]),
    )

# %% [markdown]
# So a shifted query makes an AR transformer that must guess where its next word will stand. And in a block of two tokens it
# leaks, for the second starts from the first. A target needs two things that a shift cannot give: **its own position**, and
# **all** earlier tokens, in whatever order they are stored. (The position alone would be honest, too; targets of XLNet begin nearly so. But then no query
# of the first layer could depend on what has been written. What comes now gives it a sketch of all that, at little cost.)
#
# ### Prefix aggregation
#
# Give every position $p$ of the text a vector $PE_p$ of $d_{pe}$ numbers, its *position embedding*. Let target $n$ start from
# a sum over earlier tokens, each weighted by how its position relates to the target's:
#
# $$G^0_n = \sum_{i:\, B(i) < B(n)} \underbrace{\langle PE_n, PE_i \rangle}_{H(n, i)} \; x_i \qquad\text{or}\qquad G^0 = \big((PE\,PE^T) * M^{sc}\big)\, X \qquad (6)$$
#
# $\langle \cdot,\cdot \rangle$ is the inner product, $*$ multiplies cell by cell, and the rows of $PE$ and $X$ stand in
# generation order. Check the wishes: the position of $n$ is in every weight; a sum does not care in which order it is taken;
# $x_n$ is not in it. By hand, with $d_{pe} = 1$, $PE = (1, 2, 3)$, tokens that are the numbers $10, 20, 30$, one at a time:
# $G^0_1 = 0$, $G^0_2 = 2 \cdot 1 \cdot 10 = 20$, $G^0_3 = 3 \cdot 1 \cdot 10 + 3 \cdot 2 \cdot 20 = 150$.
#
# ### Exercise 1: prefix aggregation
#
# **Medium, 8 minutes.** Why it matters: this is the paper's answer to what a target may start from, and it is one line.
# Everything that G learns later begins here. Given `pe` of shape `(N, d_pe)`, `x` of shape `(N, D)` and `blocks` of shape `(N,)`, all
# in generation order, return $G^0$ of shape `(N, D)`. A loop is as good as a matrix.


# %%
def prefix_aggregation(pe: torch.Tensor, x: torch.Tensor, blocks: torch.Tensor) -> torch.Tensor:
    ### BEGIN SOLUTION
    ### STUB: return None  # your code
    strict = blocks[None, :] < blocks[:, None]
    return (pe @ pe.T * strict) @ x
    ### END SOLUTION


# %%
first = checks.prefix_aggregation(prefix_aggregation)
first

# %% [markdown]
# <details><summary>Hint 1</summary><code>pe @ pe.T</code> holds all weights at once: row n, column i.</details>
# <details><summary>Hint 2</summary>The second mask of lesson 01, <code>blocks[None, :] &lt; blocks[:, None]</code>, multiplies them cell by cell.</details>
# <details><summary>Solution</summary>In <a href="solutions/{NAME}.ipynb">the solution notebook</a>.</details>
#
# ### The same sum, token by token
#
# While a text is being written, nobody wants to sum over its whole past for each new token. Take $PE_n$ out of the sum:
#
# $$G^0_n = PE_n^T\, S_n, \qquad S_n = \sum_{i:\, B(i) < B(n)} PE_i \otimes x_i$$
#
# $\otimes$ is the outer product, all products of an entry of $PE_i$ with an entry of $x_i$. The *state* $S$ holds what
# the past has to say to *every* position, wherever the next target stands. This is linear attention.
#
# **A text of 10 tokens has been read into $S$, then one of 10,000. How much larger is $S$ now?**
#
# - **a** a thousand times
# - **b** not at all
# - **c** a million times: it has rows and columns

# %%
lab.predict("size-of-the-state", guess="a")

# %%
pe, x = torch.randn(6, 8, dtype=torch.float64), torch.randn(6, 32, dtype=torch.float64)
state, by_state = torch.zeros(8, 32, dtype=torch.float64), torch.zeros(6, 32, dtype=torch.float64)
for block in range(order.n_blocks):
    made_now = order.blocks == block
    by_state[made_now] = pe[made_now] @ state  # read first ...
    state += pe[made_now].T @ x[made_now]  # ... then add what was made
by_matrix = ((pe @ pe.T) * strictly_causal_mask(order)) @ x

lab.report(largest_difference=float((by_state - by_matrix).abs().max()), state=list(state.shape), matrix=[6, 6])

# %% [markdown]
# Both forms give the same numbers. The package uses the matrix where a whole text is at hand and the state where a text
# grows. **Break it:** swap the two lines marked *read first* and *then add*, and run the cell again. The difference that
# appears is each block reading itself.

# %%
lab.show_source(ARMD.first_targets)

# %% [markdown]
# `prefix_norm` brings every row to the same size, as the sum grows with the prefix. It has a price: before anything is
# written, target $n$ sees BOS alone, and its sum is $\langle PE_n, PE_0 \rangle$ times the row of BOS. Brought to size, only
# the **sign** of that number is left, and attention to a single row adds no position either. So whichever token an order
# makes first hardly knows where in the text it stands. Left to right nobody notices, as that is always position 0.
#
# What the paper leaves open is what $PE$ is. Here it holds waves of fixed, evenly spaced frequencies $\omega_k$, and the model
# learns how strong each is: $\langle PE_n, PE_i\rangle = \sum_k a_k^2 \cos \omega_k (n - i)$ depends on the distance alone. The
# strengths start so that a target listens to its neighbours first. Below, the start, and what the shipped model of the Python
# manual has made of it. A table with a learnt row for each position does worse: the inner product of two far rows is small, but
# not 0, and over two hundred tokens that adds up to noise.

# %%
start, learnt = (network.position_embeddings().detach() for network in (ARMD(manual.model.config), manual.model))
tables = {"at the start": start, "after training": learnt}
for name, table in tables.items():
    near, far = (float(table[80] @ table[80 - k] / (table[80] @ table[80])) for k in (1, 10))
    print(f"{name}: a neighbour weighs {near:.2f} of what the place itself would, a token ten away {far:.2f}")
lesson_figures.kernels(tables, at=80, reach=40, order=GenerationOrder.strided(16, 2))

# %% [markdown]
# ## 3. Two streams
#
# $G^0$ is a rough sketch of the past. To read it closely, G needs attention, and attention needs keys and values that are
# rich but honest. So the tokens get a stream of their own. In layer $l$ both streams use the **same** weights and the
# **same** keys $K = W_k X^{l-1}$ and values $V = W_v X^{l-1}$, which come from X alone:
#
# $$X^l = \mathrm{Attn}(W_q X^{l-1}, K, V;\, M^{c}), \qquad G^l = \mathrm{Attn}(W_q G^{l-1}, K, V;\, M^{sc}) \qquad (7)$$
#
# Follow the doors for target $n$. Keys and values: $M^{sc}$ lets G read rows of X of earlier blocks only, and under $M^{c}$ those
# rows have themselves read no later block than their own. Query and residual: row $n$ of G began without $x_n$. By
# induction over layers, $G^l_n$ depends on earlier blocks alone: it is **strictly causal**.
#
# ### Exercise 2: two streams
#
# **Medium, 12 minutes.** Why it matters: this is the layer of the paper. Queries, keys and values are given, for H heads at
# once: `x_queries`, `keys`, `values` of shape `(B, H, E, d)` and `g_queries` of shape `(B, H, T, d)`. `evidence` holds the
# block of each of the E rows of X (BOS has block -1), `targets` the block of each of the T rows of G. Return what X reads,
# then what G reads. No loop over heads is needed, and no help from the package.


# %%
def two_stream_attention(x_queries, g_queries, keys, values, evidence, targets):
    ### BEGIN SOLUTION
    ### STUB: return None  # your code
    def read(queries, allowed):
        scores = queries @ keys.mT / keys.shape[-1] ** 0.5
        return scores.masked_fill(~allowed, -torch.inf).softmax(-1) @ values

    x = read(x_queries, evidence[None, :] <= evidence[:, None])
    g = read(g_queries, evidence[None, :] < targets[:, None])
    return x, g
    ### END SOLUTION


# %%
second = checks.two_stream_attention(two_stream_attention)
second

# %% [markdown]
# <details><summary>Hint 1</summary>Scores are <code>queries @ keys.mT / sqrt(d)</code>; where the mask forbids, put minus infinity before the softmax over keys.</details>
# <details><summary>Hint 2</summary>Rows of the masks are queries: <code>evidence[:, None]</code> for X, <code>targets[:, None]</code> for G; columns are always <code>evidence[None, :]</code>.</details>
# <details><summary>Solution</summary>In <a href="solutions/{NAME}.ipynb">the solution notebook</a>.</details>
#
# ### The other layers
#
# The first $L_{2s}$ of the $L$ layers are of this kind; then X has done its work. The other $L - L_{2s}$ layers are ordinary ones on G alone, under $M^{c}$: a
# strictly causal layer followed by causal ones stays strictly causal. The paper takes $L_{2s} = L/2$.
#
# **Two rows for each token, so twice the work? With 6 layers of which 3 have two streams, how many multiplications does ARMD need,
# against an AR transformer of the same layers?**
#
# - **a** twice as many
# - **b** about 1.3 times as many
# - **c** just as many

# %%
lab.predict("price-of-two-streams", guess="a")


# %%
def products(model, length=64):
    """Multiplications in the matrices of all layers, for one text."""
    counted = []

    def count(linear, given, _):
        counted.append(given[0].shape[:-1].numel() * linear.weight.numel())

    for linear in (part for part in model.layers.modules() if isinstance(part, torch.nn.Linear)):
        linear.register_forward_hook(count)
    model(torch.zeros(1, length, dtype=torch.long))
    return sum(counted)


six = ARMDConfig(vocab_size=6, max_length=64, n_layer=6, n_head=2, d_model=32)
lab.report(ARMD_over_AR=products(ARMD(six)) / products(AR(six)))

# %% [markdown]
# ### Attention microscope
#
# What do the targets of the trained model read? We take the beginning of a tale, in two streams, and look into the first
# two-stream layer. With the identity matrix in the place of values, attention returns its own weights.

# %%
text = "One day Mia lost her red kite. Mia looked for her red kite on the"
model, ids = tales.model, tales.tokenizer.encode(text)
names = [tales.tokenizer.decode([token]).strip() for token in ids]
streams = GenerationOrder.strided(16, 2)
masks, made = Masks.one_pass(streams), streams.to_generation_order(torch.tensor([ids]))
with torch.no_grad():
    x, x_at = model.embed(made[:, :-1], streams.positions[:-1])
    g, g_at = model.first_targets(x, x_at, streams.positions + 1, masks)
    deep = model.layers[0]
    queries = deep.queries(deep.attention_norm(g), model.rotary.at(g_at))
    keys, _ = deep.keys_values(deep.attention_norm(x), model.rotary.at(x_at))
    weights = attend(queries, keys, torch.eye(16).expand(*keys.shape[:2], 16, 16), masks.target_to_evidence)[0].mean(0)

targets = [f"{names[p]}?" for p in streams.positions]
read_from = ["BOS", *[names[p] for p in streams.positions[:-1]]]
hidden = ~masks.target_to_evidence.allowed
lab.report(weight_on_what_is_hidden=float(weights[hidden].sum()))
lab.report(lower_kite_on_BOS=f"{weights[12, 0]:.2f}", lower_kite_on_the_other_kite=f"{weights[12, 12]:.2f}")
lesson_figures.reading(weights, targets, read_from, f"Who reads whom, mean of {model.config.n_head} heads, by rank")

# %% [markdown]
# Rows are targets in the order of their making, columns are rows of X; white means hidden. The first two rows are the heads of
# the streams, made one at a time, so the second sees one column more. From then on two targets at a time see the same
# columns and none of their own block: that weight is 0 exactly, not nearly. Look at the lower
# `kite?`, of the first stream: the other stream has just written a *kite*. A model that keeps its agreements looks there. This one
# does, even in its first layer and in the mean over heads: the other *kite* gets 0.17 of its reading, more than any other row. A mean hides much: look at single heads, too. The view below holds every step, layer and head. Three things to try:
#
# 1. Walk to the step of the second *kite*, layer 1: is there a head that reads the other *kite* more than the rest do?
# 2. Go up the layers at that step. From which layer on does a target read G in place of X?
# 3. Choose *random* for the order: what can the target that is made first read, and what the one that is made last?

# %% tags=["nbval-ignore-output"]
from armdlab.widgets.attention_microscope import AttentionMicroscope

AttentionMicroscope(tales, text, streams)

# %% [markdown]
# ## 4. Test for leaks
#
# A leak does not crash. It trains, and its loss is wonderful. To see how wonderful, let the *words* be dice: six throws, each
# of them fair. Nobody can predict a die, so no honest model pays less than $\ln 6 = 1.79$ nats a throw.
#
# **We train ARMD and `LeakyQuery`, whose targets start from their own token, on dice. Where does the loss of `LeakyQuery` end?**
#
# - **a** at 1.79, like everyone's
# - **b** at 0.00
# - **c** at 0.30

# %%
lab.predict("loaded-dice", guess="b")


# %%
def losses_on_dice(kind, steps=200):
    torch.manual_seed(1)
    model = kind(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(steps):
        loss = nll(model, torch.randint(6, (64, 6)), order)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield step, float(loss.detach())


curves = {kind.__name__: list(losses_on_dice(kind)) for kind in (ARMD, LeakyQuery)}
lab.report(**{name: f"{points[-1][1]:.1f} nats a throw" for name, points in curves.items()})
lesson_figures.lines(curves, title="Learning dice", x="step", y="nats a throw", levels={"ln 6": math.log(6)})

# %% [markdown]
# ### Exercise 3: a leak test
#
# **Medium, 10 minutes.** Why it matters: with this test in hand you can change anything in a model and know within a second
# whether it is still honest. Write `leaks(model, tokens, order)` that returns a boolean tensor of shape `(N, N)`: True at
# `[p, q]` if changing token `p` moves output `q` although strict causality forbids it. `model(tokens, order)` gives logits
# of shape `(1, N, V)` in text order, `tokens` has shape `(1, N)`, and `model.config.vocab_size` is V.


# %%
def leaks(model, tokens, order):
    ### BEGIN SOLUTION
    ### STUB: return None  # your code
    blocks, found = order.blocks_in_text_order, []
    with torch.no_grad():
        before = model(tokens, order)
        for p in range(tokens.shape[1]):
            changed = tokens.clone()
            changed[0, p] = (changed[0, p] + 1) % model.config.vocab_size
            moved = (model(changed, order) != before).any(-1)[0]
            found.append(moved & (blocks <= blocks[p]))
    return torch.stack(found)
    ### END SOLUTION


# %%
third = checks.leak_test(leaks)
third

# %% [markdown]
# <details><summary>Hint 1</summary>For each p: clone, change token p to another id, run the model again, and compare logits with <code>!=</code>.</details>
# <details><summary>Hint 2</summary>Output q may move only if its block is later: <code>order.blocks_in_text_order</code> has the block of each position.</details>
# <details><summary>Solution</summary>In <a href="solutions/{NAME}.ipynb">the solution notebook</a>.</details>
#
# ### Leak detector
#
# ARMD and the shifted query under one order, through the package's own test. Orange cells are forbidden and move. And under the same order
# once more, with the two positions of each block exchanged: do logits move by more than rounding?

# %%
suspects = {"ARMD": armd, "shifted query": shifted}
changes = {name: figures.leak_matrix(model, tokens, order) for name, model in suspects.items()}
forbidden = ~strictly_causal_mask(order, in_text_order=True).T
lab.report(**{name: f"{int((change > 0)[forbidden].sum())} leaks" for name, change in changes.items()})

stored = GenerationOrder(order.positions[[1, 0, 3, 2, 5, 4]], order.blocks)
with torch.no_grad():
    differs = {name: (model(tokens, order) - model(tokens, stored)).abs().max() for name, model in suspects.items()}
lab.report(**{f"{name}, stored otherwise, moves": bool(moved > 1e-5) for name, moved in differs.items()})
figures.leaks(changes, words, order)

# %% [markdown]
# With the shifted query, the token stored first in a block moves both outputs of the block, and the one stored second moves
# none of them. So the answer depends on how a block is *stored*, which no reader of a text can know. ARMD is *equivariant*: its logits are
# the same however the tokens of a block are stored.
#
# ### Break it
#
# Here is one more leak. Prefix aggregation reads under $M^{c}$, as if `<` had been typed as `<=`; all attention is right.
# Run the cell, then repair it (`strictly=True`) and run it again: no leak is left.


# %%
class LeakyPrefix(ARMD):
    def first_targets(self, x, x_at, g_at, masks):
        ranks_of_x = F.pad(order.blocks[:-1], (1, 0), value=-1)
        wrong = Mask(may_see(order.blocks, ranks_of_x, strictly=False))
        return super().first_targets(x, x_at, g_at, replace(masks, target_to_evidence=wrong))


broken = {"leaky prefix": figures.leak_matrix(LeakyPrefix(config).eval(), tokens, order)}
lab.report(leaky_prefix=f"{int((broken['leaky prefix'] > 0)[forbidden].sum())} leaks")
figures.leaks(broken, words, order)

# %% [markdown]
# ## What to be able to say aloud
#
# - A token enters its own prediction by three doors: keys and values, the query, the residual. A mask closes the first.
# - A shifted query closes all three for single tokens, and makes an AR model that does not know which position is asked.
# - Prefix aggregation starts a target from earlier tokens, weighted by $\langle PE_n, PE_i\rangle$: a matrix for a whole text,
#   a state of fixed size for a growing one.
# - Two streams share weights, keys and values. X reads under $M^{c}$, G under $M^{sc}$, and only G is asked.
# - Change one token; outputs of its block and of earlier ones must not move by a single bit.
#
# ## In the paper, and what we simplified
#
# This is section 3 of *Auto-Regressive Masked Diffusion Models* (Karami and Ghodsi, arXiv 2601.16971), equations (5), (6) and
# (7). Three things are ours, as the paper leaves them open: BOS, which gives the first block something to read; the norm after
# $G^0$; and waves for $PE$ that start short, without which the model hardly learns. Two streams were first
# used for permuted orders by XLNet (Yang et al., 2019), whose targets start from one trained vector and know their position
# through attention alone. Our one-layer example left out dropout and the second half of the layers, where nothing can leak
# that has not leaked before.

# %%
lab.finish("02", prefix_aggregation=first, two_streams=second, a_leak_test=third)
