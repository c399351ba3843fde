# %% [markdown]
# # 01 Masking is an order
#
# [Open in Colab]({COLAB}) · 40 minutes to read and do, under a minute to run on a CPU · [next: 02](02_strictly_causal.ipynb) · [all lessons](README.md)
#
# After this lesson you will be able to
#
# - **turn** a masking process into a generation order, and an order into two masks;
# - **derive** the one-pass loss of ARMD (eq. 2) from the loss of masked diffusion (eq. 1), and check it by enumeration;
# - **say** why the right mask alone still leaks, and **find** a leak in a model.
#
# You need: Python, a little PyTorch, and the idea of attention. Words that are new stand in the [glossary](README.md#glossary).

# %%
import armdlab.lab as lab

lab.start("01")

# %% [markdown]
# ## Where we are going
#
# One picture of the whole method. Left: a text is masked step by step; read backwards, that is an *order* of writing.
# Middle: the order says who may see whom. Right: a clever order lets four streams write at the same time.

# %%
import itertools

import torch

from armdlab import ARMD, ARMDConfig, GenerationOrder, figures
from armdlab.baselines import LeakyMask, LeakyQuery
from armdlab.checks import masking as checks
from armdlab.masks import causal_mask, may_see, strictly_causal_mask
from armdlab.objectives import diffusion_nll

figures.overview()

# %% [markdown]
# ## 1. A text is destroyed, one step at a time
#
# Masked diffusion starts from a text $z_1 \dots z_N$ of $N$ tokens and destroys it in $T$ steps. Every position $j$ has a
# step $\tau(j)$, from 1 to $T$, at which its token becomes `[m]`. A masked token stays masked, and at step $T$ all are.
#
# Here $N = 6$ and $T = 3$; `times` holds $\tau(1), \dots, \tau(6)$.

# %%
words = ["the", "cat", "sat", "on", "the", "mat"]
times = [2, 3, 1, 3, 2, 1]
figures.masking(times, words)

# %% [markdown]
# A model that learns to undo this writes text.
#
# **Undoing starts from the last row, where all is masked. Which words are written first?** Commit to a guess: put `"a"`, `"b"`
# or `"c"` into the cell, then run it.
#
# - **a** *sat* and *mat*
# - **b** *the* and *the*
# - **c** *cat* and *on*

# %%
lab.predict("written-first", guess="a")

# %% [markdown]
# ## 2. Read backwards, masking is an order
#
# Sort the positions by their masking step, largest first. The result is a permutation $\pi$: the token made at *rank* $n$
# stands at *position* $\pi(n)$ of the text. Positions that were masked at the same step are undone at the same step. They
# form a **block**; $B(n)$ is the block of rank $n$.
#
# The package keeps both in one small value, `GenerationOrder`, and everything else is built on it. Code counts positions, ranks and blocks
# from 0; formulas, as the paper's, count positions and ranks from 1.

# %%
order = GenerationOrder.from_masking_times(times)
lab.report(positions=order.positions.tolist(), blocks=order.blocks.tolist())
figures.ribbon(order, words)

# %% [markdown]
# Read the two lines together: rank 0 makes position 1 (*cat*) and rank 1 makes position 3 (*on*), both in block 0. Ranks
# 2 and 3 make the two *the* in block 1. Ranks 4 and 5 make *sat* and *mat* in block 2.
#
# ### Exercise 1: from masking to steps
#
# **Easy, 5 minutes.** Why it matters: this function is the bridge from diffusion to autoregression; everything that
# follows walks over it. Given `times`, return the list of steps. Each step is the list of positions made together, and
# what was masked last comes first; a step at which nothing was masked is left out. For `[2, 3, 1, 3, 2, 1]` that is `[[1, 3], [0, 4], [2, 5]]`.


# %%
def steps_from_masking(times: list[int]) -> list[list[int]]:
    ### BEGIN SOLUTION
    ### STUB: return None  # your code
    latest_first = sorted(set(times), reverse=True)
    return [[j for j, tau in enumerate(times) if tau == t] for t in latest_first]
    ### END SOLUTION


# %%
first = checks.order_from_masking(steps_from_masking)
first

# %% [markdown]
# <details><summary>Hint 1</summary>The different values of <code>times</code>, from large to small, are the steps.</details>
# <details><summary>Hint 2</summary>For one value t, collect every position j with times[j] == t.</details>
# <details><summary>Solution</summary>In <a href="solutions/{NAME}.ipynb">the solution notebook</a>.</details>
#
# ## 3. An order is two masks
#
# Attention needs to know, for each pair, whether token $n$ may see token $i$. The order answers by comparing blocks, in
# two ways:
#
# $$M^{c}_{n,i} = 1 \iff B(i) \le B(n) \quad (3) \qquad\qquad M^{sc}_{n,i} = 1 \iff B(i) < B(n) \quad (5)$$
#
# $M^{c}$ is *causal*: a token sees earlier blocks and its own. $M^{sc}$ is *strictly causal*: earlier blocks only. In
# *generation order*, where rows and columns are sorted by rank, both are staircases.

# %%
lab.report(cells_of_Mc=int(causal_mask(order).sum()), cells_of_Msc=int(strictly_causal_mask(order).sum()))
figures.masks(order, words)

# %% [markdown]
# The same relation in *text order*, where rows and columns are read from left to right: no staircase any more, and
# nothing has changed but the names of rows.

# %%
figures.masks(order, words, in_text_order=True)

# %% [markdown]
# Now touch it. The explorer shows the same order and the same masks; while the notebook runs, they follow every change.
# (Where it does not run, a picture stands in its place, and nothing below needs more than that.) Three things to try:
#
# 1. Point at a cell of $M^{sc}$ on the diagonal: why may a token not see itself?
# 2. Choose *strided* with 2 and then 3 streams, in generation order. Where do the staircases have broad steps?
# 3. Choose *painted*, press *Start again*, and click words in the order in which you would write them.

# %% tags=["nbval-ignore-output"]
from armdlab.widgets.order_explorer import OrderExplorer

explorer = OrderExplorer(" ".join(words), order)
explorer

# %% [markdown]
# **$M^{c}$ allows 24 cells and $M^{sc}$ 12, a difference of 12. What would the difference be for six tokens in blocks of 3?**
#
# - **a** 6
# - **b** 12
# - **c** 18

# %%
lab.predict("blocks-of-three", guess="b")

# %% [markdown]
# ### Exercise 2: the two masks
#
# **Easy, 5 minutes.** Why it matters: `<` against `<=` is one character. A model with the wrong one reaches a loss
# that is too good to be true (lesson 02 shows such a loss, lesson 04 trains a model with this very leak), and when it writes, the token that it relied on is not there. Given `blocks`, the int64 tensor of $B(n)$ for each rank,
# return `M^c` and `M^sc` as two boolean tensors of shape `(N, N)`.


# %%
def two_masks(blocks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    ### BEGIN SOLUTION
    ### STUB: return None  # your code
    rows, columns = blocks[:, None], blocks[None, :]
    return columns <= rows, columns < rows
    ### END SOLUTION


# %%
second = checks.masks(two_masks)
second

# %% [markdown]
# <details><summary>Hint 1</summary>Broadcast: <code>blocks[:, None]</code> is a column, <code>blocks[None, :]</code> a row.</details>
# <details><summary>Hint 2</summary>Row n is the one who looks, column i the one who is looked at.</details>
# <details><summary>Solution</summary>In <a href="solutions/{NAME}.ipynb">the solution notebook</a>.</details>
#
# ### In the package
#
# There it is one comparison too; batches of orders come along for free:

# %%
lab.show_source(may_see)

# %% [markdown]
# ### Any permutation, one triangle
#
# If every block is one token, then in generation order $B(n) = n$, and the masks are plain triangles, **whatever the
# permutation**: $M^{c}$ with its diagonal, $M^{sc}$ without it. So the fast causal kernels of an autoregressive model serve any order; only real blocks need a mask.

# %%
shuffled = GenerationOrder.random(6)
triangle = torch.ones(6, 6, dtype=torch.bool).tril()
lab.report(order=shuffled.positions.tolist(), Mc_is_triangle=torch.equal(causal_mask(shuffled), triangle))
lab.report(Msc_is_triangle_without_diagonal=torch.equal(strictly_causal_mask(shuffled), triangle.tril(-1)))

# %% [markdown]
# ## 4. From eq. (1) to eq. (2): one pass instead of many
#
# Let $\alpha_t$ be the chance that a token is still clean at step $t$, so $\alpha_0 = 1$ and $\alpha_T = 0$. Each position draws its
# step $\tau(j)$ for itself, independently of the others, by this one $\alpha$. Masked
# diffusion calls the network once for each step $t$, on the text $z^t$ as it looks then, and scores **every** masked token:
#
# $$\mathcal{L}_{\text{diff}} = \sum_{t=1}^{T} \mathbb{E}\Big[\,\underbrace{\tfrac{\alpha_{t-1} - \alpha_t}{1 - \alpha_t}}_{P(\tau(j) = t \,\mid\, \tau(j) \le t)} \; \sum_{j:\, z^t_j = [m]} -\log p(z_j \mid z^t) \Big] \qquad (1)$$
#
# (The paper writes the weight with the opposite sign and drops the minus of the logarithm; the product is the same.)
# Now three short steps:
#
# 1. The weight is a probability: given that $j$ is masked by step $t$, it is the chance that this happened *exactly* at $t$.
# 2. As positions are masked independently, $z^t$ says no more about $\tau(j)$ than that it is at most $t$. So, in expectation, weighting all masked
#    tokens equals scoring only those with $\tau(j) = t$: the block that is undone at step $t$.
# 3. Write $x = \pi(z)$ for the text in generation order. What is clean at step $t$ is exactly what lies in earlier blocks:
#
# $$\mathcal{L} = \mathbb{E}\Big[ \sum_{n} -\log p\big(x_n \mid x_i : B(i) < B(n)\big) \Big] \qquad (2), \; \gamma = 1$$
#
# Every term of (2) looks only at earlier blocks. A strictly causal network gives them all in **one** pass.

# %% [markdown]
# ### Do not believe it, enumerate it
#
# With $N = 3$ tokens from an alphabet of 3 and $T = 3$ there are $3^3 = 27$ masking processes. Take a model that is
# nothing but a table: random logits for each of the $4^3$ partly masked texts. Then compute both losses for each process.

# %%
V, MASK = 3, 3
alpha = torch.tensor([1.0, 0.6, 0.25, 0.0], dtype=torch.float64)
text = torch.tensor([[2, 0, 1]])
table = torch.randn(4**3, 3, V, dtype=torch.float64)


def denoiser(masked):
    return table[(masked * 4 ** torch.arange(3)).sum(-1)]


def by_block(process):
    """Eq. (2): score each token once, in the step at which its block is undone."""
    nats = 0.0
    for t in process.unique():
        log_p = denoiser(text.masked_fill(process <= t, MASK)).log_softmax(-1)[0]
        nats -= log_p[torch.arange(3), text[0]][process == t].sum()
    return nats


# %%
processes = torch.tensor(list(itertools.product([1, 2, 3], repeat=3)))
chance = (alpha[:-1] - alpha[1:])[processes - 1].prod(-1)
eq1 = diffusion_nll(denoiser, text.expand(27, -1), processes, alpha, MASK)
eq2 = torch.stack([by_block(process) for process in processes])

lab.report(
    processes=len(processes),
    expected_nats_by_eq_1=float(chance @ eq1),
    expected_nats_by_eq_2=float(chance @ eq2),
    largest_difference_for_one_process=float((eq1 - eq2).abs().max()),
)

# %% [markdown]
# The two expectations agree to the last digit, and that is no accident of rounding: for single processes the losses
# differ widely (last line). They are two ways to average the same thing. Our table has to be asked once for each block, too; a
# strictly causal network gives all terms of (2) in a single pass.

# %% [markdown]
# ## 5. Is the right mask enough?
#
# Give an ordinary transformer the mask $M^{sc}$, so that each token attends to earlier blocks only. **Can its prediction
# still depend on the very token that it predicts?**
#
# - **a** no, the mask forbids it
# - **b** yes, through its query
# - **c** yes, through the softmax

# %%
lab.predict("mask-alone", guess="a")

# %% [markdown]
# There are two leaks to close, then: the row that asks, with its **query** and its residual, must not contain $x_n$, and **keys and
# values** must not come from its own block. The package holds a model with each leak left open on purpose. A leak is found without any theory: change one
# word, and see which outputs move. Outputs of its own block or of an earlier one must not move **by a single bit**.

# %%
config = ARMDConfig(vocab_size=6, max_length=6, n_layer=4, n_head=2, d_model=32)
tokens = torch.tensor([[0, 1, 2, 3, 0, 4]])
models = {
    "ARMD": ARMD(config),
    "right mask, wrong query": LeakyQuery(config),
    "right query, wrong mask": LeakyMask(config),
}
changes = {name: figures.leak_matrix(model.eval(), tokens, order) for name, model in models.items()}
forbidden = ~strictly_causal_mask(order, in_text_order=True).T
lab.report(**{name.replace(",", ""): f"{int((c > 0)[forbidden].sum())} leaks" for name, c in changes.items()})
figures.leaks(changes, words, order)

# %% [markdown]
# Blue cells are as they should be: change *cat* (block 0), and the outputs of blocks 1 and 2 move. The two leaks differ in
# their cause and not in their effect: a word moves its own output and those of its whole block, because the later layers
# let the targets of one block read one another. (Only *mat* moves nothing: it is made last, so the model never reads it.)
#
# How does ARMD do without $x_n$ in the query? It starts each target from a sum over *earlier* tokens, weighted by position
# alone: prefix aggregation (eq. 6). That is the subject of the next lesson.
#
# ### Exercise 3: break it yourself
#
# **Medium, 10 minutes.** Why it matters: a test that cannot fail protects nobody. Here is the whole of the third model:

# %%
lab.show_source(LeakyMask.two_streams)

# %% [markdown]
# Choose an order of six tokens in which `LeakyMask` leaks in **exactly 9** cells. ARMD, of course, leaks in none. Any
# constructor will do: `left_to_right`, `random`, `strided`, `blockwise`, or `GenerationOrder(positions, blocks)` of your own.

# %%
### BEGIN SOLUTION
### STUB: my_order = GenerationOrder.left_to_right(6)  # change this
my_order = GenerationOrder.strided(6, 3)
### END SOLUTION

broken = models["right query, wrong mask"]
my_changes = {
    "ARMD": figures.leak_matrix(models["ARMD"], tokens, my_order),
    "LeakyMask": figures.leak_matrix(broken, tokens, my_order),
}
third = checks.leaks(my_changes["LeakyMask"], my_order, wanted=9)
third

# %% [markdown]
# The leak detector shows the same row by row: choose a word in its top row, and see how far each output moves when that
# word becomes another. Under your order, which word leaks nowhere?

# %% tags=["nbval-ignore-output"]
from armdlab.widgets.leak_detector import LeakDetector

LeakDetector(" ".join(words), my_order)

# %% [markdown]
# <details><summary>Hint 1</summary>Left to right leaks where? Count the cells: one for each word but the last one made.</details>
# <details><summary>Hint 2</summary>A block of b words leaks in b x b cells, and the last word made, which is never read, takes away one row of its block.</details>
# <details><summary>Solution</summary>In <a href="solutions/{NAME}.ipynb">the solution notebook</a>.</details>
#
# ## What to be able to say aloud
#
# - Masking gives each position a step; sorted backwards, the steps are an order, and ties are blocks.
# - $M^{c}$ lets a token see its own block, $M^{sc}$ does not. For single tokens they are the triangle with and without its diagonal, in any permutation.
# - Weighting all masked tokens (eq. 1) and scoring each token in its own block (eq. 2) are equal in expectation; (2) takes one pass.
# - A mask hides keys and values, not the query. Strict causality needs both closed, and one changed word shows whether they are.
#
# ## In the paper, and what we simplified
#
# This is section 3 of *Auto-Regressive Masked Diffusion Models* (Karami and Ghodsi, arXiv 2601.16971): masked diffusion as
# a block-wise causal model, equations (1), (2), (3) and (5). We took discrete steps and $\gamma = 1$, which makes (2) an exact
# negative log-likelihood; the package takes any $\gamma(t)$ (`armdlab.objectives.weighted_nll`). Our table of logits has
# no notion of evidence that was itself made in an order; a deep ARMD does read evidence through its order, which is why it is a
# model of *orders* and not only of sets.

# %%
lab.finish("01", from_masking_to_steps=first, the_two_masks=second, break_it_yourself=third)
