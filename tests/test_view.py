"""Laws of every view, without a browser: one answer at a time, mistakes in words, text that stays text."""

import threading
import time

import pytest

from armdlab.figures import Picture
from armdlab.widgets.acceptance_view import AcceptanceView
from armdlab.widgets.attention_microscope import AttentionMicroscope
from armdlab.widgets.infilling_desk import InfillingDesk
from armdlab.widgets.leak_detector import LeakDetector
from armdlab.widgets.order_explorer import OrderExplorer
from armdlab.widgets.pulled import PulledView
from armdlab.widgets.stream_viewer import Race, StreamViewer
from armdlab.widgets.training_cockpit import TrainingCockpit
from armdlab.widgets.view import HERE, View


class Slow(View):
    """Answers slowly, and notices whether it is asked meanwhile."""

    files = ()
    inside = 0
    most = 0

    def answer(self, content):
        self.inside += 1
        self.most = max(self.most, self.inside)
        time.sleep(0.02)
        self.inside -= 1
        if content.get("fail"):
            raise content["fail"]
        return {"twice": 2 * content["number"]}

    def picture(self):
        return Picture(b"\x89PNG", "a picture")


@pytest.fixture
def view():
    view = Slow()
    view.sent = []
    view.send = view.sent.append
    return view


def test_two_messages_on_two_threads_are_answered_one_after_the_other(view):
    threads = [threading.Thread(target=view._asked, args=(view, {"number": n, "ask": n}, [])) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert view.most == 1
    assert sorted(answer["ask"] for answer in view.sent) == list(range(6))
    assert all(answer["twice"] == 2 * answer["ask"] for answer in view.sent)


def test_an_answer_is_on_its_way_before_the_next_message_is_worked_on(view):
    view.send = lambda content: view.sent.append(view._one_at_a_time.locked())
    view._asked(view, {"number": 1}, [])
    assert view.sent == [True], "else frames of two threads could come in the wrong order"


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (ValueError("five is too many; give four"), "five is too many; give four"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
    ],
)
def test_an_error_is_a_sentence_and_the_view_stays_usable(view, error, sentence):
    view._asked(view, {"number": 1, "ask": "a:1", "fail": error}, [])
    assert view.sent == [{"status": "failed", "ask": "a:1"}]
    assert view.message == sentence
    assert type(error).__name__ in view.last_error
    view._asked(view, {"number": 1, "ask": "a:2"}, [])
    assert view.sent[-1] == {"status": "done", "twice": 2, "ask": "a:2"}
    assert view.message == ""


def test_where_no_view_can_be_its_picture_stands_with_words(view):
    data, _ = view._repr_mimebundle_()
    assert 'alt="a picture"' in data["text/html"]
    assert "application/vnd.jupyter.widget-view+json" in data


@pytest.mark.parametrize(
    "cls",
    [
        OrderExplorer,
        LeakDetector,
        AttentionMicroscope,
        AcceptanceView,
        InfillingDesk,
        StreamViewer,
        Race,
        TrainingCockpit,
    ],
)
def test_a_module_is_whole_and_holds_neither_markup_nor_address(cls):
    """A widget's module is loaded from a blob, where nothing can be imported."""
    assert cls._esm.count("export default") == 1
    for word in ("import ", "innerHTML", "insertAdjacentHTML", "eval(", "http"):
        assert word not in cls._esm.replace("http://www.w3.org/2000/svg", "")
    assert "@import" not in cls._css
    assert "url(" not in cls._css


def test_every_rule_of_a_style_stays_inside_its_view():
    """Styles of widgets reach the whole page."""
    for path in HERE.glob("*.css"):
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith("@keyframes armdlab-"):
                continue
            assert line.startswith((".armdlab-", "@media")), line
            selectors = line.split("{")[1 if line.startswith("@media") else 0]
            assert all(part.strip().startswith(".armdlab-") for part in selectors.split(", "))


class Patient(PulledView):
    """Remembers for how long it was told to work."""

    files = ()

    def begin(self, asked):
        self.told = []
        return {}

    def advance(self, seconds):
        self.told.append(seconds)
        return {}, True


def test_the_kernel_works_longer_for_a_question_where_questions_come_late():
    view = Patient()
    view.send = lambda content: None
    for wait in (0, 0, 0.02, 0, 0.04, 0.04, 0.04):
        time.sleep(wait)
        view._asked(view, {"want": "steps" if hasattr(view, "told") else "run", "run": 1, "budget_ms": 100}, [])
    assert view.told == pytest.approx([0.1, 0.1, 0.2, 0.2, 0.4, 0.4, 0.4]), "no longer than four times"
    time.sleep(0.04)
    view._asked(view, {"want": "run", "run": 2, "budget_ms": 10}, [])
    assert view.told == pytest.approx([0.04]), "a reader who waits before the next run is not late"
