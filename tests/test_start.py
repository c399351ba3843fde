"""Laws of lesson 00: its judge names the mistake, and what it asks is true."""

import pytest

from armdlab import GenerationOrder
from armdlab.checks import start as start_checks


@pytest.mark.parametrize(
    ("steps", "sentence"),
    [
        (None, "nothing is returned: fill in the stub above"),
        (3, "write a list of steps, each a list of positions, such as [[0], [1, 2]]; yours is 3"),
        ([[0], [3], ["1", 4], [2, 5]], "write a list of steps, each a list of positions"),
        ([[0, 3], [1, 4], [2, 5]], "your two heads are made together, from nothing; heads are made one by one"),
        ([[0], [1], [2], [3], [4], [5]], "you take 6 steps, one for each token; after the heads a step makes one"),
        ([[0], [3], [1, 2], [4, 5]], "you make 1 and 2 in one step, and both are in stream 1; a step makes one token"),
        ([[0], [3], [1, 4, 2, 5]], "you make 1 and 2 in one step, and both are in stream 1"),
        ([[1], [4], [2, 5], [3, 6]], "your positions run from 1 to 6; count them from 0, as Python does"),
        ([[0], [3], [1, 4]], "every position 0 to 5 is made once, and by one step; yours are [0, 1, 3, 4]"),
        ([[0], [3], [1, 4], [], [2, 5]], "a step of yours is empty; every step makes at least one position"),
        (
            [[3], [0], [1, 4], [2, 5]],
            "heads come first, stream by stream: step 1 makes 0 and step 2 makes 3; only then",
        ),
        ([[0], [1, 3], [2, 4], [5]], "heads come first, stream by stream"),
        ([[0], [3], [2, 5], [1, 4]], "step 3 makes [1, 4]: in a stream, tokens come left to right; yours makes [2, 5]"),
    ],
)
def test_judge_of_steps_by_hand_names_the_mistake(steps, sentence):
    verdict = start_checks.steps_by_hand(steps)
    assert not verdict.passed
    assert sentence in verdict.sentence


def test_judge_of_steps_by_hand_passes_the_right_list_in_any_form():
    for steps in (
        [[0], [3], [1, 4], [2, 5]],
        ((0,), (3,), (4, 1), (5, 2)),
        list(GenerationOrder.strided(6, 2).steps()),
    ):
        assert start_checks.steps_by_hand(steps).passed


def test_two_streams_of_160_tokens_take_the_steps_that_the_lesson_states():
    assert GenerationOrder.strided(160, 2).n_blocks == 2 + 80 - 1 == 81
