"""Laws of figures and of the notebooks' front door."""

import re
import struct

import pytest
import torch
from matplotlib.figure import Figure
from strategies import random_tokens, tiny

from armdlab import ARMD, GenerationOrder, checks, figures, lab
from armdlab.baselines import LeakyQuery
from armdlab.figures import acceptance as acceptance_figures
from armdlab.figures import lessons as lesson_figures
from armdlab.masks import may_see
from armdlab.positions import sinusoids

WORDS = ["the", "cat", "sat", "on", "the", "mat"]
TIMES = [2, 3, 1, 3, 2, 1]
ORDER = GenerationOrder.from_masking_times(TIMES)


def size(picture):
    assert picture.png.startswith(b"\x89PNG")
    return struct.unpack(">II", picture.png[16:24])


@pytest.mark.parametrize(
    ("draw", "words"),
    [
        (lambda: figures.masking(TIMES, WORDS), "A grid of 4 steps by 6 words. Masked: the at step 2, cat at step 3"),
        (lambda: figures.ribbon(ORDER, WORDS), "First cat with on; then the with the; then sat with mat."),
        (lambda: figures.masks(ORDER, WORDS), "M^c allows 24 cells, M^sc 12"),
        (lambda: figures.masks(ORDER, WORDS, in_text_order=True), "matrices in text order"),
        (lambda: figures.leaks({"A": torch.ones(6, 6)}, WORDS, ORDER), "A: 24 leaks."),
        (figures.overview, "four streams write a text"),
        (
            lambda: lesson_figures.two_streams(ORDER, WORDS),
            "23 in X, 18 in G. cat? reads BOS; on? reads BOS; the? reads BOS cat on; the? reads BOS cat on; sat?",
        ),
        (
            lambda: lesson_figures.kernels({"start": sinusoids(90, 8, 10.0)}, at=40, reach=20, order=ORDER),
            "start: 0.85 one token away, -0.23 ten away",
        ),
        (
            lambda: lesson_figures.reading(torch.tensor([[1.0, 0.0], [0.25, 0.75]]), ["a?", "b?"], ["BOS", "a"], "It"),
            "a? reads BOS most, 1.00; b? reads a most, 0.75.",
        ),
        (
            lambda: lesson_figures.lines({"A": [(1, 2), (3, 1)]}, title="T", x="steps", y="nats", levels={"low": 0.5}),
            "Curves of nats against steps. A from 2.00 to 1.00; low at 0.50.",
        ),
        (
            lambda: lesson_figures.bars({"A": 2.0, "B": 12.25}, title="T", x="nats", levels={"the truth": 1.5}),
            "Bars of nats. A: 2.0; B: 12.2; the truth: 1.5.",
        ),
        (
            lambda: lesson_figures.calls(["the", "cat"], {"ARMD": [True, True], "MDLM": [False, True]}),
            "What each network call scores. ARMD: 2 of 2 words; MDLM: 1 of 2 words.",
        ),
        (
            lambda: lesson_figures.orders(torch.tensor([[0, 1, 2], [2, 1, 0]]), ["plain", "mixed"], "Two"),
            "not in their left-to-right place: plain: 0 of 3; mixed: 2 of 3.",
        ),
        (
            lambda: lesson_figures.table({"A": {"x": 1, "y": 4}, "B": {"x": 2, "y": 3}}, title="T", unit="nats"),
            "A table of nats, 2 by 2. x: best A, 1.00; y: best B, 3.00.",
        ),
        (
            lambda: lesson_figures.lanes(torch.tensor([0.0, -1, 3, 0.5]), 2, title="T", unit="nats"),
            "stream 1 -1.00; stream 2 +3.50. The most is 3.00, at position 2.",
        ),
        (
            lambda: acceptance_figures.overlap(torch.tensor([0.5, 0.5, 0]), torch.tensor([0.25, 0.25, 0.5]), "abc"),
            "p and q: kept, 0.50 in all, p only: drawn anew, 0.50, q only: refused, 0.50. a: p 0.50, q 0.25;",
        ),
        (
            lambda: acceptance_figures.acceptance([(0, ["a", "b", "c"], ["a", "x"]), (2, ["c"], ["c", "d"])], "T"),
            "call by call: 2 kept, 1 drawn anew, 1 drawn as one more. Tokens made in call 1: 2 of 4; call 2: 2 of 2.",
        ),
        (
            lambda: acceptance_figures.agreement(
                torch.tensor([0.25, 0.75]),
                {"plain": torch.tensor([0.5, 0.5]), "verified": torch.tensor([0.26, 0.74])},
                "T",
            ),
            "share against exact chance. Off the diagonal by plain: at most 0.250; verified: at most 0.010",
        ),
    ],
)
def test_a_picture_shows_itself_with_words_and_is_drawn_alike_twice(draw, words):
    picture, again = draw(), draw()
    assert words in picture.alt
    assert min(size(picture)) > 100
    assert picture.png == again.png
    bundle = picture._repr_mimebundle_()
    assert bundle["text/plain"] == picture.alt
    assert 'alt="' in bundle["text/html"]
    assert "0x" not in repr(picture)


def test_words_of_a_user_are_text_and_not_markup():
    hostile = ["<script>", '"', "&", "naïve", "\u202eabc", "mat"]
    shown = figures.ribbon(ORDER, hostile)._repr_mimebundle_()["text/html"]
    assert "<script>" not in shown
    assert shown.count("<") == 1


def test_a_picture_is_saved_as_png(tmp_path):
    figures.ribbon(ORDER, WORDS).save(tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_leak_matrix_is_read_without_dropout_and_leaves_a_model_in_training():
    model = tiny(ARMD, dropout=0.5).train()
    while_training = figures.leak_matrix(model, random_tokens(model, 1, 6), ORDER)
    assert model.training
    assert torch.equal(while_training, figures.leak_matrix(model.eval(), random_tokens(model, 1, 6), ORDER))


def test_leak_matrix_is_zero_exactly_where_causality_demands_it():
    tokens = random_tokens(tiny(ARMD), 1, 6)
    blocks = ORDER.blocks_in_text_order
    may_move = blocks[:, None] < blocks[None, :]  # [changed, output]
    clean, leaky = (figures.leak_matrix(tiny(cls), tokens, ORDER) > 0 for cls in (ARMD, LeakyQuery))
    assert torch.equal(clean, may_move)
    assert (leaky & ~may_move).sum() == 10


def test_start_says_in_one_line_what_a_lesson_runs_on(capsys):
    lab.start("01", seed=3)
    line = capsys.readouterr().out
    assert re.fullmatch(
        r"Lesson 01, Masking is an order\narmdlab \S+, torch \S+, Python \S+, device \w+, seed 3\n", line
    )
    assert torch.initial_seed() == 3
    with pytest.raises(ValueError, match=r"^lesson='99' does not exist; choose one of 00, 01"):
        lab.start("99")


def test_start_names_the_device_of_lessons_whatever_else_is_there(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    lab.start("01")
    assert f"device {lab.load('tales').model.bos.device}, seed 0" in capsys.readouterr().out


def test_a_guess_is_answered_with_its_reason():
    assert repr(lab.predict("mask-alone", guess="a")).startswith("You said **a**; it is **b**: in a transformer")
    assert repr(lab.predict("mask-alone", guess="b")).startswith("You said **b**, and so it is: ")
    for guess in ("z", "", "ab", None):
        with pytest.raises(
            ValueError, match=rf"^guess={guess!r} is none of a, b, c; put your letter there, run it again"
        ):
            lab.predict("mask-alone", guess=guess)
    with pytest.raises(ValueError, match=r"^question='x' does not exist; choose one of made-together"):
        lab.predict("x", guess="a")


def test_source_is_shown_as_it_is():
    shown = lab.show_source(may_see)
    assert shown._repr_markdown_().startswith("`armdlab.masks.may_see`\n\n```python\ndef may_see(")
    assert "class GenerationOrder" in repr(lab.show_source(GenerationOrder))
    assert "def strided(" in repr(lab.show_source(GenerationOrder.strided))


def test_a_verdict_reaches_a_notebook_as_a_sentence_that_wraps_between_words():
    verdict = checks.Verdict(False, "you used < where M^c needs <=")
    assert repr(verdict) == "not yet: you used < where M^c needs <="
    assert verdict._repr_html_() == "<p>not yet: you used &lt; where M^c needs &lt;=</p>"


def test_finish_counts_what_passed_in_this_session():
    done, open_ = checks.Verdict(True, "all of it"), checks.Verdict(False, "not this")
    text = repr(lab.finish("01", one_thing=done, another=open_))
    assert text.startswith("**1 of 2 exercises passed in this session**")
    assert "- passed: one thing\n- still open: another" in text


def test_a_lesson_leads_to_the_next_one_and_the_last_to_the_extra():
    assert repr(lab.finish("00")).endswith("Next: lesson 01, Masking is an order.")
    assert repr(lab.finish("08")).endswith("Next: an extra, lesson x1, Tales whose truth is known.")
    assert repr(lab.finish("x1")).endswith("This is the last lesson.")
    with pytest.raises(ValueError, match=r"^lesson='99' must be one of 00, 01, 02, 03, 04, 05, 06, 07, 08, x1$"):
        lab.finish("99")


def test_labels_of_a_crowd_lie_apart_and_that_of_a_lone_dot_above_it_to_the_right():
    axes = Figure(figsize=(4, 4)).subplots()
    dots = [(0.1, 0.9), (0.5, 0.5), (0.51, 0.5), (0.5, 0.51), (0.52, 0.52)]
    figures.write_beside(axes, list("abcde"), dots, points=10)
    assert [label.get_text() for label in axes.texts] == list("abcde")
    assert [label.xy for label in axes.texts] == dots
    assert axes.texts[0].get_position() == pytest.approx((7, 7))
    places = axes.transData.transform(dots) / axes.figure.dpi * 72 + [label.get_position() for label in axes.texts]
    apart = torch.pdist(torch.tensor(places))
    assert apart.min() > 5  # above their dots to the right they would have lain 2 to 4 points apart
    alone = Figure(figsize=(4, 4)).subplots()
    figures.write_beside(alone, ["a"], [(0.1, 0.9)], points=10)
    assert alone.texts[0].get_position() == pytest.approx((7, 7))
