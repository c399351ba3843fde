"""Laws of the infilling desk in a browser: gaps by mouse and by keyboard, runs that stop, text that stays text."""

from test_order_views_in_jupyterlab import HOSTILE, is_quiet, opened, shot

MADE = """from armdlab.widgets.infilling_desk import InfillingDesk
desk = InfillingDesk()"""
DESK = f"{MADE}\ndesk"
TEXT = "A brave goose named Gus had a small yellow rug."
# One token for each question, and no haste: no machine is so fast that a run is over before Stop.
SLOW = f"""import time
{MADE}
def slowly(content, answer=desk.answer):
    time.sleep(0.04)
    return answer(content | {{"budget_ms": 0}})
desk.answer = slowly
desk"""
SHORT = f"""from armdlab.widgets.infilling_desk import InfillingDesk
desk = InfillingDesk({TEXT!r}, ["yellow"])
desk"""


def desk_of(page, jupyterlab, cell):
    """The desk in a notebook; waiting is long, for the first change loads a model."""
    view = opened(page, jupyterlab, "desk", cell)
    page.set_default_timeout(60_000)
    return view


def until(page, status):
    page.wait_for_selector(f'.armdlab-view[data-status="{status}"]')


def until_gaps(page, gaps):
    """Wait until the kernel has said which words are left out."""
    page.wait_for_function(
        "gaps => JSON.stringify([...document.querySelectorAll('.own option')].map(o => o.textContent)) === gaps",
        arg=str(gaps).replace("'", '"').replace(", ", ","),
        timeout=60_000,
    )


def word(view, name):
    return view.get_by_role("button", name=name, exact=True).first


def rows(view):
    return view.locator("tbody tr")


def test_a_recorded_example_is_there_at_once_and_the_mouse_does_everything(page, jupyterlab):
    page.set_viewport_size({"width": 1100, "height": 1900})
    view = desk_of(page, jupyterlab, DESK)
    n = rows(view).count()
    assert n >= 4, "recorded candidates are there before anything is computed"
    assert view.locator(".cell").count() == 5
    shot(page, view, "desk-recorded", jupyterlab[2])

    view.get_by_role("button", name="Fill the gaps").click()
    until(page, "finished")
    assert rows(view).count() in (n, n + 1), "older candidates stay"
    page.wait_for_timeout(6500)
    assert view.get_by_role("alert").inner_text() == "", "a run that has ended waits for nothing"
    view.get_by_role("spinbutton", name="seed").fill("77")
    view.get_by_role("spinbutton", name="temperature").fill("3")
    view.get_by_role("combobox", name="order").select_option("surest first")
    view.get_by_role("button", name="Fill the gaps").click()
    until(page, "finished")
    assert view.get_by_role("spinbutton", name="seed").input_value() == "78", "the next click fills anew"
    assert view.locator("tr.chosen").inner_text().count("seed 77; surest first, temperature 3") == 1

    view.locator(".cell").nth(1).hover()
    said = view.locator(".said").inner_text()
    assert "filled at step" in said
    assert "tokens that are kept" in said
    assert "The likeliest there" in said
    shot(page, view, "desk", jupyterlab[2])

    mine, chosen = view.get_by_role("textbox", name="write"), view.locator("tr.chosen").inner_text()
    mine.fill("far too many words for a gap")
    view.get_by_role("button", name="Weigh my words").click()
    until(page, "failed")
    assert mine.input_value() == "far too many words for a gap", "what was refused can be mended"
    assert view.locator("tr.chosen").inner_text() == chosen

    rows(view).last.get_by_role("radio").click()
    assert view.locator("tr.chosen").count() == 1
    before = view.locator("td.compared").all_inner_texts()
    view.get_by_role("combobox", name="compared under").select_option("gaps, right to left")
    page.wait_for_function(
        "before => JSON.stringify([...document.querySelectorAll('td.compared')].map(c => c.textContent)) !== before",
        arg=str(before).replace("'", '"').replace(", ", ","),
    )
    word(view, "flood").click()
    page.wait_for_function("() => document.querySelectorAll('tbody tr').length === 0")
    assert "Nothing is listed for these gaps yet" in view.locator(".bench").inner_text()
    view.get_by_role("button", name="Keep every word").click()
    page.wait_for_function("() => document.querySelectorAll('.word[aria-pressed=true]').length === 0")
    view.get_by_role("button", name="Fill the gaps").click()
    page.wait_for_function("() => document.querySelector('[role=alert]').textContent.startsWith('no word is left out')")
    view.get_by_role("button", name="Another tale").click()
    page.wait_for_function("() => !document.querySelector('.words').textContent.startsWith('A brave goose')")
    is_quiet(page)


def test_the_keyboard_does_everything(page, jupyterlab):
    view = desk_of(page, jupyterlab, SHORT)
    word(view, "yellow").focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.textContent") == "rug"
    page.keyboard.press(" ")
    until_gaps(page, ["1: yellow rug"])
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    until_gaps(page, ["1: brave", "2: yellow rug"])
    page.keyboard.press("Enter")
    until_gaps(page, ["1: yellow rug"])

    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.tagName") == "SELECT"
    page.keyboard.press("ArrowDown")
    assert view.get_by_role("combobox", name="order").input_value() == "right to left"
    view.get_by_role("button", name="Fill the gaps").focus()
    page.keyboard.press("Enter")
    until(page, "finished")
    assert rows(view).count() == 2

    view.locator(".cell").first.focus()
    page.keyboard.press("ArrowRight")
    assert "at position 9: filled at step 1 of 2" in view.locator(".said").inner_text()
    assert view.locator(".cell.saw").count() == 0
    page.keyboard.press("ArrowLeft")
    assert "at position 8: filled at step 2 of 2" in view.locator(".said").inner_text()
    assert view.locator(".cell.saw").count() == 1, "what it saw lights up"

    view.get_by_role("textbox", name="write").fill("golden cup")
    page.keyboard.press("Enter")
    until(page, "finished")
    page.wait_for_function("() => document.querySelector('tbody').textContent.includes('golden cup')")
    view.get_by_role("textbox", name="write").fill("cup")
    page.keyboard.press("Enter")
    until(page, "failed")
    assert "1 token to this model, and the gap holds 2" in view.get_by_role("alert").inner_text()
    view.locator("tr.chosen").get_by_role("radio").focus()
    chosen = view.locator("tr.chosen").inner_text()
    page.keyboard.press("ArrowDown")
    assert view.locator("tr.chosen").inner_text() != chosen
    view.get_by_role("radio").nth(2).check()
    words = view.locator("tr.chosen bdi").inner_text()
    view.get_by_role("button", name="Make it the text").focus()
    page.keyboard.press("Enter")
    page.wait_for_function("words => document.querySelector('textarea').value.includes(words)", arg=words)
    assert view.locator(".word[aria-pressed=true]").count() == 0
    is_quiet(page)


def test_a_press_that_is_drawn_over_words_leaves_them_all_out(page, jupyterlab):
    view = desk_of(page, jupyterlab, SHORT)
    start, end = word(view, "brave").bounding_box(), word(view, "Gus").bounding_box()
    page.mouse.move(start["x"] + 5, start["y"] + 8)
    page.mouse.down()
    page.mouse.move(end["x"] + 5, end["y"] + 8, steps=25)
    page.mouse.up()
    until_gaps(page, ["1: brave goose named Gus", "2: yellow"])
    is_quiet(page)


def test_stop_stops_in_mid_run_and_a_second_click_starts_nothing(page, jupyterlab):
    view = desk_of(page, jupyterlab, SLOW)
    for name in (
        "brave",
        "goose",
        "named",
        "had",
        "small",
        "gave",
        "it",
        "was",
        "kept",
        "and",
        "three",
        "days",
        "went",
    ):
        word(view, name).click()
    page.wait_for_function("() => document.querySelectorAll('tbody tr').length === 0")
    page.wait_for_timeout(1500)  # the first change loads the model
    view.get_by_role("combobox", name="order").select_option("surest first")
    view.get_by_role("button", name="Fill the gaps").dblclick()
    page.wait_for_function("() => document.querySelectorAll('.cell.loose').length > 0")
    view.get_by_role("button", name="Stop").click()
    until(page, "stopped")
    made = view.locator(".cell.loose").count()
    assert 0 < made < 18
    page.wait_for_timeout(700)
    assert view.locator(".cell.loose").count() == made
    assert rows(view).count() == 0, "what was not finished is not listed"
    assert "stopped after" in view.locator("output").inner_text()
    view.get_by_role("button", name="Fill the gaps").click()
    until(page, "finished")
    assert rows(view).count() == 2
    is_quiet(page)


def test_hostile_text_is_text_or_a_sentence(page, jupyterlab):
    view = desk_of(page, jupyterlab, SHORT)
    view.get_by_text("Edit or replace the text").click()
    for text in HOSTILE:
        view.locator("textarea").fill(text)
        if len(text) > 1000:
            page.wait_for_function("() => document.querySelector('[role=alert]').textContent.includes('shorten it')")
            text = TEXT
            view.locator("textarea").fill(text)
        page.wait_for_function("text => document.querySelector('.words').textContent === text", arg=text)
        assert rows(view).count() == 0
        view.locator(".word").first.click()
        page.wait_for_function("() => document.querySelectorAll('.own option').length === 1")
        view.get_by_role("button", name="Fill the gaps").click()
        page.wait_for_function("() => document.querySelectorAll('tbody tr').length > 0")
        view.locator("tr", has_text="the text's own").get_by_role("radio").check()
        assert view.locator(".filled").evaluate("page => page.textContent") == text
    is_quiet(page)
