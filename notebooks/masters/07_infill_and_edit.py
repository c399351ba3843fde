# %% [markdown]
# # 07 Infill and edit
#
# [Open in Colab]({COLAB}) · 45 minutes to read and do, about a minute to run on a CPU · [back: 06](06_exact_parallel.ipynb) · [next: 08](08_the_tables.ipynb) · [all lessons](README.md)
#
# After this lesson you will be able to
#
# - **condition** on anything: put what is known first, and price exactly what fills the gaps;
# - **choose** the order in which gaps are filled, and say what it changes;
# - **score** alternatives in two ways that ought to agree, and find out which of the two to believe.
#
# You need: [lesson 01](01_masking_is_an_order.ipynb) for orders, [lesson 03](03_one_pass_likelihood.ipynb) for prices. Words that are new stand in the [glossary](README.md#glossary).

# %%
import armdlab.lab as lab

lab.start("07")

# %% [markdown]
# ## Where we are going
#
# A left-to-right model continues a text. It cannot be told how the text ends. ARMD takes any order, so whatever is known may come first,
# wherever it stands: a beginning, an end, every second word. That is all there is to infilling. In the picture five words are known and three are missing; the number says
# when each word is read or made.

# %%
import itertools
import textwrap

import torch

from armdlab import ARMD, ARMDConfig, GenerationOrder, decode_steps, figures, generate, tales
from armdlab.checks import infilling as checks
from armdlab.figures import lessons as lesson_figures
from armdlab.figures.infilling import alternatives, two_sides
from armdlab.infilling import filling_nll, filling_order, surest_first
from armdlab.objectives import nll

words = "on ____ he gave it ____ Billy ____".split()
is_known = torch.tensor([word != "____" for word in words])
figures.ribbon(GenerationOrder.infilling(is_known), words, "What is known comes first, then the gaps")

# %% [markdown]
# ## 1. What is known comes first
#
# Let $K$ be the positions that are known and $u_1, u_2, \dots$ the gaps, in the order in which they are filled. Behind $K$, the chain rule of lesson 03
# goes on as ever:
#
# $$p(x_{u_1}, x_{u_2}, \dots \mid x_K) = \prod_i p\big(x_{u_i} \mid x_K,\ x_{u_1}, \dots, x_{u_{i-1}}\big)$$
#
# ### Exercise 1: the order of infilling
#
# **Easy, 5 minutes.** Why it matters: this one list turns a model that writes texts into one that fills gaps. From `known`,
# a list of $N$ booleans, return the $N$ text positions by rank: the known ones from left to right, then the gaps from left to right.


# %%
def infilling_positions(known: list[bool]) -> list[int]:
    ### BEGIN SOLUTION
    ### STUB: return None  # your code
    given = [position for position, is_given in enumerate(known) if is_given]
    gaps = [position for position, is_given in enumerate(known) if not is_given]
    return given + gaps
    ### END SOLUTION


# %%
first = checks.infilling_positions(infilling_positions)
first

# %% [markdown]
# <details><summary>Hint 1</summary><code>enumerate(known)</code> gives positions together with whether they are known.</details>
# <details><summary>Hint 2</summary>Two lists, one behind the other: nothing needs to be sorted.</details>
# <details><summary>Solution</summary>In <a href="solutions/{NAME}.ipynb">the solution notebook</a>.</details>

# %% [markdown]
# Now a tale. Five of its words are left out; four of them are settled by the rest of the tale.

# %%
shipped = lab.load("tales")
model, tokenizer = shipped.model, shipped.tokenizer
ids = torch.tensor(tokenizer.encode(tales.sample(300).text))
N, gaps = len(ids), [8, 9, 12, 21, 101]
known = torch.ones(N, dtype=torch.bool)
known[gaps] = False


def read(tokens, shown=None):
    pieces = [tokenizer.decode([token]) for token in tokens.tolist()]
    return "".join(piece if shown is None or shown[p] else " ____" for p, piece in enumerate(pieces))


print(textwrap.fill(read(ids, known), 80))

# %% [markdown]
# **The text has 121 tokens, of which 5 are to be filled, one at a time. How many network calls does it take?**
#
# - **a** 121, one for each token
# - **b** 6, one to read what is known and 5 to fill
# - **c** 5

# %%
lab.predict("calls-of-infilling", guess="a")

# %%
given = ids.masked_fill(~known, -1)  # -1 marks what is to be made
order = filling_order(known, "left to right")
steps = list(decode_steps(model, length=N, known=given, order=order, seed=1))
lab.report(network_calls=len(steps), known_tokens=int(known.sum()))
for seed in (1, 2, 3):
    filled = generate(model, length=N, known=given, order=order, seed=seed)[0]
    said = " |".join(tokenizer.decode([token]) for token in filled[gaps].tolist())
    print(f"seed {seed}:{said} ({int((filled == ids)[known].sum())} known tokens are as they were)")

# %% [markdown]
# The colour, the thing and the day stand further on in the tale, and all three seeds find them. *Billy, who was ____* leaves room for *ill* alone; some seeds write *all*, the beginning
# of *all alone*, and so make a fault. (Try more of them.) The last gap is free, and each seed fills it in its own way. A model that writes from left to right would have had to guess all that comes later.
#
# ## 2. What a filling costs
#
# ### Exercise 2: the log-probability of a filling
#
# **Medium, 8 minutes.** Why it matters: with this number, alternatives can be compared, and it is exact. One pass under an infilling order has given `logits` (N, V),
# in text order: at each position, the prediction of that very position. `tokens` (N,) are the whole text with its filling, `known` (N,) are booleans. Return
# $\log p(\text{gaps} \mid \text{known})$.


# %%
def filling_log_prob(logits: torch.Tensor, tokens: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    ### BEGIN SOLUTION
    ### STUB: return None  # your code
    log_p = logits.log_softmax(-1).gather(-1, tokens.unsqueeze(-1)).squeeze(-1)
    return log_p[~known].sum()
    ### END SOLUTION


# %%
second = checks.filling_log_prob(filling_log_prob)
second

# %% [markdown]
# <details><summary>Hint 1</summary>First the log-probability of each token: <code>log_softmax</code> over the vocabulary, then <code>gather</code> what the tokens picked.</details>
# <details><summary>Hint 2</summary>Of the factors of the chain rule only those that come after what is known belong to the filling.</details>
# <details><summary>Solution</summary>In <a href="solutions/{NAME}.ipynb">the solution notebook</a>.</details>

# %% [markdown]
# Is it exact? A small world can be counted: a vocabulary of 4, texts of 5 tokens, two tokens known, so $4^3 = 64$ fillings. Under each order their chances must sum to 1.
# (`filling_nll` is exercise 2 in the package, in nats.)

# %%
torch.manual_seed(0)
small = ARMD(ARMDConfig(vocab_size=4, max_length=5, n_layer=2, n_head=2, d_model=16)).eval()
with torch.no_grad():
    small.embedding.weight.mul_(50.0)  # opinions, as training would give it
    small.head.weight.mul_(20.0)
two_known = torch.tensor([True, False, True, False, False])
world = torch.tensor([[2, a, 1, b, c] for a, b, c in itertools.product(range(4), repeat=3)])

orders = {way: filling_order(two_known, way) for way in ("left to right", "right to left")}
orders["all at once"] = GenerationOrder([0, 2, 1, 3, 4], [0, 1, 2, 2, 2])
for name, way in orders.items():
    with torch.no_grad():
        chance = filling_nll(small, world, two_known, way).double().sum(-1).neg().exp()
    print(f"{name}: 64 chances sum to {chance.sum():.6f}, the likeliest filling has {chance.max():.4f}")

# %% [markdown]
# Each order gives an honest distribution, and they are not the same one.
#
# **Suppose the model were perfect. What would one and the same filling cost from left to right, and from right to left?**
#
# - **a** less from left to right, for so it was written
# - **b** the same
# - **c** less from right to left, because the end is harder to guess

# %%
lab.predict("two-orders-one-price", guess="a")

# %% [markdown]
# Here is what the shipped model asks for the five words that stood in the tale, and then for its whole second sentence. *Surest first* is an order that the model finds for itself: at each step it looks at all
# open gaps, and fills the gap whose likeliest token has the highest chance. Which gap comes next then depends only on what has been filled before, so the product of its
# chances is a probability as exact as the others.


# %%
def prices(known):
    orders = {way: filling_order(known, way, seed=0) for way in ("left to right", "right to left", "random")}
    with torch.no_grad():
        found = {way: float(filling_nll(model, ids[None], known, order).sum()) for way, order in orders.items()}
    walk = list(surest_first(model, ids.masked_fill(~known, -1), words=ids))
    nats = [-float(step.log_probs.sum()) for step in walk]
    said = [tokenizer.decode([int(ids[step.positions[0]])]) for step in walk]
    said = [f"{word} ({paid:.1f})" if paid > 2 else word for word, paid in zip(said, nats, strict=True)]
    print("surest first goes:", " |".join(said))
    return found | {"surest first": sum(nats)}


without = (torch.arange(N) < 11) | (torch.arange(N) > 21)  # the second sentence is left out
priced = {"five words": prices(known), "a sentence": prices(without)}
for name, found in priced.items():
    print(f"{name}: {', '.join(f'{way} {nats:.1f}' for way, nats in found.items())}")
lesson_figures.bars(
    priced["a sentence"], title="One filling, four orders", x="nats of the sentence, given all the rest"
)

# %% [markdown]
# A perfect model would show four equal bars. By how much they differ says how far this one is from it. From left to right is how it practised to fill gaps. *Surest first* finds an
# order for itself; a number in brackets is the price of a word that costs more than 2 nats. Where it is dear, nearly all of its price is such a word: a question that it has hardly practised. Right to left and random orders ask for most words with their left neighbour missing, which it has hardly practised.
#
# ## 3. What is the right side worth?
#
# **Take one gap, the first mention of the rug. The tale says further on what was given away. What does the gap cost to a reader who knows the grammar of tales and both sides?**
#
# - **a** nothing
# - **b** ln 62 = 4.13 nats, for there are 62 things
# - **c** as much as from the left side alone

# %%
lab.predict("first-mention", guess="b")

# %% [markdown]
# Tales have a grammar whose probabilities are known (lesson [X1](x1_tales.ipynb)), so *the truth* can be computed: put every token of the vocabulary into the gap, and ask
# for the exact probability of the tale. Beside it, the model: with the left side known, and with both.


# %%
def truth(at):
    """Chance of every token at a position, given all the rest of the tale: float64 (V,)."""
    tokens, log_p = ids.tolist(), []
    for token in range(tokenizer.vocab_size):
        tokens[at] = token
        log_p.append(tales.log_prob(tokenizer.decode(tokens)))
    return torch.tensor(log_p, dtype=torch.float64).softmax(-1)


def one_gap(at):
    is_known = torch.arange(N) != at
    return filling_order(is_known)


with torch.no_grad():
    left = nll(model, ids[None], None, "none")[0]
    parts = [GenerationOrder.stack([one_gap(at) for at in part]) for part in torch.arange(N).split(11)]
    rows = [nll(model, ids.expand(11, -1), part, "none") for part in parts]
both = torch.cat(rows).diagonal()  # row n has its gap at position n

# %%
true = {at: truth(at) for at in (9, 12, 101, 1)}
for at, chance in true.items():
    alone, whole, exact = float(left[at]), float(both[at]), float(-chance[ids[at]].log()) + 0.0
    print(f"{read(ids[at : at + 1])}: left side {alone:.2f}, both sides {whole:.2f}, truth of both sides {exact:.2f}")

# %% [markdown]
# *rug* and *Saturday* are settled by what follows. *wonderful* is one of five words that would all fit, and *brave* one of eleven: ln 5 and ln 11 nats are the least that even a perfect
# model can pay there. Now all 121 words, and a picture of the twelve that are dearest from the left:

# %%
for name, chosen in {"above 1 nat": left > 1, "below 0.1 nats": left < 0.1}.items():
    before, after = float(left[chosen].mean()), float(both[chosen].mean())
    print(f"{int(chosen.sum())} words {name} from the left: {before:.2f} nats, with both sides {after:.2f}")
lab.report(words_that_become_cheaper=f"{int((both < left).sum())} of {N}", mean_change=float((both - left).mean()))
dearest = left.topk(12).indices.sort().values
shown = [f"{int(at)}: {read(ids[at : at + 1]).strip()}" for at in dearest]
two_sides(shown, left[dearest].tolist(), both[dearest].tolist(), title="The dearest words of the tale")

# %% [markdown]
# Of true prices it holds that knowing more lowers them *in the mean*; one word may rightly cost more. Of a learnt model even that need not hold; here the mean hardly
# moves. And some words cost more than they may, most at the beginning: *brave* should cost 2.40 nats, and costs 13.09. One in eleven of the orders that it was taught last had gaps,
# and those were one to three spans, none shorter than seven tokens: single holes it never practised. Still, one token left out costs only 0.14 +- 0.05 nats, the mean over 150 other tales.
# *Any order can be asked* is a fact of the architecture, *any order is answered well* would be a fact of training (lesson 04).
#
# ## 4. Two ways to ask the same question
#
# Which of some alternatives belongs in a gap? Way one: the price of the gap, given the rest, as above. Way two: put each alternative $a$ into the text and take the price of the **whole text**,
# in any order at all. By the definition of conditional probability
#
# $$p(a \mid \text{rest}) = \frac{p(\text{text with } a)}{\sum_b p(\text{text with } b)}$$
#
# **For way two we choose left to right, which the model has practised most. At which tokens can the prices of two alternatives differ?**
#
# - **a** at the gap only
# - **b** at the gap and to its right
# - **c** everywhere

# %%
lab.predict("whose-price-moves", guess="a")

# %% [markdown]
# ### Exercise 3: chances from prices
#
# **Easy, 5 minutes.** Why it matters: with it, any model that prices whole texts can choose between words in their midst, even an AR model. `nats` (A,) are the prices of
# the whole text with each of $A$ alternatives. Return their chances (A,), given that it is one of them.


# %%
def chances(nats: torch.Tensor) -> torch.Tensor:
    ### BEGIN SOLUTION
    ### STUB: return None  # your code
    return (-nats).softmax(-1)
    ### END SOLUTION


# %%
third = checks.chances(chances)
third

# %% [markdown]
# <details><summary>Hint 1</summary>A price is -log p, so p is <code>exp(-nats)</code>: divide by their sum.</details>
# <details><summary>Hint 2</summary>A text of 900 nats has a chance that no float64 can hold. There is a function that subtracts the largest exponent first.</details>
# <details><summary>Solution</summary>In <a href="solutions/{NAME}.ipynb">the solution notebook</a>.</details>

# %% [markdown]
# Both ways in two gaps, and the truth beside them:


# %%
def weighed(at, tokens):
    texts, is_known = ids.repeat(len(tokens), 1), torch.arange(N) != at
    texts[:, at] = torch.tensor(tokens)
    with torch.no_grad():
        gap = filling_nll(model, texts, is_known, one_gap(at)).sum(-1)
        whole = nll(model, texts, None, "none").sum(-1)
    exact = true[at][tokens]
    return {"gap given the rest": (-gap).softmax(-1), "whole text": (-whole).softmax(-1), "truth": exact / exact.sum()}


asked = {101: [" wonderful", " lovely", " fine", " Saturday"], 1: [" brave", " jolly", " named", " said"]}
found = {at: weighed(at, [tokenizer.encode(word)[0] for word in options]) for at, options in asked.items()}
for at, ways in found.items():
    for way, chance in ways.items():
        off = float((chance - ways["truth"]).abs().sum() / 2)
        print(f"position {at}, {way}: {', '.join(f'{p:.3f}' for p in chance.tolist())}; {off:.3f} off the truth")
named = {f"gap at position {at}": ways for at, ways in found.items()}
alternatives(named, {f"gap at position {at}": [word.strip() for word in asked[at]] for at in asked})

# %% [markdown]
# *Off the truth* is the total variation of lesson 06. Where the two ways differ, the better one is that whose order the model has practised more. So a sound recipe is: let the
# infilling order **propose**, since it alone can fill a gap in one call with both sides in sight, and let the whole text **decide**.
#
# ## 5. Choose the order
#
# Sixteen other tales, six words of each left out at random, filled four ways. The fifth way fills eight times from left to right and keeps the filling whose whole text is cheapest.


# %%
def fill(given, way, seed):
    if way == "surest first":
        text = given.clone()[None]
        for step in surest_first(model, given, seed=seed):
            step.write_into(text)
        return text[0]
    many, way = (8, "left to right") if way == "best of eight" else (1, way)
    how = {"known": given, "order": filling_order(given >= 0, way, seed=seed), "batch_size": many, "seed": seed}
    texts = generate(shipped.engine, length=len(given), **how)
    with torch.no_grad():
        return texts[nll(model, texts, None, "none").sum(-1).argmin()]


ways = ("left to right", "right to left", "random", "surest first", "best of eight")
whole, same = dict.fromkeys(ways, 0), dict.fromkeys(ways, 0)
for seed in range(400, 416):
    text = torch.tensor(tokenizer.encode(tales.sample(seed).text))
    hidden = torch.randperm(len(text), generator=torch.Generator().manual_seed(seed))[:6]
    for way in ways:
        filled = fill(text.index_fill(0, hidden, -1), way, seed)
        whole[way] += not tales.check(tokenizer.decode(filled.tolist()))
        same[way] += int((filled == text)[hidden].sum())
print("\n".join(f"{way}: {whole[way]} tales without a fault, {same[way]} words as they stood" for way in ways))
lesson_figures.bars(same, title="Six words left out of each of 16 tales", x="words as they stood, of 96", digits=0)

# %% [markdown]
# Which order is best is a question to the model and its training, and this is how to put it. Of 16 tales a count has a standard error of up to 2, so take a difference of one or two for
# a hint, and no more. Weighing whole texts costs eight fillings and one more pass; it helps wherever
# some of the eight are good and the model knows a good text when it reads one.
#
# ### The infilling desk
#
# Now with your own hands. Three things to try:
#
# 1. *Fill the gaps* a few times: which gap is open, and which is no choice at all? Point at its words.
# 2. Write a word of your own into a gap, *weigh* it, and compare it under the three orders of *compared under*.
# 3. Leave out more and more words, and switch to *surest first*: when does it begin to pay?

# %% tags=["nbval-ignore-output"]
from armdlab.widgets.infilling_desk import InfillingDesk

desk = InfillingDesk(tales.sample(300).text, gaps, lab=shipped)
for seed in (1, 2, 3):
    desk.run_now(seed=seed)
desk

# %% [markdown]
# ## 6. Edit
#
# An edit is an infilling: write the new word, leave out what depends on it, and fill. The day of the tale stands in its beginning and in its end. Change the **last** mention; what becomes of the first?


# %%
def edit(at, word, depends):
    text = ids.clone()
    text[at] = tokenizer.encode(word)[0]
    text[depends] = -1
    return generate(model, length=N, known=text, temperature=0.0)[0]


mentions = [at for at in range(N) if ids[at] == ids[38]]  # of Hazel
for at, word, depends in ((112, " Friday", [12]), (12, " Friday", [112]), (mentions[-1], " Ruby", mentions[:-1])):
    text = edit(at, word, depends)
    became = " and".join(tokenizer.decode([int(text[p])]) for p in depends)
    faults = len(tales.check(tokenizer.decode(text.tolist())))
    print(f"position {at} becomes{word}: positions {depends} become{became}; {faults} faults in the tale")

# %% [markdown]
# No rule of tales was written for this. The model has read the new word, wherever it stands. (Nor was anything written to make it sure: with *Emil* in the place of *Ruby* it fills in *Emil* twice, and leaves a *she* that should be a *he*, for that word was given. Try it.)
#
# **Break it:** price the gap at position 12 in the order of reading, and it is blind to its right side. We change the day behind it and look at the price of the first one:

# %%
changed = ids.clone()
changed[112] = tokenizer.encode(" Friday")[0]
for name, order in {"infilling": one_gap(12), "left to right": GenerationOrder.left_to_right(N)}.items():
    with torch.no_grad():
        before, after = (nll(model, text[None], order, "none")[0, 12] for text in (ids, changed))
    print(f"{name}: {before:.2f} nats, and {after:.2f} once the end says Friday; equal: {bool(before == after)}")

# %% [markdown]
# ## What to be able to say aloud
#
# - To condition on anything, put it first: infilling is an order, and needs no mask token; to be done well it needs practice.
# - The known tokens cost no call. The nats of all that is made after them sum to $-\log p(\text{gaps} \mid \text{known})$, exactly, under a named order.
# - For a perfect model every one-by-one order of the gaps has the same price. How far they lie apart says how far the model is from it.
# - More knowledge lowers a true price in the mean; a learnt one only as far as the curriculum has taught its use.
# - $p(a \mid \text{rest})$ can be asked in two ways, by the gap or by the whole text. Propose by the first, decide by the order that was practised.
#
# ## In the papers, and what we simplified
#
# ARMD (Karami and Ghodsi, arXiv 2601.16971) trains for orders and generates in them; that conditioning on any part of a text is a matter of order follows from section 2, and
# the paper does not measure it. Models of any order fill gaps in this way since XLNet (Yang et al., 2019) and order-agnostic diffusion (Hoogeboom et al., 2022); *surest first* is the rule of
# MaskGIT (Chang et al., 2022), made exact here by giving each chosen gap a pass of its own. Our gaps have a known number of tokens: a model
# that may write more or fewer words into a gap needs a length, or a token for *nothing*, and we left both out.

# %%
lab.finish("07", the_order_of_infilling=first, the_price_of_a_filling=second, chances_of_alternatives=third)
