"""Do the views keep up? First paint, frames a second, what watching costs the writer, and what runs leave in memory.

    python tests/benchmarks/views.py paint       # each view: from the end of its cell to its first frame
    python tests/benchmarks/views.py frames      # 8 lanes of 32 tokens, live and replayed
    python tests/benchmarks/views.py overhead    # tokens a second, watched in a browser and in a bare loop
    python tests/benchmarks/views.py memory      # 1,000 runs of the viewer in one process (--turns 10)

The first three drive a real JupyterLab in a real, headless Chromium, which draws by software. Server, kernel and
browser share the cores that this process may use; their number is printed.
"""

import argparse
import gc
import json
import os
import statistics
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "ui"))
from conftest import CHROMIUM, FLAGS, serving
from test_cockpit_in_jupyterlab import put_notebook, run_all

from armdlab import load
from armdlab.widgets.stream_viewer import StreamViewer

KERNEL = "window.jupyterapp?.shell?.currentWidget?.sessionContext?.session?.kernel"
VIEWS = {
    "order explorer": "OrderExplorer()",
    "leak detector": "LeakDetector()",
    "attention microscope": "AttentionMicroscope()",
    "stream viewer": "StreamViewer()",
    "race": "Race()",
}
IMPORTS = """from armdlab.widgets.order_explorer import OrderExplorer
from armdlab.widgets.leak_detector import LeakDetector
from armdlab.widgets.attention_microscope import AttentionMicroscope
from armdlab.widgets.stream_viewer import Race, StreamViewer"""
# As large as a laptop writes with patience, so that a run lasts long enough for frames to be counted: 8 lanes of 32.
LARGE = """import torch
from pathlib import Path
from armdlab import ARMD, ARMDConfig, Lab, decode_steps, load
from armdlab.widgets.stream_viewer import StreamViewer
torch.manual_seed(0)
torch.set_num_threads(1)
tales = load("tales")
config = ARMDConfig(tales.tokenizer.vocab_size, 256, n_layer=12, n_head=8, d_model=512)
large = Lab(ARMD(config).eval(), tales.tokenizer, {}, Path("untrained"))
viewer = StreamViewer({"large": large, "tales": tales})
viewer"""
# A run without a view, timed in the very kernel that serves the view: what the viewer's clock is compared with.
BARE = """import json
seconds = {}
for name, lab in {"large": large, "tales": tales}.items():
    size = lab.model.config.max_length
    how = dict(length=size, streams=8, seed=1, end=lab.tokenizer.end_of_text)
    seconds[name] = []
    for _ in range(TURNS):
        made, last = 0, None
        for last in decode_steps(lab.engine, **how):
            made += int((last.positions >= 0).sum())
        seconds[name].append(made / last.elapsed)
print(json.dumps(seconds))"""


@contextmanager
def notebook(cells):
    """A page on which all cells of a notebook have run."""
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as home, serving(Path(home), "light") as (url, token, _), sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1100, "height": 1400})
        put_notebook(url, token, "bench.ipynb", cells)
        page.goto(f"{url}/lab/tree/bench.ipynb?reset&token={token}")
        page.set_default_timeout(120_000)
        yield page
        browser.close()


def paint(turns):
    """Milliseconds from the kernel's word that a view's cell has ended to the second frame that holds the view."""
    watch = """async () => {
      const kernel = window.jupyterapp.shell.currentWidget.sessionContext.session.kernel;
      window.paints = new Promise((resolve) => {
        let ended = null;
        kernel.iopubMessage.connect((_, message) => {
          if (message.header.msg_type !== "status" || message.content.execution_state !== "idle") return;
          if (message.parent_header.msg_type !== "execute_request") return;
          ended ??= Date.parse(message.header.date); // the kernel's own clock, which is the browser's here
        });
        const wait = () => {
          const view = document.querySelector(".armdlab-view");
          if (!view || !view.clientHeight || ended === null) { requestAnimationFrame(wait); return; }
          requestAnimationFrame(() => resolve(Date.now() - ended));
        };
        wait();
      });
    }"""
    for name, call in VIEWS.items():
        found = []
        for _ in range(turns):
            with notebook([f"{IMPORTS}\n{call}"]) as page:
                page.wait_for_function(f"{KERNEL}?.status === 'idle'")
                page.evaluate(watch)
                run_all(page)
                found.append(page.evaluate("window.paints"))
        print(f"{name}: first paint {statistics.median(found):.0f} ms after its cell (worst {max(found):.0f})")


def write(page, model, **controls):
    """Let the viewer write a text to its end; the gaps between frames of the screen meanwhile, in ms."""
    for name, value in controls.items():
        page.locator(".asked label", has_text=name).locator("input").fill(str(value))
    page.locator(".asked label", has_text="model").locator("select").select_option(model)
    gaps = page.evaluate("""() => new Promise((resolve) => {
      const root = document.querySelector(".armdlab-view"), gaps = [];
      let last = null;
      root.querySelector("form").requestSubmit();
      const frame = (now) => {
        const busy = root.dataset.status === "running";
        if (last !== null && Number(root.querySelector("[data-fact=tokens]").textContent) > 0) gaps.push(now - last);
        last = now;
        if (busy) requestAnimationFrame(frame); else resolve(gaps);
      };
      requestAnimationFrame(frame);
    })""")
    status = page.locator(".armdlab-view").get_attribute("data-status")
    if status != "finished":
        raise RuntimeError(f"the run ended as {status}: {page.locator('.alert').inner_text()}")
    page.wait_for_timeout(400)
    return gaps


def said(name, gaps):
    """Frames a second of the gaps between frames, and how long the slow ones are."""
    slow = sorted(gaps)[int(0.95 * len(gaps))]
    print(f"{name}: {1000 * len(gaps) / sum(gaps):.0f} frames a second; 95 of 100 gaps below {slow:.0f} ms")


def frames(turns):
    """Frames a second, of the screen, while 8 lanes of 32 tokens fill: live, and replayed at 20 steps a second."""
    with notebook([LARGE]) as page:
        run_all(page)
        page.locator(".armdlab-view").wait_for()
        write(page, "large", prompt="", streams=8)
        said("live", [gap for _ in range(turns) for gap in write(page, "large", prompt="", streams=8)])
        page.locator(".bar select").select_option("20")
        replayed = page.evaluate("""() => new Promise((resolve) => {
          const play = document.querySelector(".armdlab-view .bar button"), gaps = [];
          let last = null;
          play.click();
          const frame = (now) => {
            if (last !== null) gaps.push(now - last);
            last = now;
            if (play.textContent === "Pause") requestAnimationFrame(frame); else resolve(gaps);
          };
          requestAnimationFrame(frame);
        })""")
        said("replayed", replayed)


def overhead(turns):
    """Tokens a second of the same run, watched and in a bare loop of the same kernel; runs take turns."""
    with notebook([LARGE, BARE.replace("TURNS", str(turns))]) as page:
        run_all(page)
        page.locator(".armdlab-view").wait_for()
        page.wait_for_function(f"{KERNEL}?.status === 'idle' && document.querySelector('.jp-OutputArea-output pre')")
        bare = json.loads(page.locator(".jp-OutputArea-output pre").last.inner_text())
        for model, rates in bare.items():
            watched = []
            for _ in range(turns + 1):
                write(page, model, prompt="", streams=8)
                watched.append(float(page.locator("[data-fact='tokens/s']").inner_text().replace(",", "")))
            alone, seen = statistics.median(rates[1:]), statistics.median(watched[1:])
            lost = 100 * (1 - seen / alone)
            print(f"{model}: {alone:,.0f} tokens/s alone, {seen:,.0f} watched: {lost:+.1f} % lost")


def memory(runs):
    """Megabytes that the process grew by between the 100th run and the last, by the messages that a browser sends."""
    viewer = StreamViewer(load("tales"))
    viewer.send = lambda content: None
    resident = {}
    for number in range(1, runs + 1):
        asked = {"prompt": "It was a", "streams": 8, "temperature": 1.0, "order": "streams", "seed": number}
        viewer._asked(None, {"want": "run", "run": number, "asked": asked}, None)
        while viewer._steps is not None:
            viewer._asked(None, {"want": "steps", "run": number, "budget_ms": 30}, None)
        if viewer.message:
            raise RuntimeError(viewer.message)
        if number in (100, runs // 2, runs):
            gc.collect()
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            resident[number] = pages * os.sysconf("SC_PAGE_SIZE") / 1e6
    print("; ".join(f"after {number:,} runs {size:.1f} MB" for number, size in resident.items()))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["paint", "frames", "overhead", "memory"])
    parser.add_argument("--turns", type=int, default=5, help="repetitions; of memory: hundreds of runs")
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{len(os.sched_getaffinity(0))} core(s)")
    memory(100 * args.turns) if args.what == "memory" else globals()[args.what](args.turns)
