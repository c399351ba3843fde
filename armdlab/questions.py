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
}
