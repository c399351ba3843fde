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
