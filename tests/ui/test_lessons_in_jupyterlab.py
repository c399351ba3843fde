"""Laws of lessons in a browser: they open, run, show their pictures with words, and stay on this machine.

On the light page every lesson is run; on the dark one it is looked at as it is stored, which is how a reader finds it.
"""

from pathlib import Path

import pytest
from browsing import SHOTS, STATUS

LESSONS = sorted(path.name for path in (Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
SECONDS = {"04": 480, "08": 480}  # they train a model, or measure many; the others run within two minutes
SCROLLED = "document.querySelector('.jp-WindowedPanel-outer').scrollTop"


@pytest.mark.parametrize("lesson", LESSONS)
def test_a_lesson_opens_and_runs_in_jupyterlab_without_a_fault_and_without_the_network(page, jupyterlab, lesson):
    url, token, theme = jupyterlab
    page.goto(f"{url}/lab/tree/{lesson}?reset&token={token}")  # no tab of an earlier lesson stays open
    page.wait_for_function(f"{STATUS} === 'idle'", timeout=60_000)
    if theme == "light":
        page.evaluate("window.jupyterapp.commands.execute('notebook:clear-all-cell-outputs')")
        ran = page.evaluate("window.jupyterapp.commands.execute('notebook:run-all-cells').then(() => 'ran')")
        assert ran == "ran"
        page.wait_for_function(f"{STATUS} === 'idle'", timeout=1000 * SECONDS.get(lesson[:2], 120))

    page.evaluate(f"{SCROLLED} = 0")
    page.wait_for_timeout(500)
    SHOTS.mkdir(exist_ok=True)
    pictures, words, depth = {}, [], 0
    while True:  # cells out of sight are not in the page: look at one screenful after another
        page.screenshot(path=SHOTS / f"{Path(lesson).stem}-{theme}-{depth}.png")
        for image in page.locator(".jp-OutputArea img").all():
            if box := image.bounding_box():  # none for what just went out of sight
                pictures[image.get_attribute("alt")] = box
        words += page.locator(".jp-OutputArea-output").all_inner_texts()
        before = page.evaluate(SCROLLED)
        page.evaluate(f"{SCROLLED} += 1000")
        page.wait_for_timeout(400)
        depth += 1
        if page.evaluate(SCROLLED) == before:
            break

    assert len(pictures) >= 4
    assert all(alt and len(alt) > 40 for alt in pictures)
    assert all(box["width"] > 100 for box in pictures.values())
    assert any(word.startswith(f"Lesson {lesson[:2]}") for word in words)
    assert any("exercises passed in this session" in word for word in words)
    assert not [word for word in words if "Traceback" in word]
    assert page.faults == []
    assert page.outside == []
