"""Laws of the training cockpit in a browser: it plays, pauses, stops and saves, goes on, and survives a mistake."""

import json
import urllib.request

from browsing import SHOTS, put_notebook, run_all

CELL = """from pathlib import Path
from armdlab.recipes import Recipe, Session
from armdlab.widgets.training_cockpit import TrainingCockpit

Path("cats.txt").write_text("\\n\\n".join(f"The cat number {i} <script>sits</script> on the mat." for i in range(300)))
sizes = dict(length=32, n_layer=2, n_head=2, d_model=32, vocab_size=300, batch_size=4)
recipe = Recipe(corpus="file:cats.txt", steps=400, **sizes)
cockpit = TrainingCockpit(Session.begin(recipe, "run-" + THEME), scores=15)
cockpit"""


def test_a_person_can_watch_pause_stop_and_go_on(page, jupyterlab):
    url, token, theme = jupyterlab
    put_notebook(url, token, "cockpit.ipynb", [f"THEME = {theme!r}\n{CELL}"])
    page.goto(f"{url}/lab/tree/cockpit.ipynb?reset&token={token}")
    run_all(page)
    cockpit = page.locator(".armdlab-cockpit")
    cockpit.wait_for(timeout=60_000)
    assert cockpit.get_attribute("data-theme") == theme

    def fact(name):
        return cockpit.locator(f"[data-fact='{name}']").inner_text()

    def step():
        return int(fact("step").split()[0])

    assert step() == 0
    cockpit.get_by_role("button", name="Play").focus()
    page.keyboard.press("Enter")  # by keyboard, as by mouse
    page.wait_for_function("parseInt(document.querySelector(\"[data-fact='step']\").textContent) > 0", timeout=60_000)
    cockpit.get_by_role("button", name="Pause").click()
    paused = 0
    while paused != step():  # what was asked for before the click still comes, on a busy machine late
        paused = step()
        page.wait_for_timeout(3000)
    assert 0 < paused < 400
    assert "nats a token" in fact("loss")
    assert fact("order")
    assert cockpit.locator("script").count() == 0  # what it writes is shown as text

    cockpit.get_by_role("button", name="Go on").click()
    page.wait_for_function(
        "paused => parseInt(document.querySelector(\"[data-fact='step']\").textContent) > paused", arg=paused
    )
    cockpit.get_by_role("button", name="Stop and save").click()
    page.wait_for_function("document.querySelector('.armdlab-cockpit').dataset.status === 'stopped'", timeout=20_000)
    stopped = step()
    saved = json.loads(
        urllib.request.urlopen(f"{url}/files/run-{theme}/training.json?token={token}", timeout=10).read()
    )
    assert saved["step"] == stopped
    SHOTS.mkdir(exist_ok=True)
    cockpit.screenshot(path=SHOTS / f"cockpit-{theme}.png")

    page.set_viewport_size({"width": 700, "height": 900})
    page.wait_for_function(
        "() => { const svg = document.querySelector('.armdlab-cockpit svg');"
        " return Math.abs(svg.viewBox.baseVal.width - svg.getBoundingClientRect().width) < 2; }"
    )  # letters keep their size at any width
    cockpit.screenshot(path=SHOTS / f"cockpit-narrow-{theme}.png")

    cockpit.get_by_role("button", name="Go on").click()
    page.wait_for_function("document.querySelector('.armdlab-cockpit').dataset.status === 'finished'", timeout=60_000)
    assert step() == 400
    assert cockpit.get_by_role("button", name="Finished").is_disabled()
    assert page.faults == []
    assert page.outside == []


def test_a_cell_that_trains_is_followed_to_its_last_step(page, jupyterlab):
    url, token, theme = jupyterlab
    put_notebook(url, token, "cell.ipynb", [f"THEME = {theme!r} + '-cell'\n{CELL}", "cockpit.run_now(); None"])
    page.goto(f"{url}/lab/tree/cell.ipynb?reset&token={token}")
    run_all(page)
    step = page.locator(".armdlab-cockpit [data-fact='step']")
    step.wait_for(timeout=60_000)
    page.wait_for_function("document.querySelector('.armdlab-cockpit').dataset.status === 'finished'", timeout=60_000)
    page.wait_for_timeout(500)
    assert step.inner_text() == "400 of 400"
    assert page.locator(".armdlab-cockpit circle").count() >= 15
    assert page.faults == []
