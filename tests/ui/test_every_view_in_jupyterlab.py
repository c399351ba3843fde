"""Laws that every view keeps, one page with all of them for each theme. A new view joins by a line in VIEWS."""

import pytest
from browsing import faults_of_access, holds, is_quiet, put_notebook, run_all, run_code, shot
from conftest import browsing_page

# name -> (what makes it, what a reader presses first)
VIEWS = {
    "order explorer": ("OrderExplorer()", ".kinds label:nth-child(3)"),
    "leak detector": ("LeakDetector()", ".kinds label:nth-child(3)"),
    "attention microscope": ("AttentionMicroscope()", ".kinds label:nth-child(3)"),
    "training cockpit": ("TrainingCockpit(Session.begin(RECIPE, 'run-all'), scores=3)", "button"),
    "acceptance view": ("AcceptanceView()", "form button"),
    "infilling desk": ("InfillingDesk()", ".asked button.main"),
    "stream viewer": ("StreamViewer()", "form button"),
    "race": ("Race()", "form button"),
}
GRIDS = {"order explorer": 2, "leak detector": 1, "attention microscope": 1}  # the others have none
IMPORTS = """from pathlib import Path
from armdlab.recipes import Recipe, Session
from armdlab.widgets.acceptance_view import AcceptanceView
from armdlab.widgets.attention_microscope import AttentionMicroscope
from armdlab.widgets.infilling_desk import InfillingDesk
from armdlab.widgets.leak_detector import LeakDetector
from armdlab.widgets.order_explorer import OrderExplorer
from armdlab.widgets.stream_viewer import Race, StreamViewer
from armdlab.widgets.training_cockpit import TrainingCockpit

Path("cats.txt").write_text("\\n\\n".join(f"The cat number {i} <script>sits</script> on the mat." for i in range(300)))
sizes = dict(length=32, n_layer=2, n_head=2, d_model=32, vocab_size=300, batch_size=4)
RECIPE = Recipe(corpus="file:cats.txt", steps=400, **sizes)
views = {}"""


PULLED = ["training cockpit", "stream viewer", "race", "acceptance view"]
# Runs are counted, and go one step in 40 ms: no machine is so fast that a run is over before Stop.
COUNTED = """import time
def counted(view):
    view.begun, begin, advance = 0, view.begin, view.advance
    def begin_and_count(asked):
        view.begun += 1
        return begin(asked)
    def step(seconds):
        time.sleep(0.04)
        return advance(0)
    view.begin, view.advance = begin_and_count, step
for name in PULLED: counted(views[name])"""

# The kernel answers on two threads, so that on a busy machine the second question may come first: here it always does.
OVERTAKEN = """viewer, late, overtaken = views["stream viewer"], [], 0
def second_first(_, content, buffers):
    global overtaken
    if content["want"] == "run":
        late.append(content)
        return
    viewer._asked(_, content, buffers)
    if late:
        overtaken += 1
        viewer._asked(_, late.pop(), buffers)
viewer._msg_callbacks.callbacks = [second_first]"""


@pytest.fixture(scope="module")
def shown(jupyterlab):
    """name -> view, all of them in one page that all tests of a theme share."""
    url, token, theme = jupyterlab
    cells = [f"views[{name!r}] = {call}\nviews[{name!r}]" for name, (call, _) in VIEWS.items()]
    put_notebook(url, token, "all.ipynb", [IMPORTS, *cells, COUNTED.replace("PULLED", repr(PULLED))])
    with browsing_page(
        viewport={"width": 1100, "height": 800 * len(VIEWS)}
    ) as page:  # what is out of sight is not there
        page.goto(f"{url}/lab/tree/all.ipynb?reset&token={token}")
        run_all(page)
        page.set_default_timeout(90_000)  # a busy machine is no fault of a view
        found = page.locator(".armdlab-view")
        found.nth(len(VIEWS) - 1).wait_for(timeout=60_000)
        page.wait_for_timeout(500)
        page.theme = theme
        yield {name: found.nth(number) for number, name in enumerate(VIEWS)}


def says(view, text):
    """Wait until the alert of a view says so."""
    alert = view.get_by_role("alert").element_handle()
    view.page.wait_for_function(
        "([alert, text]) => text ? alert.textContent.includes(text) : !alert.textContent", arg=[alert, text]
    )


def reaches(view, status):
    view.page.wait_for_function(
        "([view, status]) => view.dataset.status === status", arg=[view.element_handle(), status]
    )


@pytest.mark.parametrize("name", VIEWS)
def test_it_has_life_and_its_theme_before_anything_is_computed(shown, name):
    view = shown[name]
    assert view.get_attribute("data-theme") == view.page.theme
    assert len(view.inner_text()) > 100
    assert view.evaluate("view => view.scrollWidth <= view.clientWidth")
    for word in ("undefined", "NaN", "[object"):
        assert word not in view.inner_text()
    shot(view.page, view, f"opened-{name.replace(' ', '-')}", view.page.theme)


def test_axe_finds_no_serious_fault_in_any_view(shown):
    page = next(iter(shown.values())).page
    assert faults_of_access(page) == []


@pytest.mark.parametrize("name", VIEWS)
def test_every_grid_is_one_stop_whose_cells_speak(shown, name):
    grids = shown[name].get_by_role("grid").all()
    assert len(grids) == GRIDS.get(name, 0)
    for grid in grids:
        assert grid.locator("[tabindex='0']").count() == 1
        labels = grid.get_by_role("gridcell").evaluate_all(
            "cells => cells.map(cell => cell.getAttribute('aria-label'))"
        )
        assert labels
        assert all(label and len(label) > 10 for label in labels)


def test_the_acceptance_view_tells_what_a_call_drew_itself(shown):
    view = shown["acceptance view"]
    said, cells = view.locator(".said"), view.locator(".draft:visible")
    view.get_by_role("slider").fill("0")
    assert said.inner_text().startswith("Call 1 has no drafts to judge: it draws “")
    assert cells.evaluate_all("cells => cells.map(cell => cell.dataset.fate)") == ["more"]
    for _ in range(40):
        view.get_by_role("button", name="Next").click()
        if cells.last.get_attribute("data-fate") == "more":
            break
    assert cells.evaluate_all("cells => cells.map(cell => cell.dataset.fate)") == [*["kept"] * 3, "more"]
    assert "judges 3 drafts: 3 kept, none refused, and one more drawn: “" in said.inner_text()
    assert view.locator(".token.new").count() == 4
    assert cells.last.locator(".measure:visible").count() == 0
    shot(view.page, view, "acceptance-view-one-more", view.page.theme)


@pytest.mark.parametrize("name", VIEWS)
def test_tab_walks_through_the_whole_view_and_out_of_it_and_shows_where_it_is(shown, name):
    view = shown[name]
    page = view.page
    view.evaluate("view => view.querySelector('button, input, select').focus()")
    for stops in range(40):
        where = view.evaluate(
            "view => { const at = document.activeElement; if (!view.contains(at)) return null;"
            " const ring = (e) => getComputedStyle(e).outlineStyle !== 'none';"
            " const near = at.nextElementSibling;"
            " return [ring(at) || (near !== null && ring(near)), at.outerHTML.slice(0, 120)]; }"
        )
        if where is None:
            break
        assert where[0] or stops == 0, f"the focus is not seen on {where[1]}"  # the first got it by script
        page.keyboard.press("Tab")
    assert 2 <= stops < 30


@pytest.mark.parametrize("name", VIEWS)
def test_whatever_goes_wrong_is_a_sentence_and_the_next_click_works(shown, name):
    view, press = shown[name], VIEWS[name][1]
    page = view.page
    broken = "def broken(content):\n    raise RuntimeError('the moon is <b>full</b>; wait a day')"
    assert run_code(page, f"{broken}\nviews[{name!r}].answer = broken") is None
    view.locator(press).first.click()
    says(view, "the moon is <b>full</b>; wait a day")
    assert view.get_by_role("alert").locator("*").count() == 0
    assert run_code(page, f"assert 'RuntimeError' in views[{name!r}].last_error; del views[{name!r}].answer") is None
    other = press.replace("nth-child(3)", "nth-child(6)")
    view.locator(other).first.click()
    says(view, "")
    if name in PULLED:
        page.wait_for_timeout(300)
        view.get_by_role("button", name="Stop").dispatch_event("click")
        page.wait_for_function(
            "view => ['stopped', 'finished'].includes(view.dataset.status)", arg=view.element_handle()
        )  # a short run may have been faster


def test_steps_that_are_asked_for_before_the_kernel_has_taken_the_run_do_not_end_it(shown):
    view = shown["stream viewer"]
    assert run_code(view.page, OVERTAKEN) is None
    view.get_by_role("button", name="Write").click()
    reaches(view, "finished")
    assert run_code(view.page, "assert overtaken == 1; viewer._msg_callbacks.callbacks = [viewer._asked]") is None


@pytest.mark.parametrize("name", PULLED)
def test_a_second_click_starts_no_second_run_and_stop_holds_it(shown, name):
    view, press = shown[name], VIEWS[name][1]
    page = view.page
    assert run_code(page, f"views[{name!r}].begun = 0") is None
    words = {"race": ".facts", "acceptance view": ".facts"}.get(name, "[data-fact='step']")
    if name == "stream viewer":  # as many steps as there are
        view.locator("select").first.select_option("left to right")
    before = view.locator(words).all_inner_texts()
    view.locator(press).first.focus()
    page.keyboard.press("Enter")
    if name != "training cockpit":  # whose button says Pause now
        page.keyboard.press("Enter")
        view.locator(press).first.dispatch_event("click")
    page.wait_for_function(
        "([view, words, before]) => [...view.querySelectorAll(words)].map(e => e.innerText).join() !== before.join()",
        arg=[view.element_handle(), words, before],
    )
    if name == "training cockpit":
        view.get_by_role("button", name="Stop").click()
    else:
        page.keyboard.press("s")  # the focus has stayed in the view
    reaches(view, "stopped")
    held = view.locator(words).all_inner_texts()
    page.wait_for_timeout(400)
    if name != "training cockpit":
        assert view.locator(words).all_inner_texts() == held
    else:
        number = view.locator(words)
        claim = "assert views['training cockpit'].session.training.step == {}"
        assert holds(page, lambda: claim.format(number.inner_text().split()[0])) is None
    if name == "stream viewer":
        steps = int(view.locator(words).inner_text().split(" of ")[1])
        assert holds(page, lambda: f"assert len(views[{name!r}].trace['steps']) == {steps}") is None
    assert run_code(page, f"assert views[{name!r}].begun == 1, views[{name!r}].begun") is None


def test_axe_finds_no_serious_fault_after_all_that_and_no_script_ran(shown):
    page = next(iter(shown.values())).page
    for name in VIEWS:
        shot(page, shown[name], f"used-{name.replace(' ', '-')}", page.theme)
    assert faults_of_access(page) == []
    is_quiet(page)
