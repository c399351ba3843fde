"""Laws of stream viewer and race in a browser."""

import pytest
from browsing import HOSTILE, opened, shot

VIEWER = """from armdlab.widgets.stream_viewer import StreamViewer
viewer = StreamViewer()
viewer"""
RACE = """from armdlab.widgets.stream_viewer import Race
Race()"""


def until(page, status):
    page.wait_for_selector(f'.armdlab-view[data-status="{status}"]', timeout=60_000)


def fact(view, name):
    return view.locator(f'[data-fact="{name}"]').inner_text()


def test_a_run_is_written_replayed_and_read_by_mouse_and_keyboard(page, jupyterlab):
    view = opened(page, jupyterlab, "viewer", VIEWER)
    assert view.locator(".text .token").count() > 50, "a recorded run is there before anything is computed"
    shot(page, view, "viewer-recorded", jupyterlab[2])
    view.get_by_label("streams", exact=False).first.wait_for()
    view.get_by_role("button", name="Write").click()
    until(page, "finished")
    page.wait_for_timeout(700)
    steps = int(fact(view, "step").split(" of ")[1])
    assert fact(view, "step") == f"{steps} of {steps}"
    assert view.locator(".lane").count() == 4
    token = view.locator(".text .token:not(.given)").nth(6)
    token.hover()
    said = view.locator(".said").inner_text()
    assert "made at step" in said
    assert "earlier token" in said
    assert "The likeliest there" in said
    assert view.locator(".text .token.seen").count() > 0
    shot(page, view, "viewer", jupyterlab[2])

    line = view.get_by_role("slider")
    line.focus()
    page.keyboard.press("Home")
    assert fact(view, "step") == f"0 of {steps}"
    page.keyboard.press("ArrowRight")
    assert fact(view, "step") == f"1 of {steps}"
    token.focus()
    page.keyboard.press("ArrowRight")
    assert view.locator(".text .token:focus").get_attribute("data-position") != token.get_attribute("data-position")
    page.keyboard.press("Escape")
    page.keyboard.press("2")
    assert view.locator("input[type=number]").first.input_value() == "2"
    page.keyboard.press(" ")
    page.wait_for_timeout(900)
    page.keyboard.press(" ")
    assert int(fact(view, "step").split(" of ")[0]) > 1, "Space plays"
    assert page.faults == []
    assert page.outside == []


def test_stop_stops_in_mid_run_and_a_second_click_starts_nothing(page, jupyterlab):
    view = opened(page, jupyterlab, "viewer", VIEWER)
    view.locator("select").first.select_option("left to right")
    view.get_by_role("button", name="Write").dblclick()
    page.wait_for_function("() => Number(document.querySelector('[data-fact=tokens]').textContent) > 0")
    view.get_by_role("button", name="Stop").click()
    until(page, "stopped")
    page.wait_for_timeout(300)
    made = fact(view, "tokens")
    page.wait_for_timeout(500)
    assert fact(view, "tokens") == made
    view.get_by_role("button", name="Write").click()
    until(page, "finished")
    assert page.faults == []


@pytest.mark.parametrize("text", HOSTILE, ids=["script", "emoji", "right to left", "marks", "long"])
def test_hostile_prompts_are_text_or_a_sentence(page, jupyterlab, text):
    view = opened(page, jupyterlab, "viewer", VIEWER)
    view.get_by_label("prompt").fill(text)
    view.get_by_role("button", name="Write").click()
    page.wait_for_selector('.armdlab-view[data-status="finished"], .armdlab-view[data-status="failed"]', timeout=60_000)
    if len(text) > 1000:
        page.wait_for_function("() => document.querySelector('[role=alert]').textContent.includes('shorten it')")
        view.get_by_label("prompt").fill("It was a")
        view.get_by_role("button", name="Write").click()
        until(page, "finished")
    assert page.evaluate("window.hacked") is None
    assert page.faults == []


def test_a_race_ends_with_verdicts(page, jupyterlab):
    view = opened(page, jupyterlab, "race", RACE)
    view.get_by_role("button", name="Start").click()
    until(page, "finished")
    verdicts = view.locator(".verdict").all_inner_texts()
    assert len(verdicts) == 3
    assert all(verdicts)
    shot(page, view, "race", jupyterlab[2])
    assert page.faults == []
    assert page.outside == []
