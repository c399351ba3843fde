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
from browsing import KERNEL, put_notebook, run_all, run_code

from armdlab import load
from armdlab.widgets.stream_viewer import StreamViewer

# As large as a laptop writes with patience, so that a run lasts long enough for frames to be counted: 8 lanes of 32.
LARGE = """import json, time, torch
from pathlib import Path
from armdlab import ARMD, ARMDConfig, Lab, decode_steps, load
from armdlab.widgets.stream_viewer import StreamViewer
torch.manual_seed(0)
torch.set_num_threads(1)
tales = load("tales")
config = ARMDConfig(tales.tokenizer.vocab_size, 256, n_layer=12, n_head=8, d_model=512)
large = Lab(ARMD(config).eval(), tales.tokenizer, {}, Path("untrained"))

class Timed(StreamViewer):
    def begin(self, asked):
        self.cpu = -time.process_time()
        return super().begin(asked)
    def _finish(self):
        self.cpu += time.process_time()
        made = sum(len(step.made) for step in self._run.done)
        self.took = [made, self._run.done[-1].elapsed, self.cpu]
        super()._finish()

def bare(lab):
    size, started, made = lab.model.config.max_length, time.process_time(), 0
    for step in decode_steps(lab.engine, length=size, streams=8, seed=1, end=lab.tokenizer.end_of_text):
        made += int((step.positions >= 0).sum())
    return [made, step.elapsed, time.process_time() - started]

def tell(values):
    raise RuntimeError(json.dumps(values))

viewer = Timed({"large": large, "tales": tales})
viewer"""
# Milliseconds from the kernel's word that a cell has ended to the second frame that holds its view.
PAINT = """(index) => new Promise((resolve) => {
  const panel = window.jupyterapp.shell.currentWidget, notebook = panel.content;
  const cell = notebook.widgets[index].node;
  for (const old of document.querySelectorAll(".armdlab-view")) old.dataset.old = "";
  let ended = null;
  panel.sessionContext.session.kernel.iopubMessage.connect((_, message) => {
    if (message.header.msg_type !== "status" || message.content.execution_state !== "idle") return;
    if (message.parent_header.msg_type === "execute_request") ended ??= Date.parse(message.header.date); // its clock
  });
  const wait = () => {
    const view = cell.querySelector(".armdlab-view:not([data-old])");
    if (!view || !view.clientHeight || ended === null) { requestAnimationFrame(wait); return; }
    requestAnimationFrame(() => resolve(Date.now() - ended));
  };
  notebook.activeCellIndex = index;
  window.jupyterapp.commands.execute("notebook:run-cell");
  wait();
})"""
GAPS = """const gaps = [];
      let last = null;
      const frame = (now) => {
        if (last !== null && counts()) gaps.push(now - last);
        last = now;
        if (goes()) requestAnimationFrame(frame); else resolve(gaps);
      };
      requestAnimationFrame(frame);"""


@contextmanager
def notebook(cells, height=1400):
    """A page on which a notebook is open and its kernel idle."""
    from conftest import browsing_page, serving  # here, for pytest knows another file by this name

    size = {"width": 1100, "height": height}
    with (
        tempfile.TemporaryDirectory() as home,
        serving(Path(home), "light") as lab,
        browsing_page(viewport=size) as page,
    ):
        url, token, _ = lab
        put_notebook(url, token, "bench.ipynb", cells)
        page.set_default_timeout(240_000)
        page.goto(f"{url}/lab/tree/bench.ipynb?reset&token={token}")
        page.wait_for_function(f"{KERNEL}?.status === 'idle'")
        yield page


def asked(page, code):
    """What an expression is in the kernel."""
    return json.loads(run_code(page, f"tell({code})"))


def paint(turns):
    """First paint of each view, in a kernel that has imported the lab."""
    from test_every_view_in_jupyterlab import IMPORTS, VIEWS

    cells = [f"views[{name!r}] = {call}\nviews[{name!r}]" for name, (call, _) in VIEWS.items()]
    with notebook([IMPORTS, *cells], height=800 * len(VIEWS)) as page:
        run_all(page)
        page.locator(".armdlab-view").nth(len(VIEWS) - 1).wait_for()
        found = {name: [] for name in VIEWS}
        for _ in range(turns):
            run_code(page, "import shutil; shutil.rmtree('run-all', ignore_errors=True)")
            for index, name in enumerate(VIEWS, start=1):
                found[name].append(page.evaluate(PAINT, index))
                page.wait_for_timeout(300)
    for name, times in found.items():
        print(f"{name}: first paint {statistics.median(times):.0f} ms after its cell (worst {max(times):.0f})")


def write(page, model):
    """Let the viewer write 8 lanes to their end; the gaps between frames of the screen meanwhile, in ms."""
    for name, value in {"prompt": "", "streams": "8"}.items():
        page.locator(".asked label", has_text=name).locator("input").fill(value)
    page.locator(".asked label", has_text="model").locator("select").select_option(model)
    gaps = page.evaluate(f"""() => new Promise((resolve) => {{
      const root = document.querySelector(".armdlab-view");
      const counts = () => Number(root.querySelector("[data-fact=tokens]").textContent) > 0;
      const goes = () => root.dataset.status === "running";
      root.querySelector("form").requestSubmit();
      {GAPS}
    }})""")
    status = page.locator(".armdlab-view").get_attribute("data-status")
    if status != "finished":
        raise RuntimeError(f"the run ended as {status}: {page.locator('.alert').inner_text()}")
    page.wait_for_function(f"{KERNEL}.status === 'idle'")
    page.wait_for_timeout(300)
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
        write(page, "large")
        said("live", [gap for _ in range(turns) for gap in write(page, "large")])
        page.locator(".bar select").select_option("20")
        replayed = page.evaluate(f"""() => new Promise((resolve) => {{
          const play = document.querySelector(".armdlab-view .bar button"), counts = () => true;
          const goes = () => play.textContent === "Pause";
          play.click();
          {GAPS}
        }})""")
        said("replayed", replayed)


def overhead(turns):
    """Tokens a second of the same run, watched and in a bare loop of the same kernel; the two take turns."""
    with notebook([LARGE]) as page:
        run_all(page)
        page.locator(".armdlab-view").wait_for()
        page.wait_for_function(f"{KERNEL}.status === 'idle'")
        for model in ("large", "tales"):
            pairs = []
            for _ in range(turns + 1):
                alone = asked(page, f"bare({model})")
                write(page, model)
                pairs.append((alone, asked(page, "viewer.took")))
            for clock, at in (("wall", 1), ("of the kernel's CPU", 2)):
                rates = [(alone[0] / alone[at], seen[0] / seen[at]) for alone, seen in pairs[1:]]
                alone, seen = (statistics.median(rate) for rate in zip(*rates, strict=True))
                lost = 100 * (1 - statistics.median(seen / alone for alone, seen in rates))
                print(f"{model}: {alone:,.0f} tokens/s ({clock}) alone, {seen:,.0f} watched: {lost:+.1f} % lost")


def memory(runs):
    """Megabytes that the process grew by between the 100th run and the last, by the messages that a browser sends."""
    viewer = StreamViewer(load("tales"))
    viewer.send = lambda content: None
    resident = {}
    for number in range(1, runs + 1):
        asked = {"prompt": "It was a", "streams": 8, "temperature": 1.0, "order": "streams", "seed": number}
        viewer._asked(None, {"want": "run", "run": number, "asked": asked}, None)
        while viewer._goes_on:
            viewer._asked(None, {"want": "steps", "run": number, "budget_ms": 120}, None)
        viewer._asked(None, {"want": "others", "run": number}, None)
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
