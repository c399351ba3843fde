"""Laws of stream viewer and race in a browser."""

from browsing import HOSTILE, is_quiet, opened, shot

VIEWER = """from armdlab.widgets.stream_viewer import StreamViewer
viewer = StreamViewer()
viewer"""
RACE = """from armdlab.widgets.stream_viewer import Race
race = Race()
race"""


def until(page, status):
    page.wait_for_selector(f'.armdlab-view[data-status="{status}"]', timeout=60_000)


def fact(view, name):
    return view.locator(f'[data-fact="{name}"]').inner_text()


def test_a_run_is_written_replayed_read_and_compared_by_mouse_and_keyboard(page, jupyterlab):
    view = opened(page, jupyterlab, "viewer", VIEWER)
    assert view.locator(".text .token").count() > 50, "a recorded run is there before anything is computed"
    view.get_by_role("button", name="Write").click()
    until(page, "finished")
    page.wait_for_function("document.querySelector('.armdlab-view .text .token:not(.open):not(.given)')")
    page.wait_for_timeout(700)
    steps = int(fact(view, "step").split(" of ")[1])
    assert fact(view, "step") == f"{steps} of {steps}"
    assert view.locator(".lane").count() == 4
    assert float(fact(view, "seconds")) > 0
    assert int(fact(view, "tokens/s").replace(",", "")) > 0
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
    assert view.locator(".text .token:not(.open):not(.given)").count() == 0
    page.keyboard.press("ArrowRight")
    assert fact(view, "step") == f"1 of {steps}"
    box = line.bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)  # the timeline scrubs
    assert abs(int(fact(view, "step").split()[0]) - steps / 2) <= 2
    view.locator(".facts").click()  # a click anywhere brings the keys
    page.keyboard.press("End")
    assert fact(view, "step") == f"{steps} of {steps}"
    page.keyboard.press("ArrowLeft")
    assert fact(view, "step") == f"{steps - 1} of {steps}"
    token.focus()
    page.keyboard.press("ArrowRight")
    assert view.locator(".text .token:focus").get_attribute("data-position") != token.get_attribute("data-position")
    assert "at position" in view.locator(".said").inner_text()
    page.keyboard.press("Escape")
    assert view.locator(".said").inner_text() == ""
    page.keyboard.press("2")
    assert view.get_by_label("streams", exact=True).input_value() == "2"
    played = {}
    for speed, least in (("20", 8), ("2", 1)):
        view.get_by_label("speed").select_option(speed)
        view.locator(".facts").click()
        page.keyboard.press("Home")
        page.keyboard.press(" ")
        page.wait_for_timeout(1200)
        page.keyboard.press(" ")
        played[speed] = int(fact(view, "step").split(" of ")[0])
        assert played[speed] >= least, "Space plays"
        page.wait_for_timeout(300)
        assert fact(view, "step").startswith(f"{played[speed]} of"), "Space pauses"
    assert played["2"] < played["20"] / 2, "two steps a second are slower than twenty"

    view.get_by_label("streams", exact=True).press("Enter")  # writes, with 2 streams
    page.wait_for_function("document.querySelector('.compared').textContent.includes('Against the run before')")
    assert view.locator(".lane").count() == 2
    is_quiet(page)


def test_corrected_streams_show_what_is_read_again(page, jupyterlab):
    view = opened(page, jupyterlab, "corrected", VIEWER)
    view.get_by_label("order").select_option("corrected streams")
    view.get_by_label("streams", exact=True).fill("8")
    view.get_by_label("temperature").fill("1.5")  # so that there is something to correct
    view.get_by_role("button", name="Write").click()
    until(page, "finished")
    page.wait_for_timeout(700)
    steps, nats = int(fact(view, "step").split(" of ")[1]), float(fact(view, "nats a token"))
    token = view.locator(".text .token:not(.given)").nth(20)
    token.hover()
    assert "read again at step" in view.locator(".said").inner_text()
    assert "saw 20 earlier tokens" in view.locator(".said").inner_text()  # those before it
    changed = view.locator(".text .token.new").count()
    shot(page, view, "corrected", jupyterlab[2])
    view.locator(".facts").click()
    for _ in range(3):  # the rounds, and the first reading
        page.keyboard.press("ArrowLeft")
    assert fact(view, "step") == f"{steps - 3} of {steps}"
    token.hover()
    assert "made at step" in view.locator(".said").inner_text()
    assert 0 < changed < view.locator(".text .token").count() / 2, "only what is new is marked"
    assert float(fact(view, "nats a token")) != nats


def test_hostile_prompts_are_text_or_a_sentence(page, jupyterlab):
    view = opened(page, jupyterlab, "viewer-hostile", VIEWER)
    for text in [*HOSTILE, "It was a"]:
        view.get_by_label("prompt").fill(text)
        view.get_by_role("button", name="Write").click()
        page.wait_for_selector('.armdlab-view[data-status="finished"], .armdlab-view[data-status="failed"]')
        if len(text) > 1000:
            assert view.get_by_role("alert").inner_text().endswith("and the model can hold 160; shorten it")
        else:
            assert view.get_by_role("alert").inner_text() == ""
            page.wait_for_function(
                "text => document.querySelector('.armdlab-view .text').textContent.startsWith(text)", arg=text
            )
        assert view.locator("script, img").count() == 0
        assert view.evaluate("view => view.scrollWidth <= view.clientWidth")
    is_quiet(page)


def test_a_race_takes_any_text_and_ends_with_verdicts(page, jupyterlab):
    view = opened(page, jupyterlab, "race", RACE)
    assert len([verdict for verdict in view.locator(".verdict").all_inner_texts() if verdict]) == 3, "a recorded race"
    assert "Recorded earlier" in view.inner_text()
    start = view.get_by_role("button", name="Start")
    for text, status in ((HOSTILE[-1], "failed"), ("".join(HOSTILE[:-1]), "finished"), ("It was a", "finished")):
        view.get_by_label("prompt").fill(text)
        start.click()
        page.wait_for_selector(f'.armdlab-view[data-status="{status}"]', timeout=60_000)
        assert view.locator("script, img").count() == 0
        assert bool(view.get_by_role("alert").inner_text()) == (status == "failed")
    verdicts = view.locator(".verdict").all_inner_texts()
    assert len(verdicts) == 3
    assert all(verdicts)
    assert "Recorded earlier" not in view.inner_text()
    counters = view.locator(".facts").all_inner_texts()
    assert all("tokens/s" in counter for counter in counters)
    steps = [int(counter.split()[0]) for counter in counters]
    assert steps[0] < steps[1], "streams take fewer steps than one after another"
    shot(page, view, "race", jupyterlab[2])
    is_quiet(page)
