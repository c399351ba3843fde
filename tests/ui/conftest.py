"""A real JupyterLab in a real, headless Chromium, with settings and copies of its own."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


MISSING = "NO CHROMIUM to test in: install one"  # tests/conftest.py says so at the end of all tests


@pytest.fixture(scope="session", params=["light", "dark"])
def jupyterlab(request, tmp_path_factory):
    """(URL, token, theme) of a server, one for each theme."""
    if CHROMIUM is None:
        pytest.skip(MISSING)
    with serving(tmp_path_factory.mktemp(f"jupyterlab-{request.param}"), request.param) as server:
        yield server


@contextmanager
def serving(home, theme):
    """(URL, token, theme) of a server that serves a copy of the notebooks and touches no settings of the user."""
    shutil.copytree(ROOT / "notebooks", home / "work", ignore=shutil.ignore_patterns("__pycache__"))
    settings = home / "settings" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True)
    (settings / "themes.jupyterlab-settings").write_text(json.dumps({"theme": f"JupyterLab {theme.title()}"}))
    news = json.dumps({"fetchNews": "false", "checkForUpdates": False})  # its toast covers a corner
    (settings / "notification.jupyterlab-settings").write_text(news)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    log = (home / "log").open("w")
    server = subprocess.Popen(
        [
            *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={port}"),
            *("--IdentityProvider.token=lab", f"--ServerApp.root_dir={home / 'work'}"),
            "--LabApp.expose_app_in_browser=True",
        ],
        env={
            **os.environ,
            "JUPYTER_CONFIG_DIR": str(home / "config"),
            "JUPYTER_DATA_DIR": str(home / "data"),
            "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
            "IPYTHONDIR": str(home / "ipython"),
            "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
        },
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    url = f"http://localhost:{port}"
    for _ in range(300):
        try:
            urllib.request.urlopen(f"{url}/api?token=lab", timeout=1).close()
            break
        except OSError:
            time.sleep(0.1)
    try:
        yield url, "lab", theme
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)
        log.close()


@pytest.fixture
def page(jupyterlab):
    """A page of its own for a test; see `browsing_page`."""
    with browsing_page() as page:
        yield page


@contextmanager
def browsing_page(**how):
    """A page that remembers console errors in `page.faults` and outside requests in `page.outside`."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(**{"viewport": {"width": 1100, "height": 1400}, **how})
        page.faults, page.outside = [], []
        page.on("console", lambda message: page.faults.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: page.faults.append(str(error)))
        page.on("request", lambda request: page.outside.append(request.url) if _is_outside(request.url) else None)
        yield page
        browser.close()


def _is_outside(url):
    return url.startswith(("http", "ws")) and "//localhost" not in url
