"""Run docs/notebook.ipynb, and write it with what its cells show, and two of its figures as pictures for the pages.

.venv/bin/python tools/notebook.py
"""

from __future__ import annotations

import base64
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
import plotly.io
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "docs" / "notebook.ipynb"
IMAGES = ROOT / "docs" / "images"
PLOTLY = "application/vnd.plotly.v1+json"


def executed(folder: Path) -> Any:
    """Run the notebook in a folder, and return it with what its cells show.

    Args:
        folder: an empty one: the store and the spool of the notebook are in it.
    """
    environment = os.environ | {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "PLOTLY_RENDERER": "plotly_mimetype",  # others put the whole of plotly.js into the notebook
        "OMP_NUM_THREADS": "1",  # of so small a network more only wait for each other
        "GATEWATCH_SPOOL": str(folder / "spool"),
        "GATEWATCH_STATE": str(folder / "state"),
    }
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    # Its sockets are files, which no other user can open.
    kernel = AsyncKernelManager(kernel_name="python3", transport="ipc", ip=str(folder / "kernel"))
    resources = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, km=kernel, timeout=300, resources=resources).execute(
        cwd=str(folder), cleanup_kc=True, env=environment
    )
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # when it ran
    return notebook


def shown(notebook: Any, kind: str) -> list[Any]:
    """Return what the cells of a notebook show of a kind, such as `image/png`."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return [output.data[kind] for output in outputs if kind in output.get("data", {})]


def screenshot(figure: Any, path: Path) -> None:
    """Draw a Plotly figure in Chromium, and write it as a PNG."""
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - the test needs no browser

    page_html = plotly.io.to_html(figure, config={"displayModeBar": False}, default_width="860px")
    with sync_playwright() as playwright:
        found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
        browser = playwright.chromium.launch(executable_path=found)
        page = browser.new_page(viewport={"width": 880, "height": 660})
        page.set_content(page_html)
        page.wait_for_selector(".slider-container")
        page.screenshot(path=path)
        browser.close()


def main() -> None:
    """Run the notebook, and write it and its pictures."""
    with tempfile.TemporaryDirectory() as folder:
        notebook = executed(Path(folder))
    (graph,), (heatmap,) = shown(notebook, "image/png"), shown(notebook, PLOTLY)
    (IMAGES / "temporal-graph.png").write_bytes(base64.b64decode(graph))
    screenshot({name: heatmap[name] for name in ("data", "layout")}, IMAGES / "heatmap.png")
    nbformat.write(notebook, NOTEBOOK)
    print(NOTEBOOK)


if __name__ == "__main__":
    main()
