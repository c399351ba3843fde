"""What is a learner asked to predict, and why is the answer what it is? (apart from the lessons, so that none peeks)"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Question:
    """One question of a lesson; its text stands in the lesson.

    Args:
        letters: the choices.
        answer: the right letter.
        because: why, as the end of a sentence.
    """

    letters: str
    answer: str
    because: str


QUESTIONS = {
    "made-together": Question(
        "abc",
        "b",
        "all four are chosen in one step, each from what earlier steps made, so none of them is known when another is "
        "chosen. Who saw what can be read in the viewer: point at a word.",
    ),
    "steps-of-two-streams": Question(
        "abc",
        "b",
        "two heads take a step each, and the other 79 tokens of both streams are made in 79 steps of two. In general "
        "it is S + N/S - 1, here 2 + 80 - 1.",
    ),
    "written-first": Question(
        "abc",
        "c",
        "they were masked last, at step 3. Undoing runs backwards: masked last, generated first.",
    ),
    "blocks-of-three": Question(
        "abc",
        "c",
        "the difference is the blocks on the diagonal, two blocks of 3 x 3 cells. Blocks of 2 gave 3 x 4 = 12.",
    ),
    "mask-alone": Question(
        "abc",
        "b",
        "in a transformer the row of token n starts as the embedding of x_n itself. Its query, and the residual "
        "stream, which no mask touches, hold the very token that is to be predicted.",
    ),
    "no-query": Question(
        "abc",
        "c",
        "the layer adds what it read to the row that it started from, and that row is the embedding of x_n. No weight "
        "of the query can close this door; only a row that never held x_n can.",
    ),
    "where-to": Question(
        "abc",
        "a",
        "its row is the token made before, at that token's position. Where the target stands enters nowhere, so the "
        "model cannot know which of two gaps it is filling, and gives both the same chances, bit by bit.",
    ),
    "size-of-the-state": Question(
        "abc",
        "b",
        "each token is added into the same table of d_pe rows and D columns. A longer text makes its entries larger, "
        "not more: that is why G^0 is normalised before use.",
    ),
    "price-of-two-streams": Question(
        "abc",
        "b",
        "G makes no keys and values in the two-stream layers, X of the last of them is needed for its keys and values "
        "alone, and the other half of the layers runs on G alone.",
    ),
    "loaded-dice": Question(
        "abc",
        "c",
        "five of the six throws leak into their own predictions and soon cost nothing. The last throw made is never "
        "read by anybody, so its ln 6 nats must be paid: ln 6 / 6 = 0.30 a throw.",
    ),
    "sum-of-streams": Question(
        "abc",
        "b",
        "inside a block each token has its own softmax, which sums to 1, and so does a product of independent ones. "
        "That tokens of a block cannot see each other makes the model poorer, not its arithmetic.",
    ),
    "any-order-at-once": Question(
        "abc",
        "c",
        "it was never asked that. Its curriculum shuffled 5 of 160 tokens and then turned to streams, and a model "
        "knows the orders that it has learnt. One pass gives the price of ANY order, not a low one.",
    ),
    "sum-of-bounds": Question(
        "abc",
        "a",
        "the bound is never below the exact figure, so exp(-bound) is never above p, and p sums to 1. What is missing "
        "from 1 is what the bound gives away.",
    ),
    "scored-in-a-call": Question(
        "abc",
        "b",
        "k is any of 1 .. 160 with equal chance, and the mean of these is 80.5. ARMD scores all 160, each from "
        "all that was made before it.",
    ),
    "first-streams": Question(
        "abc",
        "b",
        "in one step of three S is 1, plain left to right, and in a stream every token but the head has its left "
        "neighbour. That is easier than 16 shuffled tokens of 64. Nothing was learnt in that moment: the loss of a "
        "step is the price of the orders being taught.",
    ),
    "price-of-shuffled": Question(
        "abc",
        "c",
        "it is not asked for them any more, and the same weights are now pulled elsewhere. A network keeps what it "
        "goes on practising; that is why a mixture of orders is offered too.",
    ),
    "random-from-the-start": Question(
        "abc",
        "c",
        "a random order asks for any token from any of the others, N 2^(N-1) questions instead of N. In as many "
        "steps each is practised less, and left to right hardly at all.",
    ),
    "transfer": Question(
        "abc",
        "b",
        "it has learnt to predict from a text with holes: the next place is not always the next position, words to the "
        "left may be missing, and words to the right may be known. Streams ask for all three, left to right for none.",
    ),
    "fewest-steps": Question(
        "abc",
        "b",
        "S + 160/S - 1 is 27 for 8, 25 for 10, and 160 for 160. Each stream has a head that is made alone, so many "
        "short streams wait for their heads, and few long ones for their ends. The least is near the root of N, here "
        "12.6: 16 streams take 25 calls, too.",
    ),
    "agreeing-coins": Question(
        "abc",
        "b",
        "neither sees the other, so the best that each can do is to draw from its own 1/2, and two such draws agree "
        "half the time. The loss is ln 2 nats, and no training takes it away.",
    ),
    "rows-with-a-cache": Question(
        "abc",
        "c",
        "each token goes in once as evidence and once as a target: 1 + 156 rows of X (BOS, and all that some later "
        "call reads) and 160 rows of G. Without a cache it is 43 calls of 2 x 160 rows.",
    ),
    "what-the-first-stream-pays": Question(
        "abc",
        "a",
        "it reads what the other streams have made, far ahead in the text, and knows how the tale goes on. What it "
        "gains, others pay and more: only the sum over the row is a price.",
    ),
    "how-often-it-stays": Question(
        "abc",
        "b",
        "x is drafted with chance q(x) and then stays with chance min(1, p(x) / q(x)): together min(p(x), q(x)). "
        "Summed: 0.25 + 0.25 + 0, the overlap of the two distributions.",
    ),
    "bad-drafter": Question(
        "abc",
        "b",
        "the residual makes good whatever the drafter did, so the result is p for every q. What a bad drafter costs is "
        "time: the overlap shrinks, drafts fail, and a call makes fewer tokens.",
    ),
    "tokens-of-a-call": Question(
        "abc",
        "c",
        "a refused draft is drawn anew in its place, so one token is certain; and if all three pass, the judge knows "
        "the chances of the place behind them, too, and draws a fourth.",
    ),
    "rows-for-calls": Question(
        "abc",
        "c",
        "a verified call computes 3S - 1 = 23 rows and makes at most 8 tokens: nearly 3 rows a token, where one "
        "by one takes 2. Verification buys calls with rows, and never saves any.",
    ),
    "calls-of-infilling": Question(
        "abc",
        "c",
        "reading costs no call of its own: in the first call all 116 known tokens go in as evidence, and the first gap "
        "comes out as a target. From then on it is one call a gap.",
    ),
    "two-orders-one-price": Question(
        "abc",
        "b",
        "by the chain rule p(a) p(b | a) = p(b) p(a | b), and a perfect model knows all four factors. A learnt one has "
        "practised some of them more than others, and its orders disagree.",
    ),
    "first-mention": Question(
        "abc",
        "a",
        "the tale says further on what was given away, and contradicts itself with any other word there. To a reader "
        "who knows both sides the gap is no choice, and what is no choice costs ln 1 = 0.",
    ),
    "whose-price-moves": Question(
        "abc",
        "b",
        "a token before the gap is predicted from what stands before it, where no alternative differs; one after the "
        "gap sees the word in it. That is where the right side has its say.",
    ),
    "two-papers": Question(
        "abc",
        "c",
        "31.8 is the bound by which the model was trained, 26.8 an estimate of the exact figure, minus the log of the "
        "mean probability over random orders. Both are right, of different quantities; only the labels were missing.",
    ),
    "which-unit": Question(
        "abc",
        "b",
        "no text of 1,024 tokens can have more than ln 1024 = 6.93 nats, which it has when no token comes twice. In "
        "bits the ceiling is 10, and 8.1 bits are 5.6 nats, which is what other papers print.",
    ),
    "float32-noise": Question(
        "abc",
        "b",
        "a rare word that competes with a mask 1,023 times as likely falls below the floor and is never drawn. That "
        "cuts the tails as a nucleus would: fewer surprises for the judge, less entropy, and nobody told. So chance is "
        "drawn in float64 here.",
    ),
    "dearest-choice": Question(
        "abc",
        "b",
        "a choice among 62 equally likely things costs ln 62 = 4.13 nats, one among 8 plots ln 8 = 2.08, and one among "
        "3 hiding places ln 3 = 1.10. Rare words are dear, whatever their part in the story.",
    ),
    "a-wrong-colour": Question(
        "abc",
        "c",
        "a later colour is no choice: it follows from the first. No derivation writes the two together, so p = 0 and "
        "log p = -inf. A judge that is a language model would give it a little less than the tale, and not notice.",
    ),
    "below-the-truth": Question(
        "abc",
        "b",
        "over fresh tales the mean of -log q is the entropy plus KL(p || q), and KL is never negative. Only on tales "
        "that it has learnt by heart can a model pay less.",
    ),
}
