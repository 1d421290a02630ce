"""What several files share: a browser for the tests of the report, and a folder for scripts."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

REMEDY = "no Chromium found: `make browser` installs one"
# Without a sandbox, since tests in a container run as root; and quiet: the browser's own requests are not the page's.
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


@pytest.fixture(autouse=True)
def nothing_compiled_before():
    """Let torch forget what a test has compiled: beside torch.compile no states are seen that sequences begin with."""
    yield
    if "torch._dynamo.eval_frame" in sys.modules and sys.modules["torch._dynamo.eval_frame"].cached_backends:
        sys.modules["torch"].compiler.reset()


@pytest.fixture(scope="session")
def chromium():
    """A running Chromium. Where there is none the tests are skipped; on CI they fail."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with sync_playwright() as playwright:
        path = found or playwright.chromium.executable_path
        if not Path(path).exists():
            on_ci = os.environ.get("CI", "").lower() not in ("", "0", "false")
            (pytest.fail if on_ci else pytest.skip)(REMEDY)
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()


class Visit:
    """A page, and all that happened on it that should not have.

    Attributes:
        page: Playwright's page.
        requests: addresses that it asked for, other than the file itself.
        complaints: errors and warnings of the console, uncaught errors, dialogs.
    """

    def __init__(self, context):
        self.page = context.new_page()
        self.requests = []
        self.complaints = []
        self.page.on("request", lambda request: self._note_request(request.url))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", self._dismiss)
        self.page.on("console", self._note_console)

    def open(self, path):
        """Open a file and wait until its scripts have run."""
        self.page.goto(path.as_uri(), wait_until="load")
        return self.page

    def until(self, condition):
        """Wait until a JavaScript expression is true. The page's policy forbids Playwright's own way, which is eval."""
        for _ in range(600):
            if self.page.evaluate(condition):
                return
            self.page.wait_for_timeout(50)
        pytest.fail(f"this never came true in the page: {condition}")

    def _note_request(self, url):
        if not url.startswith(("file://", "data:", "blob:")):
            self.requests.append(url)

    def _note_console(self, message):
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def _dismiss(self, dialog):
        self.complaints.append(f"dialog: {dialog.message}")
        dialog.dismiss()


@pytest.fixture
def visit(chromium):
    """A visit without a network."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900}, offline=True)
    yield Visit(context)
    context.close()


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder to work in, for scripts that import the checkout."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    monkeypatch.chdir(tmp_path)
    return tmp_path
