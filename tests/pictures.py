"""Take the pictures of the live page that README and docs show: `make pictures`.

`python -m tests.pictures STORE FOLDER [--all]` takes those of any store; with `--all` in dark and of a phone too.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from urllib.parse import urlencode

from playwright.sync_api import sync_playwright

from gatewatch.collector.store import open_store
from gatewatch.jobs.view.page import PAGES
from tests.integration.conftest import ARGUMENTS, Visit
from tests.integration.test_view import serving

HEIGHT = 900
LOOKS = {"": ("light", 1280), "-dark": ("dark", 1280), "-phone": ("light", 360)}
CHARTS = "[...document.querySelectorAll('.plot')].filter(e => e.getBoundingClientRect().top < innerHeight)"
READY = {
    "/": "document.querySelectorAll('#runs tbody tr').length > 0 && !document.body.innerText.includes('reading…')",
    "/run": f"document.querySelector('#gates[data-shown]') && {CHARTS}.every(e => e.dataset.drawn)",
    "/compare": f"document.querySelector('#metrics[data-shown]') && {CHARTS}.every(e => e.dataset.drawn)",
    "/alerts": "document.querySelector('[data-part]') === null || document.querySelector('[data-shown]') !== null",
}
"""Address → what is true of its page once all is there."""
NAMES = {"/": "view", "/run": "view-run", "/compare": "view-compare", "/alerts": "view-alerts"}


def addresses(runs):
    """Address of each page → its whole address, about the newest run and the one before it."""
    queries = {"/run": [("run", runs[0])], "/compare": [("run", run) for run in runs[:2]]}
    return {page: f"{page}?{urlencode(queries.get(page, []))}".rstrip("?") for page in PAGES}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", help="its URL, such as sqlite:///gatewatch-demo/gatewatch.db")
    parser.add_argument("folder", type=Path, help="where the pictures go")
    parser.add_argument("--all", action="store_true", help="take those in dark and of a phone too")
    arguments = parser.parse_args()
    store = open_store(arguments.store)
    runs = list(store.runs()["run"])
    looks = LOOKS if arguments.all else {"": LOOKS[""]}
    with sync_playwright() as playwright, serving(store) as server:
        found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
        browser = playwright.chromium.launch(
            executable_path=found or playwright.chromium.executable_path, args=ARGUMENTS
        )
        for look, (scheme, width) in looks.items():
            context = browser.new_context(viewport={"width": width, "height": HEIGHT}, color_scheme=scheme)
            for page, address in addresses(runs).items():
                visit = Visit(context)
                visit.page.goto(server.url.rstrip("/") + address)
                visit.until(READY[page])
                visit.page.wait_for_timeout(500)  # Plotly's transitions
                path = arguments.folder / f"{NAMES[page]}{look}.png"
                height = min(HEIGHT, visit.page.evaluate("document.body.getBoundingClientRect().height"))
                visit.page.screenshot(path=path, clip={"x": 0, "y": 0, "width": width, "height": height})
                print(path)
                visit.page.close()
            context.close()
        browser.close()


if __name__ == "__main__":
    main()
