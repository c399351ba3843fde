# %% [markdown]
# # 06 Exact and parallel
#
# [Open in Colab]({COLAB}) · 45 minutes to read and do, about a minute to run on a CPU · [back: 05](05_parallel_streams.ipynb) · [next: 07](07_infill_and_edit.ipynb) · [all lessons](README.md)
#
# After this lesson you will be able to
#
# - **write** the rule that keeps or redraws a draft, and say in four lines why it is exact;
# - **run** verified decoding, in which ARMD drafts and judges in one and the same network call;
# - **decide** when it pays, by counting calls and rows.
#
# You need: [lesson 01](01_masking_is_an_order.ipynb) for orders, [lesson 03](03_one_pass_likelihood.ipynb) for prices. Words that are new stand in the [glossary](README.md#glossary).

# %%
import armdlab.lab as lab

lab.start("06")

# %% [markdown]
# ## Where we are going
#
# Streams make several tokens in one network call, and pay for it: tokens of a block cannot see each other, so they may not agree.
# *Verified decoding* makes them together and then checks them: what does not pass is drawn anew. Its texts have **exactly** the
# distribution of making each token alone, in the same order. Here is a tale of the shipped model, and the calls that three ways to write need.

# %%
import itertools
import textwrap

import torch

from armdlab import ARMD, ARMDConfig, GenerationOrder, decode_steps, generate, speculative, tales
from armdlab.checks import acceptance as checks
from armdlab.figures import acceptance as acceptance_figures
from armdlab.figures import lessons as lesson_figures
from armdlab.masks import Mask, Masks
from armdlab.objectives import nll
from armdlab.rows import Rows
from armdlab.samples import validity, write_tales
from armdlab.sampling import Sampler

shipped = lab.load("tales")
model, N, end = shipped.model, 160, shipped.tokenizer.end_of_text

# %%
text = generate(model, length=N, streams=4, verify=True, seed=2)
print(textwrap.fill(shipped.tokenizer.decode([token for token in text[0].tolist() if token != end]), 80))
ways = {"left to right": {}, "4 streams": {"streams": 4}, "4 streams, verified": {"streams": 4, "verify": True}}
n_calls = {name: float(len(list(decode_steps(model, length=N, seed=2, **how)))) for name, how in ways.items()}
lab.report(**{name: f"{count:.0f} network calls" for name, count in n_calls.items()})
lesson_figures.bars(n_calls, title="A row of 160 tokens", x="network calls", digits=0)

# %% [markdown]
# ## 1. What plain streams lose
#
# Take a world that can be counted: 3 tokens, texts of 4, so 81 texts. Two streams make the heads 0 and 2 first, one at a time, and then
# the tokens 1 and 3 *together*. Both ways below make tokens in the same order of ranks; they differ in one thing, whether
# token 3 may see token 1. Each way has an exact price for each text (lesson 03), so their distributions can be compared:
# the *total variation* is half the sum of $|p - p'|$ over all texts, the largest difference of chance that any event can have.


# %%
def opinionated():
    model = ARMD(ARMDConfig(vocab_size=3, max_length=4, n_layer=2, n_head=2, d_model=16)).eval()
    with torch.no_grad():
        for weight in model.layers.parameters():
            weight.mul_(6.0)
        model.embedding.weight.mul_(100.0)
        model.head.weight.mul_(20.0)
    return model


def exact(order):
    with torch.no_grad():
        return nll(small, world, order, "none").double().sum(-1).neg().exp()


# %%
small, world = opinionated(), torch.tensor(list(itertools.product(range(3), repeat=4)))
streams = GenerationOrder.strided(4, 2)
one_by_one = GenerationOrder(streams.positions, range(4))
lab.report(ranks_at=streams.positions.tolist(), blocks_of_streams=streams.blocks.tolist())
in_turn, together = exact(one_by_one), exact(streams)
variation = float((in_turn - together).abs().sum() / 2)
lab.report(sum_in_turn=float(in_turn.sum()), sum_together=float(together.sum()), total_variation=variation)

# %% [markdown]
# Both are honest distributions, and not the same one. No better sampler can help: `together` is what plain streams *are*. We want their
# parallelism and the other distribution.
#
# ## 2. Accept, or draw from what is left
#
# One token first. We have a *draft* $x$, drawn from some $q$ over the vocabulary, and want a token drawn from $p$. Two moves:
#
# - **accept**: keep $x$ with chance $a(x) = \min\big(1, p(x) / q(x)\big)$;
# - **residual**: else draw anew from $r(y) = \max\big(p(y) - q(y), 0\big) \,/\, \sum_v \max\big(p(v) - q(v), 0\big)$.
#
# Why is the token that is kept distributed as $p$? Four short steps.
#
# 1. $y$ is drafted *and* kept with chance $q(y)\, a(y) = \min\big(q(y), p(y)\big)$.
# 2. Some draft is refused with chance $R = 1 - \sum_v \min(q(v), p(v))$. As $p$ sums to 1, this is $\sum_v \max(p(v) - q(v), 0)$.
# 3. So $y$ comes out of the residual with chance $R \cdot r(y) = \max\big(p(y) - q(y), 0\big)$: the sum cancels.
# 4. Together $\min(q, p) + \max(p - q, 0) = p(y)$: where $q$ is above $p$, it is $p + 0$; elsewhere it is $q + (p - q)$.
#
# Nothing was assumed about $q$.
#
# **Let $p = (0.5, 0.5, 0)$ and $q = (0.25, 0.25, 0.5)$. How often does a draft stay?**
#
# - **a** a quarter of the time
# - **b** half of the time
# - **c** three quarters of the time

# %%
lab.predict("how-often-it-stays", guess="a")

# %% [markdown]
# ### Exercise 1: the acceptance rule
#
# **Medium, 10 minutes.** Why it matters: each of these two lines has a plausible wrong form whose texts look fine, and only their
# distribution is off. Given `p` and `q`, both float64 of shape `(V,)`, return $a$ and $r$, each of shape `(V,)`. Tokens that $q$ never drafts
# need no care. The judge enumerates all drafts.


# %%
def accept_probability(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    ### BEGIN SOLUTION
    ### STUB: return None  # your code
    return (p / q).clamp(max=1)
    ### END SOLUTION


def residual(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    ### BEGIN SOLUTION
    ### STUB: return None  # your code
    return (p - q).clamp(min=0) / (p - q).clamp(min=0).sum()
    ### END SOLUTION


# %%
first = checks.acceptance_rule(accept_probability, residual)
first

# %% [markdown]
# <details><summary>Hint 1</summary><code>.clamp(max=1)</code> and <code>.clamp(min=0)</code> are min(1, .) and max(., 0).</details>
# <details><summary>Hint 2</summary>The residual is a distribution: divide by what is left in all, after the clamp.</details>
# <details><summary>Solution</summary>In <a href="solutions/{NAME}.ipynb">the solution notebook</a>.</details>

# %% [markdown]
# **We replace the drafter by a bad one: all tokens equally likely, always. What happens to verified texts?**
#
# - **a** they get worse
# - **b** their distribution stays as it is, and they come more slowly
# - **c** nothing at all

# %%
lab.predict("bad-drafter", guess="a")

# %%
p = torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64)
for name, q in {"good": [0.5, 0.35, 0.15], "uniform": [1 / 3] * 3, "perverse": [0.01, 0.09, 0.9]}.items():
    q = torch.tensor(q, dtype=torch.float64)
    stays, left = q * (p / q).clamp(max=1), (p - q).clamp(min=0)
    result = stays + (1 - stays.sum()) * left / left.sum()
    kept = ", ".join(f"{chance:.12g}" for chance in result.tolist())
    print(f"{name} drafter: a draft stays with chance {stays.sum():.2f}, the result is {kept}")

# %% [markdown]
# **Break it:** take `p` in place of `left / left.sum()` in the cell above: draw anew from $p$ itself. Now a token that is drafted too often, $q \ge p$,
# is made with chance $p\,(1 + R)$ in place of $p$, where $R$ is the chance of a refusal: 1.1, 1.27 and 1.8 times too often with these three. The result depends on the drafter.
#
# ## 3. A network that judges itself
#
# Now whole texts. Where do $p$ and $q$ come from? The chain rule of the one-by-one order asks for
# $p_n = p(\cdot \mid \text{all ranks below } n)$. A block of plain streams offers $q_n = p(\cdot \mid \text{ranks below the block})$, for several $n$ at once.
# Any model of streams gives these $q$ in one call. ARMD also gives the $p$ of all drafts in **one** call, since it scores any order
# in one pass. An AR model could not: in the strided order its left context has holes.
#
# Better still, one pass does both. Take a *frontier* $f$ below which all is final, and a *window* of $W - 1$ drafts behind it. The ranks up to $f + W - 1$ are
# asked one by one; from $f$ on these answers are $p$, for the drafts that stand there and for the place behind them. The $W - 1$ ranks that follow see
# the same tokens as that last place, and none of each other: they are $q$ for the next drafts. So a call makes one token at least, and $W$ at most (`window` in the code).
# No order asks for exactly this, as the last place has no token yet. So we write the three relations of lesson [02](02_strictly_causal.ipynb) by hand: which rows of X read which of X,
# which of G read which of X, and, in the layers after the two-stream ones, which of G read which of G: there the one-by-one rows read one another in turn, and each of the
# new drafts reads those and itself, but no other draft. With `alone` = 3 and `together` = 2 the five rows of `sees` are: BOS; BOS and rank 0; BOS, 0 and 1; and twice more BOS, 0 and 1. Its first three rows are those of X, too.
# In `siblings`, row 4 reads rows 0 to 2 and itself, not row 3.


# %%
def chances(text, order, alone, together, choose):
    """One pass, by rank: `alone` ranks one by one, then `together` that see the same tokens as the last of these."""
    at, rows = order.positions, torch.arange(alone + together)[: order.length]
    sees = torch.arange(alone) <= rows[:, None]  # BOS and the tokens of the ranks before, as far as there are any
    siblings = rows <= rows.masked_fill(rows >= alone, len(rows)).unsqueeze(-1)
    masks = Masks(Mask(sees[:alone]), Mask(sees), Mask(siblings))
    hidden = model.hidden(text[:, at[: alone - 1]], at[: alone - 1], at[: len(rows)], masks)
    return choose.probabilities(model.head(hidden)[0])


# %% [markdown]
# The rest is bookkeeping. If draft 2 of a window fails, draft 1 is final, the redrawn token is final, and the window moves on by 2. If none fails,
# one more token is drawn behind them, from the last $p$: nothing was drafted there, so all of $p$ is left. What about the places behind a failed draft? Two rules:
#
# - The verdicts on drafts behind a failed one **do not count**, for their $p$ saw a token that is gone. But it saw all the others, which their $q$ had not: as a guess it is the better one.
#   So it becomes the next $q$: at these places a draft is **drawn anew** from it, to be judged in the next call against a $p$ that sees the redrawn token. The proof above asks no more of a draft than to be a draw from its $q$, whatever $q$ is.
# - The refused draft itself never comes back: given that it failed, it is no draw from $q$ any more.


# %%
@torch.no_grad()
def verified(order, window, choose):
    text, f = torch.zeros(1, order.length, dtype=torch.long), 0
    drafts, q = text[0, :0], torch.zeros(0, model.config.vocab_size, dtype=torch.float64)  # nothing to judge yet
    while f < order.length:
        n = min(len(drafts), order.length - f)
        each, x = torch.arange(n), drafts[:n]
        text[0, order.positions[f : f + n]] = x
        both = chances(text, order, min(f + n + 1, order.length), window - 1, choose)
        p = both[f : f + n + 1]
        passes = choose.uniform(drafts.shape)[:n] * q[each, x] < p[each, x]  # u < p / q
        n_passed = int(passes.int().cumprod(0).sum())
        drawn = choose.draw((p[n_passed] - q[n_passed]).clamp(min=0) if n_passed < n else p[-1])
        made = torch.cat([x[:n_passed], drawn[None]])[: order.length - f]
        text[0, order.positions[f : f + len(made)]] = made
        yield f, x.tolist(), made.tolist(), p, q[:n]
        f += n_passed + 1
        q = both[(f + torch.arange(window - 1)).clamp(max=len(both) - 1)]
        drafts = choose.draw(q)


# %% [markdown]
# Find the two lines of exercise 1 in it. It writes with full passes, nothing kept from call to call. The package keeps keys,
# values and prefix, judges all rows of a batch at once, and follows the very same rule: from the same seed it writes the same text.

# %%
order = GenerationOrder.strided(N, 4)
calls = list(verified(order, 4, Sampler(seed=2)))
written = torch.tensor([token for _, _, made, _, _ in calls for token in made])
same = int((text[0, order.positions] == written).sum())
lab.report(calls=len(calls), tokens=len(written), the_same_as_in_the_tale_above=f"{same} of {N}")
words = ["(end)" if v == end else shipped.tokenizer.decode([v]).strip() or "_" for v in range(model.config.vocab_size)]
n_made = [len(made) for _, _, made, _, _ in calls]
start = acceptance_figures.half_kept(n_made, window=4)  # these calls make about half of what they could
shown = [(f, [words[v] for v in x], [words[v] for v in made]) for f, x, made, _, _ in calls[start : start + 6]]
lab.report(tokens_made_in_these_calls=n_made[start : start + 6])
acceptance_figures.acceptance(shown, "Six calls", number=start + 1)

# %% [markdown]
# Read it downwards: where drafts are grey, others stand one row below, now in front; an orange cell without *not* is the token that a call draws itself once all its drafts have passed (the *bonus token* of other papers, where a draft that stays is *accepted* and
# the judge is a *verifier*). The heads of the streams
# were all drafted before any token stood, and mostly fail at first; once streams have begun, most drafts pass, and a call makes four tokens. Now take
# the refused draft whose place had the chance to stay that is nearest to one half, however far that may be, and look at $p$ and $q$ there. Blue and orange together are $p$; blue and hatched are $q$.

# %%
refused = [
    (p[len(made) - 1], q[len(made) - 1], d[len(made) - 1], made[-1])
    for _, d, made, p, q in calls
    if len(made) <= len(d) and made[-1] != d[len(made) - 1]
]
p, q, draft, token = min(refused, key=lambda case: abs(float(case[0].minimum(case[1]).sum()) - 0.5))
lab.report(drafted=words[draft], drawn_anew=words[token], chance_to_stay=float(p.minimum(q).sum()))
acceptance_figures.overlap(p, q, words, draft=draft)

# %% [markdown]
# What $p$ has seen and $q$ had not is what stands before it now: other drafts of its call, or a token that was redrawn. Where one of these decides what may stand here, the two share little. (The draft itself may be one whose bar is too low to be seen.)
#
# ### Call by call
#
# Now all calls of such a run, one at a time. Three things to try:
#
# 1. Press *Next* a few times: at a place that is *to be drafted anew*, compare $p$ with the $q$ of the next call.
# 2. Find a draft that stays although $p$ is below $q$. Where did the die fall, and how often would it have stayed?
# 3. Press *Write anew* with 2 streams, then with 8, and go to the last call: which makes more tokens a call?
#
# Below the view stands what the package makes of the answers of a call, for a batch with a frontier in each row. Look for `passes`, `left` and `drawn`.

# %% tags=["nbval-ignore-output"]
from armdlab.widgets.acceptance_view import AcceptanceView

view = AcceptanceView(shipped)
view.run_now(streams=4, seed=2)
view

# %%
lab.show_source(speculative._State._settle)

# %% [markdown]
# ## 4. Believe the counts
#
# Back to the small world, where all chances are known. 40,000 texts by plain streams, 40,000 verified; beside them the exact chances
# of one by one. *Chi-square* adds up (seen - expected)^2 / expected over all texts; if the distribution is right, it lies near the number of
# texts, give or take a few times the square root of twice that number.


# %%
def shares(**how):
    counts, powers = torch.zeros(len(world)), 3 ** torch.arange(3, -1, -1)
    for seed in range(10):
        texts = generate(small, length=4, streams=2, batch_size=4000, seed=seed, **how)
        counts += torch.bincount((texts * powers).sum(-1), minlength=len(world))
    return counts / counts.sum()


def chi_square(share, n=40_000):
    often = n * in_turn >= 5  # the rare texts are counted together, as one
    seen, expected = (torch.cat([v[often], v[~often].sum()[None]]) * n for v in (share.double(), in_turn))
    return float(((seen - expected).square() / expected.clamp(min=1e-9)).sum()), int(often.sum()) + 1


# %%
both = {"plain streams": shares(), "verified": shares(verify=True)}
for name, share in both.items():
    statistic, kinds = chi_square(share)
    off = (share - in_turn).abs().sum() / 2
    print(f"{name}: chi-square {statistic:.0f} over {kinds} kinds of texts, total variation {off:.4f}")
acceptance_figures.agreement(in_turn, both, "40,000 texts of the small world")

# %% [markdown]
# Verified texts agree with *one by one*. But one by one **in which order**? In that of the streams, with its blocks cut up: rank by rank,
# now in stream 1, now in stream 2. The rule keeps that promise and no other, and a likelihood belongs to a model and an order (lesson
# 03). So ask what the model makes of 16 true tales, in nats a row of 160 tokens, under each;
# and let a grammar say how many of the tales that it writes hold together (lesson [X1](x1_tales.ipynb)).

# %%
rows = Rows.encode([tales.sample(seed).text for seed in range(100, 116)], shipped.tokenizer, length=N)
ids = rows.pad(torch.arange(16))
for S in (1, 2, 4, 8):
    blocks = GenerationOrder.strided(N, S)
    alone = GenerationOrder(blocks.positions, range(N))
    with torch.no_grad():
        priced = [float(nll(model, ids, order, "none").sum(-1).mean()) for order in (blocks, alone)]
    print(f"S = {S}: as streams {priced[0]:.1f} nats, one by one in the same order {priced[1]:.1f} nats")
for name, how in ways.items():
    share = validity(write_tales(model, shipped.tokenizer, 60, **how)).is_consistent
    print(f"{name}: share of 60 tales that hold together {share}")

# %% [markdown]
# The second figure of a line prices what verified texts are drawn from, the first what plain streams are. Were the model perfect, the second
# could not be the higher one: who sees more pays no more, on average. Where it is higher, or hardly lower, the model has not learnt to listen: of
# the orders that it was taught last, two in eleven were of streams in blocks, and three of streams one by one. Price and tales need not tell the same story, so look at both. Exact means exactly *this
# model's* chain rule in *this* order, for better or worse. It repairs what streams lose, not what the model never learnt.
#
# ## 5. How many tokens a call makes
#
# A call judges a window of drafts, and draws one token itself.
#
# **With three drafts in the window, how many tokens can a call make?**
#
# - **a** 0 to 3
# - **b** 1 to 3
# - **c** 1 to 4

# %%
lab.predict("tokens-of-a-call", guess="a")

# %% [markdown]
# ### Exercise 2: tokens in a call
#
# **Medium, 8 minutes.** Why it matters: this number is the speed, in calls. Given `a` of shape `(n,)`, the chance that draft 1, 2, .. n passes, each
# *given that all drafts before it passed*, return the expected number of tokens that the call makes. The chance that at least
# $k$ tokens are made is all you need: the expectation is its sum over $k = 1 \dots n + 1$.


# %%
def tokens_per_call(a: torch.Tensor) -> torch.Tensor:
    ### BEGIN SOLUTION
    ### STUB: return None  # your code
    return 1 + a.cumprod(0).sum()
    ### END SOLUTION


# %%
second = checks.tokens_per_call(tokens_per_call)
second

# %% [markdown]
# <details><summary>Hint 1</summary>One token is made for certain. A second one is made if draft 1 passed, a third if 1 and 2 passed.</details>
# <details><summary>Hint 2</summary><code>a.cumprod(0)</code> holds the chances that the first 1, 2, .. n drafts all pass. That is when two, three, .. tokens are made.</details>
# <details><summary>Solution</summary>In <a href="solutions/{NAME}.ipynb">the solution notebook</a>.</details>

# %% [markdown]
# Now measure. The package writes 16 rows for each number of streams, at two temperatures, and tells what each call made of its drafts. A draft
# counts at its place of the window if all drafts before it passed; those behind a refused one were not looked at.


# %%
def judged(streams, temperature, rows=16):
    """Of all calls but the first, each row: how many drafts passed (M, 1), and which places held one (M, W - 1)."""
    seen, how = [], (GenerationOrder.strided(N, streams), Sampler(temperature, seed=0), None, streams)
    list(speculative.verified_steps(shipped.engine, torch.full((rows, N), -1), *how, seen.append))
    return torch.cat([call.n_passed for call in seen[1:]]), torch.cat([call.is_inside[:, :-1] for call in seen[1:]])


measured, passing = {}, {}
for temperature in (1.0, 0.7):
    for S in (2, 4, 8):
        n_passed, is_draft = judged(S, temperature)
        places = torch.arange(S - 1)
        measured[S, temperature] = N / (len(n_passed) / 16 + 1)
        passing[S, temperature] = (n_passed > places).sum(0) / (is_draft & (n_passed >= places)).sum(0)

for (S, temperature), rate in measured.items():
    listed = " ".join(f"{chance:.2f}" for chance in passing[S, temperature].tolist())
    print(f"S = {S}, temperature {temperature}: {rate:.2f} tokens a call, drafts pass: {listed}")
curves = {
    f"S = {S}, temperature {t}": [(k + 1, float(chance)) for k, chance in enumerate(passing[S, t])]
    for S, t in passing
    if S > 2
}
lesson_figures.lines(curves, title="Does draft k pass, if those before it did?", x="place k in the window", y="chance")

# %% [markdown]
# Look along a curve. The first draft of a window fails most often: it may stand behind one that failed, and was then drawn in sight
# of a token that is gone. Later ones nearly always pass. And look across: more streams have more heads, and a head that is drafted without the others
# often fails; once all streams have begun, a call makes nearly as many tokens as there are streams.
#
# (The rows are padded with end-of-text to 160 tokens, and padding is easy; a figure for running text would be lower.)
#
# ## 6. When it pays
#
# A call has a price, and there are two ways to count it. **Rows**: what the network computes for one text. Plain streams put
# $S$ new tokens into rows of evidence and ask for $S$ targets: 2 rows a token, as one by one. A verified call reads the last final token and $S - 1$ drafts,
# judges $S$ places and drafts $S - 1$: $3S - 1$ rows. **Calls**: each call reads all weights from memory, however few its rows.
#
# **On a machine whose time is proportional to rows: how does verified decoding with $S = 8$ compare with one by one, at best?**
#
# - **a** 8 times as fast
# - **b** just as fast
# - **c** slower

# %%
lab.predict("rows-for-calls", guess="a")

# %%
ledger = {"one by one": (N, 2 * N)}
for S in (2, 4, 8):
    plain, checked = S + N // S - 1, N / measured[S, 1.0]
    ledger |= {f"{S} streams": (plain, 2 * N), f"{S} streams verified": (checked, (3 * S - 1) * checked)}
for name, (n_calls, n_rows) in ledger.items():
    print(f"{name}: {n_calls:.1f} calls, {n_rows:.0f} rows")

# %%
saved = {name: N / n_calls for name, (n_calls, _) in ledger.items()}
extra = {name: n_rows / (2 * N) for name, (_, n_rows) in ledger.items()}
lab.report(verified_ever_takes_fewer_rows_than_one_by_one=any(v < 1 for name, v in extra.items() if "verified" in name))
for S in (8, 16):
    sizes = [len(list(decode_steps(model, length=N, streams=S, verify="heads", seed=seed))) for seed in range(8)]
    print(f"{S} streams, heads verified: {sum(sizes) / len(sizes):.1f} calls in place of {S + N // S - 1}")
lesson_figures.lines(
    {
        "plain streams": [(extra[f"{S} streams"], saved[f"{S} streams"]) for S in (2, 4, 8)],
        "verified": [(extra[f"{S} streams verified"], saved[f"{S} streams verified"]) for S in (2, 4, 8)],
    },
    title="S = 2, 4, 8: calls saved, rows paid (temperature 1)",
    x="rows, as a multiple of one by one",
    y="calls of one by one / calls",
    levels={"one by one": 1.0},
)

# %% [markdown]
# Plain streams save calls and pay no rows for it; they pay in agreement. Verified decoding pays in rows and keeps the distribution. So it pays
#
# - where a call costs much the same for 2 rows as for 23: few texts at a time, a large model, weights that must be fetched from memory;
# - where drafts pass often: text that is easy to foresee, tokens that depend little on those made with them;
# - and not in large batches, where the machine is busy with rows already.
#
# There is a way between, the two lines above the figure. Plain streams make their heads one at a time: with 16 streams 16 of the 25 calls go into 16 tokens. `verify="heads"` drafts and judges these alone, and goes on in plain streams.
# The texts have the distribution of plain streams, sooner.
#
# How many *seconds* that is on your machine is a matter for measuring, not for counting:
# `python tests/benchmarks/decoding.py quality` times plain, verified and gated decoding of this model, and judges their tales.
#
# ## What to be able to say aloud
#
# - Plain streams have an exact distribution, and it is another one than that of one by one.
# - Keep a draft with chance $\min(1, p/q)$, else draw from what $q$ left of $p$. What is kept has distribution $p$, whatever $q$ was.
# - The drafter decides the speed, never the distribution. A draft stays with chance $\sum \min(p, q)$.
# - Behind a failed draft the judge's answers saw one wrong token. They cannot judge, but they are good guesses: the next drafts are drawn from them.
# - ARMD scores any order in one pass. So drafter and judge are one network, and one call does both.
# - Verification buys calls with rows.
# - What is kept exactly is the model's own chain rule in the order of the streams. Whether that is good is a question to the model.
#
# ## In the papers, and what we simplified
#
# The ARMD paper (Karami and Ghodsi, arXiv 2601.16971) writes in plain streams, section 3.1; verified decoding is not in it. The rule of
# exercise 1 is *speculative decoding* of AR models: Leviathan, Kalman and Matias (2023) and Chen et al. (2023), who draft with a second, small
# model. That a model of any order can draft and judge by itself is *any-subset speculative decoding* (Guo and Ermon, 2025); here it runs on
# strided streams, in batches, and with a cache of keys, values and prefix. That the judge draws one token more when all drafts pass is theirs, too; that
# the judge's answers behind a refused draft serve as the next $q$ is not, as in an AR model all of them go on from the refused token. `verified` above recomputes everything at each call and would be slow; read `armdlab/speculative.py` for how not to.

# %%
lab.finish("06", the_acceptance_rule=first, tokens_in_a_call=second)
