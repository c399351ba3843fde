"""How the tests of this folder drive a page: notebooks put and run, views found, looked at and checked."""

import json
import os
import time
import urllib.request
from pathlib import Path

from axe_playwright_python.sync_playwright import Axe

SHOTS = Path(os.environ.get("ARMDLAB_SCREENSHOTS", Path(__file__).parent / "screenshots"))
KERNEL = "window.jupyterapp?.shell?.currentWidget?.sessionContext?.session?.kernel"
STATUS = f"{KERNEL}?.status"
HOSTILE = [
    "<script>window.hacked=1</script> <img src=x onerror=window.hacked=1>",
    "🦊 👩‍👩‍👧 🇺🇦",
    "שלום مرحبا \u202eabc",
    "e\u0301\u0301\u0301\u0301 Z\u0351\u036b\u0343\u034a",
    "x" * 10_000,
]


def put_notebook(url, token, name, cells):
    """Write a notebook with these code cells into the server's folder."""
    notebook = {
        "cells": [
            {"cell_type": "code", "id": f"c{i}", "metadata": {}, "source": c, "outputs": [], "execution_count": None}
            for i, c in enumerate(cells)
        ],
        "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    body = json.dumps({"type": "notebook", "format": "json", "content": notebook}).encode()
    request = urllib.request.Request(f"{url}/api/contents/{name}?token={token}", body, method="PUT")
    urllib.request.urlopen(request, timeout=10).close()


def run_all(page):
    page.wait_for_function(f"{STATUS} === 'idle'", timeout=60_000)
    assert page.evaluate("window.jupyterapp.commands.execute('notebook:run-all-cells').then(() => 'ran')") == "ran"


def run_code(page, code):
    """Run code in the kernel of the open notebook, beside its cells; the exception it raised, or None."""
    return page.evaluate(
        f"(code) => {KERNEL}.requestExecute({{ code }}).done.then((reply) => reply.content.evalue ?? null)", code
    )


def holds(page, claim, seconds=30):
    """Wait until an assertion holds in a kernel that may still be busy; what failed last, or None.

    `claim` makes its code anew each time, since the page may still be learning what the kernel did, too.
    """
    until = time.monotonic() + seconds
    while (failed := run_code(page, claim())) is not None and time.monotonic() < until:
        page.wait_for_timeout(200)
    return failed


def becomes(page, seen, wanted, seconds=15):
    """Wait until what is seen is what is wanted: the kernel answers when it can, on a busy machine late."""
    until = time.monotonic() + seconds
    while seen() != wanted and time.monotonic() < until:
        page.wait_for_timeout(50)
    assert seen() == wanted


def opened(page, jupyterlab, name, cell):
    """The view that a cell shows, in a notebook of its own."""
    url, token, theme = jupyterlab
    put_notebook(url, token, f"{name}.ipynb", [cell])
    page.goto(f"{url}/lab/tree/{name}.ipynb?reset&token={token}")
    run_all(page)
    view = page.locator(".armdlab-view")
    view.wait_for(timeout=60_000)
    page.set_default_timeout(10_000)
    assert view.get_attribute("data-theme") == theme
    return view


def shot(page, view, name, theme):
    SHOTS.mkdir(exist_ok=True)
    page.wait_for_timeout(500)
    view.screenshot(path=SHOTS / f"{name}-{theme}.png")


def faults_of_access(page, css=".armdlab-view"):
    """What axe-core finds serious or critical inside the views, in words."""
    found = Axe().run(page, css, {"resultTypes": ["violations"]}).response["violations"]
    return [
        f"{fault['impact']}: {fault['help']} ({' '.join(node['failureSummary'].split())}) in {node['html'][:200]}"
        for fault in found
        if fault["impact"] in ("serious", "critical")
        for node in fault["nodes"]
    ]


def is_quiet(page):
    """No error in the console, no request to the world, no script that text brought along."""
    assert page.faults == []
    assert page.outside == []
    assert page.evaluate("window.hacked === undefined")
