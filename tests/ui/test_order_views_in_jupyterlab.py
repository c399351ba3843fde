"""Laws of explorer, leak detector and microscope in a browser: every control, by mouse and by keyboard."""

import re

import pytest
import torch
from browsing import HOSTILE, becomes, is_quiet, opened, put_notebook, run_all, shot

from armdlab import GenerationOrder, load
from armdlab.attention_maps import attention_maps
from armdlab.masks import causal_mask, strictly_causal_mask
from armdlab.widgets.leak_detector import LeakDetector
from armdlab.widgets.order_picker import painted_order

TEXT = "the cat sat on the mat"
EXPLORER = f"""from armdlab.widgets.order_explorer import OrderExplorer
OrderExplorer({TEXT!r})"""
DETECTOR = f"""from armdlab.widgets.leak_detector import LeakDetector
LeakDetector({TEXT!r})"""
SAID = "A cheerful boy called Theo was counting on"
MICROSCOPE = f"""from armdlab import GenerationOrder
from armdlab.widgets.attention_microscope import AttentionMicroscope
AttentionMicroscope(text={SAID!r}, order=GenerationOrder.strided(8, 2))"""


def until(page, view, text, inside=".summary"):
    """Wait until the view says so."""
    page.wait_for_function(
        "([css, text]) => document.querySelector(`.armdlab-view ${css}`).textContent.includes(text)",
        arg=[inside, text],
        timeout=20_000,
    )
    page.wait_for_timeout(50)


def pick(view, kind):
    """Choose as a mouse does: the button that is seen."""
    view.locator(".kinds label", has=view.page.get_by_role("radio", name=kind, exact=True)).click()


def ranks(view):
    """position -> rank, as the ribbon shows them."""
    tokens = view.locator(".ribbon .token")
    return [
        int(rank)
        for _, rank in sorted(
            (int(token.get_attribute("data-position")), token.locator(".rank").inner_text()) for token in tokens.all()
        )
    ]


def shown_masks(view, order):
    """Compare every cell of both grids, and its words, with the package's masks."""
    grids = view.get_by_role("grid")
    by_generation = view.get_by_role("radio", name="generation order").is_checked()
    places = order.positions.tolist() if by_generation else list(range(order.length))
    blocks = order.blocks_in_text_order.tolist()
    for grid, mask in ((0, causal_mask), (1, strictly_causal_mask)):
        allowed = mask(order, in_text_order=True)
        labels = (
            grids.nth(grid)
            .get_by_role("gridcell")
            .evaluate_all(
                "cells => cells.map(cell => [cell.getAttribute('aria-label'), cell.classList.contains('may')])"
            )
        )
        assert len(labels) == order.length**2
        for at, (label, may) in enumerate(labels):
            n, i = places[at // order.length], places[at % order.length]
            assert may == bool(allowed[n, i])
            whom = "itself" if n == i else f"position {i} "
            assert re.match(rf"position {n} .* may {'' if may else 'not '}see {whom}", label)
            why = ["made earlier", "made together", "made later"][1 + (blocks[i] > blocks[n]) - (blocks[i] < blocks[n])]
            assert n == i or why in label


def test_every_control_of_the_explorer_by_mouse(page, jupyterlab):
    view = opened(page, jupyterlab, "explorer", EXPLORER)
    shown_masks(view, GenerationOrder.left_to_right(6))
    pick(view, "strided")
    until(page, view, "4 steps")
    shown_masks(view, GenerationOrder.strided(6, 2))
    view.get_by_role("spinbutton", name="streams S").fill("4")
    until(page, view, "streams=4 does not divide length=6; try 3 or 6", ".alert")
    assert (
        view.get_by_role("spinbutton", name="streams S").input_value() == "4"
    )  # a mistake stays to be mended, nothing is clipped
    view.get_by_role("spinbutton", name="streams S").fill("3")
    until(page, view, "up to 3")
    shown_masks(view, GenerationOrder.strided(6, 3))
    assert view.get_by_role("alert").inner_text() == ""

    pick(view, "blockwise")
    until(page, view, "3 steps")
    pick(view, "generation order")
    page.wait_for_timeout(100)
    assert page.evaluate("document.getAnimations().every(a => a.effect.getTiming().duration <= 400)")
    pick(view, "shuffled")
    until(page, view, "6 steps")
    view.get_by_role("slider").fill("0")
    becomes(page, lambda: ranks(view), list(range(6)))
    view.get_by_role("slider").fill("6")
    becomes(page, lambda: ranks(view) != list(range(6)), True)
    assert sorted(ranks(view)) == list(range(6))
    drawn = ranks(view)
    pick(view, "random")
    view.get_by_role("button", name="Draw again").click()
    becomes(page, lambda: ranks(view) != drawn, True)
    assert sorted(ranks(view)) == list(range(6))
    pick(view, "masking")
    until(page, view, "steps")
    view.get_by_role("slider", name="masking steps T").fill("1")
    until(page, view, "6 tokens in 1 step, up to 6 made together")
    assert view.get_by_role("slider").get_attribute("min") == "1"

    pick(view, "text order")
    pick(view, "painted")
    until(page, view, "6 steps")
    tokens = view.locator(".ribbon .token")
    tokens.nth(5).click()
    tokens.nth(1).click()
    tokens.nth(0).click(modifiers=["Shift"])
    until(page, view, "5 steps")
    assert ranks(view) == painted_order(6, [[5], [1, 0]]).ranks.tolist()
    shown_masks(view, painted_order(6, [[5], [1, 0]]))
    view.get_by_role("button", name="Next click joins the last step").click()
    tokens.nth(3).click()
    until(page, view, "up to 3")
    tokens.nth(1).click()  # takes it back
    until(page, view, "5 steps")
    assert ranks(view) == painted_order(6, [[5], [0, 3]]).ranks.tolist()
    cell = view.get_by_role("grid").nth(1).get_by_role("gridcell").nth(1 * 6 + 5)
    cell.hover()
    said = view.locator(".said").inner_text()
    assert said == (
        "position 1 “\u2068cat\u2069” may see position 5 “\u2068mat\u2069”: made earlier (block 2 looks at block 0)."
    )
    shot(page, view, "explorer", jupyterlab[2])
    view.get_by_role("button", name="Start again").click()
    until(page, view, "6 steps")
    assert ranks(view) == list(range(6))
    is_quiet(page)


def test_every_control_of_the_explorer_by_keyboard(page, jupyterlab):
    page.emulate_media(reduced_motion="reduce")
    view = opened(page, jupyterlab, "explorer-keys", EXPLORER)
    press = page.keyboard.press
    view.get_by_label("Text", exact=True).focus()
    press("End")
    page.keyboard.type(" and sang")
    until(page, view, "8 tokens")
    press("Tab")  # the kinds are one stop, their arrows choose
    press("ArrowRight")
    press("ArrowRight")
    until(page, view, "8 tokens in 5 steps")  # strided, S = 2
    assert page.evaluate("document.getAnimations().length") == 0  # who asked for less motion gets none
    press("Tab")
    press("ArrowUp")
    until(page, view, "streams=3 does not divide length=8; try 2 or 4", ".alert")
    press("ArrowUp")
    until(page, view, "up to 4")
    press("Tab")
    press("ArrowRight")
    assert view.get_by_role("radio", name="generation order").is_checked()
    press("ArrowLeft")
    press("Tab")  # the ribbon is one stop
    press("ArrowRight")
    press("ArrowRight")
    press("Enter")  # paints position 2
    until(page, view, "8 steps")
    press("End")
    press("Shift+Enter")  # position 7 joins
    until(page, view, "7 steps")
    assert ranks(view) == painted_order(8, [[2, 7]]).ranks.tolist()
    press("Home")
    press(" ")
    becomes(page, lambda: ranks(view), painted_order(8, [[2, 7], [0]]).ranks.tolist())
    until(page, view, "7 steps")
    press("Tab")  # M^c is one stop
    for key in ("ArrowDown", "ArrowDown", "ArrowRight"):
        press(key)
    focused = "document.activeElement.getAttribute('aria-label')"
    assert page.evaluate(focused).startswith(
        "position 2 “\u2068sat\u2069” may not see position 1 “\u2068cat\u2069”: made later"
    )
    assert view.locator(".said").inner_text().startswith("position 2 “\u2068sat\u2069” may not see position 1")
    press("End")
    assert "may see position 7" in page.evaluate(focused)
    press("Tab")
    press("PageDown")
    assert page.evaluate(focused).startswith("position 7")
    assert view.locator("[role=gridcell][tabindex='0']").count() == 2  # one in each grid
    press("Shift+Tab")
    assert "may see position 7" in page.evaluate(focused)  # where it was left
    is_quiet(page)


@pytest.mark.parametrize("which", ["explorer", "detector", "microscope"])
def test_hostile_text_is_shown_as_text(page, jupyterlab, which):
    view = opened(
        page,
        jupyterlab,
        f"hostile-{which}",
        {"explorer": EXPLORER, "detector": DETECTOR, "microscope": MICROSCOPE}[which],
    )
    box, words, alert = view.get_by_label("Text", exact=True), view.locator(".ribbon .word"), view.get_by_role("alert")
    encode = load("tales").tokenizer.encode
    pick(view, "left to right")
    for text in HOSTILE:
        box.fill(text)
        held = text.split() if which != "microscope" else encode(text)  # tokens are pieces of words there
        if len(held) > 32:
            until(page, view, f"the text has {len(held):,} tokens and the picture holds 32", ".alert")
        elif which != "microscope":
            becomes(page, words.all_inner_texts, held)
        else:
            becomes(page, words.count, len(held))
        becomes(page, lambda: alert.inner_text() == "", len(held) <= 32)
        assert view.locator("script, img").count() == 0
        assert view.evaluate("view => view.scrollWidth <= view.clientWidth")  # it keeps to its frame
    shot(page, view, f"hostile-{which}", jupyterlab[2])
    box.fill("a " * 5000)
    until(page, view, "the text has 5,000 ", ".alert")
    box.fill("one two three four")
    becomes(page, alert.inner_text, "")
    assert words.count() == (4 if which != "microscope" else len(encode("one two three four")))
    is_quiet(page)


def test_a_view_whose_kernel_is_gone_says_so(page, jupyterlab):
    view = opened(page, jupyterlab, "gone", EXPLORER)
    page.evaluate("window.jupyterapp.shell.currentWidget.sessionContext.restartKernel().then(() => 1)")
    pick(view, "strided")
    until(page, view, "No answer from the kernel yet. If it was restarted, run the cell again.", ".alert")
    assert ranks(view) == list(range(6))  # what it showed stays
    page.wait_for_function("window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.status === 'idle'")
    run_all(page)
    page.wait_for_function("document.querySelector('.armdlab-view .alert').textContent === ''")
    pick(view, "strided")
    until(page, view, "4 steps")


def test_two_views_of_one_explorer_show_the_same(page, jupyterlab):
    url, token, _ = jupyterlab
    put_notebook(url, token, "twice.ipynb", [EXPLORER.replace("OrderExplorer(", "e = OrderExplorer(") + "\ne", "e"])
    page.goto(f"{url}/lab/tree/twice.ipynb?reset&token={token}")
    run_all(page)
    views = page.locator(".armdlab-view")
    views.nth(1).wait_for(timeout=60_000)
    pick(views.nth(0), "strided")
    for number in (0, 1):
        becomes(page, lambda n=number: ranks(views.nth(n)), GenerationOrder.strided(6, 2).ranks.tolist())
    becomes(page, views.nth(1).get_by_role("radio", name="strided").is_checked, True)
    pick(views.nth(1), "blockwise")
    until(page, views.nth(0), "3 steps")
    is_quiet(page)


def test_the_detector_shows_which_model_leaks_by_mouse_and_by_keyboard(page, jupyterlab):
    view = opened(page, jupyterlab, "detector", DETECTOR)
    found = view.locator(".found")
    assert found.all_inner_texts()[0] == "The 1 output that must stay at exactly 0 does."
    assert all(text.startswith("Leak: 1 of the 1 outputs") for text in found.all_inner_texts()[1:])
    pick(view, "blockwise")
    until(page, view, "The 2 outputs that must stay", ".found")
    assert view.locator(".cell.leak").count() == 4
    assert view.locator(".cell.must").count() == 2
    view.get_by_role("columnheader").nth(2).click()
    until(page, view, "change position 2", ".change")
    expected = LeakDetector(TEXT, GenerationOrder.blockwise(6, 2))
    expected._asked(None, {"changed": 2, "into": "fox"}, [])
    assert [text.split(" moved")[0] for text in found.all_inner_texts()] == [
        of["verdict"].split(" moved")[0] for of in expected.state["models"]
    ]
    view.get_by_role("gridcell").nth(0).hover()
    assert re.match(
        "ARMD: the output at position 0 .* does not move at all; as it must not", view.locator(".said").inner_text()
    )
    pick(view, "generation order")
    shot(page, view, "detector", jupyterlab[2])

    box = view.get_by_label("the word that takes its place")
    box.fill("sat")
    until(page, view, "is what stands there already; change it into another word", ".alert")
    box.fill("owl")
    until(page, view, "becomes “\u2068owl\u2069”", ".said")
    assert view.get_by_role("alert").inner_text() == ""

    page.keyboard.press("Tab")  # the heat map is one stop
    page.keyboard.press("End")
    page.keyboard.press("Enter")
    until(page, view, "change position 5", ".change")
    assert "No model reads the word that is made last" in view.locator(".aside").inner_text()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press(" ")
    until(page, view, "change position 4", ".change")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    assert re.match("LeakyQuery: .* moves by .*; a leak", view.locator(".said").inner_text())
    assert view.locator(".heat [tabindex='0']").count() == 1
    pick(view, "left to right")
    until(page, view, "6 steps")
    view.get_by_role("columnheader").nth(5).click()
    until(page, view, "No model reads the word that is made last", ".aside")
    is_quiet(page)


def test_the_microscope_shows_what_is_read_by_mouse_and_by_keyboard(page, jupyterlab):
    view = opened(page, jupyterlab, "microscope", MICROSCOPE)
    lab, order = load("tales"), GenerationOrder.strided(8, 2)
    maps = attention_maps(lab.model, torch.tensor([lab.tokenizer.encode(SAID)]), order)

    def shares(layer, head, target):
        """Words of the cells of one head, as they should be."""
        row, ranks_ = int(order.ranks[target]), order.ranks.tolist()
        weights = maps[layer].weights.mean(0) if head == 0 else maps[layer].weights[head - 1]
        return [
            float(weights[row, rank])
            for rank in ([0] if maps[layer].reads == "X" else [])
            + [rank + (maps[layer].reads == "X") for rank in ranks_ if rank + (maps[layer].reads == "X") < 8]
        ]

    def read(head):
        """What the cells of one head say, forbidden ones left out: percentages."""
        labels = (
            view.get_by_role("row")
            .nth(head + 1)
            .get_by_role("gridcell")
            .evaluate_all("cells => cells.map(cell => cell.getAttribute('aria-label'))")
        )
        return [float(re.search(r"gives ([\d.]+) %", label)[1]) for label in labels if "gives" in label]

    def agree(layer, head, target):
        wanted = [100 * share for share in shares(layer, head, target) if share > 0]
        assert read(head) == pytest.approx(wanted, abs=0.51)

    agree(0, 0, 7)  # the target that is made last, the mean of the first layer
    agree(0, 3, 7)
    view.get_by_label("previous step").click()
    until(page, view, "Step 4 of 5 makes position 2", ".said")
    agree(0, 0, 2)
    pick(view, "5 G")
    agree(4, 2, 2)
    pick(view, "head 2") if view.get_by_role("radio", name="head 2").count() else pick(view, "2")
    assert "With head 2 it reads most" in view.locator(".said").inner_text()
    view.get_by_role("columnheader").nth(7 + 1).click()  # position 6, beside the corner and BOS
    until(page, view, "Step 4 of 5", ".said")
    agree(4, 1, 6)
    view.get_by_role("row").nth(1).get_by_role("gridcell").nth(0).hover()
    assert "cannot read BOS: it has no row in G" in view.locator(".said").inner_text()
    pick(view, "generation order")
    shot(page, view, "microscope", jupyterlab[2])
    pick(view, "text order")

    view.get_by_role("slider").focus()
    page.keyboard.press("Home")
    until(page, view, "Step 1 of 5 makes position 0", ".said")
    agree(4, 0, 0)
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # next step
    until(page, view, "Step 2 of 5 makes position 4", ".said")
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")  # the last layer
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")  # head 3
    assert "With head 3" in view.locator(".said").inner_text()
    page.keyboard.press("Tab")
    page.keyboard.press("End")
    page.keyboard.press("Enter")  # the last word is the target
    until(page, view, "Step 5 of 5", ".said")
    agree(5, 3, 7)
    page.keyboard.press("ArrowDown")
    assert "layer 6, mean of the heads" in view.locator(".said").inner_text()
    pick(view, "strided")
    view.get_by_role("spinbutton", name="streams S").fill("3")
    until(page, view, "streams=3 does not divide length=8; try 2 or 4", ".alert")
    is_quiet(page)
