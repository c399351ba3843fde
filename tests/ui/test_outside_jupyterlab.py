"""Laws of views and traces where there is no JupyterLab: Colab, VS Code, a page of its own, an exported notebook."""

import base64
import json
import math
from pathlib import Path

import pytest
from browsing import SHOTS, faults_of_access
from conftest import CHROMIUM, MISSING, browsing_page

from armdlab.traces import Made, Step, Trace
from armdlab.widgets.attention_microscope import AttentionMicroscope
from armdlab.widgets.leak_detector import LeakDetector
from armdlab.widgets.order_explorer import OrderExplorer
from armdlab.widgets.pulled import RECORDED
from armdlab.widgets.stream_viewer import Race, StreamViewer
from armdlab.widgets.training_cockpit import TrainingCockpit
from armdlab.widgets.view import HERE

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason=MISSING)
LESSON = Path(__file__).resolve().parents[2] / "notebooks" / "05_parallel_streams.ipynb"
VIEWS = [OrderExplorer, LeakDetector, AttentionMicroscope, StreamViewer, Race]
# What a notebook's page tells of its theme, by whose it is.
PAGES = {
    "Colab, dark": ('<html theme="dark"><body style="background: #383838; color: #d5d5d5">', "dark"),
    "Colab, dark, without a ground": ('<html theme="dark"><body>', "dark"),
    "Colab, light": ('<html theme="light"><body style="background: white">', "light"),
    "VS Code, dark": ('<html><body class="vscode-dark" style="background: transparent; color: #cccccc">', "dark"),
    "VS Code, light": ('<html><body class="vscode-light" style="background: transparent; color: #333333">', "light"),
    "bare": ("<html><body>", "light"),
}
# What anywidget gives to a view, for a view without a kernel.
MODEL = """const { state, bytes } = JSON.parse(document.getElementById("state").textContent);
const weights = bytes && Uint8Array.from(atob(bytes), (letter) => letter.charCodeAt(0));
const get = (name) => (name === "weights" ? new DataView(weights.buffer) : state[name]);
const model = { get, on() {}, off() {}, send() {} };
view.render({ model, el: document.getElementById("cell") });"""


@pytest.fixture(scope="module")
def page():
    with browsing_page() as page:
        yield page


@pytest.fixture(scope="module")
def standing():
    """class -> the page of a view without a kernel, behind the beginning of a page."""
    pages = {}
    for cls in VIEWS:
        view = cls()
        state = {name: getattr(view, name) for name in view.traits(sync=True) if not name.startswith(("_", "layout"))}
        weights = state.pop("weights", None)
        for name in ("comm", "keys", "tabbable", "tooltip"):
            state.pop(name, None)
        pages[cls] = stood(cls, state, weights)
    return pages


def stood(cls, state, weights=None):
    """The page of a view in some state."""
    held = json.dumps({"state": state, "bytes": weights and base64.b64encode(weights).decode()}).replace("<", "\\u003c")
    module = cls._esm.replace("export default", "const view =")
    return (
        f"<style>{cls._css}</style><script type='application/json' id='state'>{held}</script>"
        f"<div id='cell'></div><script type='module'>{module}\n{MODEL}</script>"
    )


@pytest.mark.parametrize("cls", VIEWS)
def test_a_view_takes_the_theme_of_whatever_page_it_stands_in(page, standing, cls):
    for begins, theme in PAGES.values():
        page.set_content(begins + standing[cls])
        assert page.locator(f".armdlab-view[data-theme='{theme}']").count() == 1, begins
    page.evaluate("document.body.setAttribute('style', 'background: #222')")  # a reader changes the theme
    page.wait_for_selector(".armdlab-view[data-theme='dark']")
    page.evaluate("document.body.setAttribute('style', 'background: #fff')")
    page.wait_for_selector(".armdlab-view[data-theme='light']")
    assert page.faults == []


@pytest.fixture
def sized(page):
    """A fresh page of some width."""
    pages = []
    yield lambda wide: pages.append(page.context.browser.new_page(viewport={"width": wide, "height": 700})) or pages[0]
    pages[0].close()


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("wide", [900, 600, 340])
@pytest.mark.parametrize(
    ("nats", "some"),
    [
        ((6.9, 3.2), ["50", "100", "500"]),
        ((3.6, 3.4), ["30", "32", "36"]),
        ((1.2, 1.19), ["3.3", "3.5"]),
        ((4.4, 2.7), ["20", "60", "80"]),
        ((0.2, 0.0), ["1", "1.2"]),
        ((11.3, 0.3), ["10", "1,000"]),
        ((60.0, 2.0), ["10", "1e+9"]),
    ],
)
def test_the_curve_of_a_training_has_an_axis_of_perplexities_and_no_letters_overlap(sized, nats, some, wide, theme):
    frame = {"rate": 900.0, "seconds": 3.0, "order": "left to right"}
    frames = [frame | {"step": i + 1, "loss": nats[0] + (nats[1] - nats[0]) * i / 59} for i in range(60)]
    frames[-1] |= {"nats": nats[1], "perplexity": math.exp(nats[1]), "said": "how", "sample": "It writes."}
    lessons = [{"name": "left to right", "from": 0, "to": 60}]
    plan = {"steps": 60, "done": 60, "lessons": lessons, "out": "runs/mine"}
    state = {"plan": plan, "frames": frames, "recorded": {}, "status": "stopped", "message": ""}
    page = sized(wide)
    page.set_content(f'<html theme="{theme}"><body>' + stood(TrainingCockpit, state))
    picture = page.locator(".armdlab-cockpit svg")
    page.wait_for_function("document.querySelectorAll('.armdlab-cockpit svg .perplexity').length > 1")
    assert f"perplexity {math.exp(nats[1]):.2f}, at step 60" in picture.get_attribute("aria-label")
    texts = picture.locator("text").evaluate_all(
        """(all) => all.map((text) => {
            const { x, y, width, height } = text.getBBox(), isTick = text.classList.contains("perplexity");
            return [text.textContent, isTick, +text.getAttribute("y"), [x, y, width, height]];
        })"""
    )
    labels = [label for label, *_ in texts]
    assert {"nats a token", "perplexity", "step 60"} <= set(labels)
    ticks = {label: y for label, is_tick, y, _ in texts if is_tick}
    assert set(some) <= ticks.keys()
    for label, y in ticks.items():  # an axis of logarithms, beside that of nats
        low, high = min(nats), max(*nats, min(nats) + 0.1)
        place = 215 - 180 * (math.log(float(label.replace(",", ""))) - low) / (high - low)
        assert y == pytest.approx(place, abs=0.1)
    boxes = [box for *_, box in texts]
    for i, (x, y, width, height) in enumerate(boxes):
        assert x >= 0
        assert x + width <= picture.evaluate("(svg) => svg.viewBox.baseVal.width")
        for x2, y2, width2, height2 in boxes[:i]:
            apart = x + width <= x2 or x2 + width2 <= x or y + height <= y2 + 2 or y2 + height2 <= y + 2
            assert apart, (labels, (x, y, width, height), (x2, y2, width2, height2))
    assert faults_of_access(page) == []
    if nats[0] == 6.9:
        SHOTS.mkdir(exist_ok=True)
        page.locator(".armdlab-cockpit").screenshot(path=SHOTS / f"cockpit-{wide}-{theme}.png")


def test_a_training_that_has_not_begun_shows_the_recorded_one_by_both_axes(sized):
    recorded = json.loads((RECORDED / "training.json").read_text(encoding="utf-8"))
    plan = {"steps": 60, "done": 0, "lessons": [], "out": "runs/mine"}
    state = {"plan": plan, "frames": [], "recorded": recorded, "status": "ready", "message": ""}
    page = sized(900)
    page.set_content("<html><body>" + stood(TrainingCockpit, state))
    page.wait_for_function("document.querySelectorAll('.armdlab-cockpit svg .perplexity').length > 2")
    perplexity = math.exp(recorded["frames"][-1]["nats"])
    assert f", perplexity {perplexity:.2f}, at step" in page.locator("svg").get_attribute("aria-label")


# A kernel that answers when it is told to: `asked` holds what the view wanted, `drawn` what it was given to draw.
KERNEL = """const heard = {}, asked = [], drawn = [], ends = [];
const on = (name, does) => { heard[name] = does; }, send = (wants) => asked.push(wants);
const model = { get: () => "", on, send, off() {} };
const alert = document.getElementById("alert");
const pull = pulling(model, alert, { took: (content) => drawn.push(content.n), ended: (name) => ends.push(name) });
const answers = (wants, more) => heard["msg:custom"]({ run: wants.run, status: "running", ...more });
const wants = () => asked.map((each) => each.want).join(" ");"""


@pytest.fixture
def pulled(page):
    """Evaluate in a page that pulls from such a kernel."""
    fresh = page.context.browser.new_page()
    fresh.clock.install()
    scripts = "".join((HERE / f"{name}.js").read_text() for name in ("shared", "pull"))
    fresh.set_content(f"<p id='alert'></p><script>{scripts}\n{KERNEL}</script>")
    yield fresh
    fresh.close()


def test_two_questions_are_in_flight_and_a_second_click_asks_nothing(pulled):
    assert pulled.evaluate("[pull.begin({ streams: 4 }), pull.begin({ streams: 4 }), wants()]") == [
        True,
        False,
        "run steps",
    ]
    assert pulled.evaluate("answers(asked[0], { n: 0 }), wants()") == "run steps steps"
    assert pulled.evaluate("answers(asked[1], { n: 1 }), wants()") == "run steps steps steps"
    assert (
        pulled.evaluate("answers(asked[2], { n: 2, status: 'finished' }), answers(asked[3], { n: 3, status: 'old' })")
        is None
    )
    assert pulled.evaluate("[wants(), drawn, ends, pull.running()]") == [
        "run steps steps steps",
        [0, 1, 2],
        ["finished"],
        False,
    ]


def test_after_stop_nothing_is_asked_or_drawn(pulled):
    pulled.evaluate("pull.begin(), answers(asked[0], { n: 0 }), pull.stop(7), answers(asked[1], { n: 1 })")
    assert pulled.evaluate("[wants(), drawn, ends, asked.at(-1).shown]") == [
        "run steps steps stop",
        [0],
        ["stopped"],
        7,
    ]
    pulled.evaluate("pull.begin(), answers(asked[2], { n: 2 }), answers(asked[4], { n: 4 })")
    assert pulled.evaluate("[wants(), drawn]") == ["run steps steps stop run steps steps", [0, 4]], (
        "old answers are no news"
    )


def test_pause_takes_what_is_on_its_way_and_goes_on_from_there(pulled):
    pulled.evaluate("pull.begin(), answers(asked[0], { n: 0 }), pull.pause(), answers(asked[1], { n: 1 })")
    assert pulled.evaluate("[wants(), drawn]") == ["run steps steps", [0, 1]]
    assert pulled.evaluate("pull.begin(), wants()") == "run steps steps steps", "one was still in flight"
    assert pulled.evaluate("new Set(asked.map((each) => each.run)).size") == 1


def test_a_silent_kernel_and_another_view_are_told_in_words(pulled):
    pulled.evaluate("pull.begin(), answers(asked[0], { n: 0 })")
    pulled.clock.fast_forward(7000)
    assert pulled.locator("#alert").inner_text().startswith("No answer from the kernel yet: it may be busy.")
    pulled.evaluate("answers(asked[1], { n: 1 })")
    assert pulled.locator("#alert").inner_text() == ""
    pulled.evaluate("answers(asked[2], { n: 2, status: 'old' })")
    assert (
        pulled.locator("#alert").inner_text()
        == "A cell or another view of this widget took over; this one has stopped."
    )
    assert pulled.evaluate("ends") == ["stopped"]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_saved_run_plays_from_a_file_without_a_network(page, theme, tmp_path):
    recorded = Trace.from_json((RECORDED / "tale.json").read_text(encoding="utf-8"))
    recorded.save(tmp_path / "run.html")
    recorded.save(tmp_path / "run.gif")
    page.context.set_offline(True)
    page.emulate_media(color_scheme=theme, reduced_motion="no-preference")
    page.goto((tmp_path / "run.html").as_uri())
    step = page.locator("[data-fact=step]")
    page.wait_for_function("/^[3-9] of/.test(document.querySelector('[data-fact=step]').textContent)")  # by itself
    page.get_by_role("button", name="Pause").click()
    page.keyboard.press("End")
    assert step.inner_text() == f"{len(recorded.steps)} of {len(recorded.steps)}"
    text = page.locator(".text").inner_text().replace("⏎", "\n").replace("∎", "")
    assert text.split() == recorded.text.replace("<|endoftext|>", "").split()
    page.locator(".text .token").nth(8).hover()
    assert "made at step" in page.locator(".said").inner_text()
    assert "The likeliest there" in page.locator(".said").inner_text()
    assert page.locator(".armdlab-view").get_attribute("data-theme") == theme
    SHOTS.mkdir(exist_ok=True)
    page.screenshot(path=SHOTS / f"page-of-a-run-{theme}.png")
    assert faults_of_access(page) == []
    page.emulate_media(color_scheme="light" if theme == "dark" else "dark")
    page.wait_for_selector(f".armdlab-view:not([data-theme='{theme}'])")
    page.emulate_media(color_scheme=theme, reduced_motion="reduce")
    page.reload()
    page.wait_for_timeout(300)
    assert step.inner_text() == f"{len(recorded.steps)} of {len(recorded.steps)}", "nothing moves by itself"
    page.goto((tmp_path / "run.gif").as_uri())
    assert page.evaluate("document.images[0].decode().then(() => document.images[0].naturalWidth)") == 720
    assert page.faults == []
    assert page.outside == []
    page.context.set_offline(False)


def test_hostile_text_on_a_page_of_its_own_is_text(page, tmp_path):
    pieces = [
        "</script><script>window.hacked=1</script>",
        "<img src=x onerror=window.hacked=1>",
        "🦊\u2028",
        "\u202eabc",
    ]
    steps = tuple(Step(0.1 * (n + 1), (Made(n, piece, -0.5, ((piece, 0.6),)),)) for n, piece in enumerate(pieces))
    Trace({"prompt": pieces[0]}, (None,) * len(pieces), (0,) * len(pieces), steps).save(tmp_path / "hostile.html")
    page.goto((tmp_path / "hostile.html").as_uri())
    page.keyboard.press("End")
    shown = [span.text_content() for span in page.locator(".text .token").all()]
    assert shown == pieces
    assert page.locator("img, main script").count() == 0
    assert page.evaluate("window.hacked") is None


def test_an_exported_lesson_shows_the_picture_of_its_view_in_place_of_the_view(page, tmp_path):
    from nbconvert import HTMLExporter

    exported = tmp_path / "lesson.html"
    exported.write_text(HTMLExporter().from_filename(str(LESSON))[0], encoding="utf-8")
    page.context.set_offline(True)  # what it would fetch to typeset formulas is not there
    page.goto(exported.as_uri(), wait_until="domcontentloaded")
    poster = page.get_by_role("img", name="A run of tales: ")
    assert poster.evaluate("image => image.decode().then(() => image.naturalWidth)") > 400
    assert poster.bounding_box()["width"] > 300
    poster.screenshot(path=SHOTS / "exported-lesson.png")
    page.context.set_offline(False)
    page.faults.clear()
    page.outside.clear()
