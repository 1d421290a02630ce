"""A run that shows itself in a notebook."""

from __future__ import annotations

import base64
import re
import subprocess
import sys
import tempfile
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import numpy as np
import pytest

import gatewatch
from gatewatch.collector.errors import ConfigError
from gatewatch.collector.store import open_store
from gatewatch.jobs.scoring.scoring_pass import run_pass
from tests.conftest import free_port
from tests.recorded import end, fill, recorded, shut
from tools.notebook import NOTEBOOK, PLOTLY, executed, shown

HOSTILE = """a "b" </div><img src=x onerror=alert(1)><script>alert(2)</script> $x$ é漢"""
HOSTILE_LAYER = "<script>alert(3)</script>"


def broken(k, gate, values):
    return values * np.nan if k >= 50 and gate == "input" else values


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    store = open_store(f"sqlite:///{tmp_path_factory.mktemp('runs') / 'points.db'}")
    fill(store, recorded(70, run="healthy"))
    end(store, "healthy")
    fill(store, recorded(70, run="broken", change=broken))
    fill(store, recorded(70, run=HOSTILE, layers=[HOSTILE_LAYER], gates=("forget", "_x<b>$y$"), change=shut(50)))
    fill(store, recorded(5, run="short"))
    for run in ("broken", HOSTILE, "short"):
        end(store, run)
    run_pass(store, finish=True)
    return store


class Elements(HTMLParser):
    """The elements of a page, their attributes and its text."""

    def __init__(self, page):
        super().__init__()
        self.names, self.attributes, self.text, self.open = [], [], "", []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.names.append(tag)
        self.attributes += attrs
        if tag != "img":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_a_run_shows_its_verdict_and_its_figures(store):
    shown = gatewatch.show(store, "broken")
    page = Elements(shown._repr_html_())
    assert shown.verdict == gatewatch.verdict(store, "broken")
    assert "alarm: " + shown.verdict.sentence in page.text
    assert repr(shown) == f"broken: alarm: {shown.verdict.sentence}"
    captions = [value for name, value in page.attributes if name == "alt"]
    assert captions[:2] == ["loss", "learning_rate"]
    assert captions[2:] == [
        "Anomaly scores of memory",
        "Anomaly scores of _model",
        "Range of input of memory, now NaN",
        "Range of forget of memory, now 0.545",
    ]
    pictures = [value for name, value in page.attributes if name == "src"]
    assert len(pictures) == len(captions)
    for picture in pictures:
        kind, _, data = picture.partition(",")
        assert kind == "data:image/png;base64"
        assert base64.b64decode(data).startswith(b"\x89PNG")
    assert len(shown._repr_html_()) < 300_000


def test_a_healthy_run_and_one_with_little_are_shown(store):
    healthy = gatewatch.show(store.url, "healthy")
    assert healthy.verdict.verdict == "healthy"
    assert "healthy · completed" in Elements(healthy._repr_html_()).text
    assert gatewatch.show(store, "short").verdict.verdict == "undecided"


def test_the_newest_run_is_shown_where_none_is_named(store):
    assert gatewatch.show(store).verdict.run == store.runs()["run"][0]


def test_hostile_names_stay_text(store):
    page = Elements(gatewatch.show(store, HOSTILE)._repr_html_())
    assert set(page.names) <= {"div", "p", "strong", "ul", "li", "span", "img", "code"}
    assert {name for name, _ in page.attributes} <= {"style", "width", "src", "alt"}
    assert HOSTILE in page.text
    assert HOSTILE_LAYER in page.text
    assert "_x<b>$y$" in page.text
    assert page.open == []


def test_an_unknown_run_is_one_line_in_a_notebook(store, tmp_path):
    with pytest.raises(ConfigError, match=r"did you mean 'healthy'"):
        gatewatch.show(store, "healty")
    code = f"import gatewatch\ngatewatch.show({store.url!r}, 'healty')"
    command = [sys.executable, "-m", "IPython", "--colors=NoColor", "--no-banner", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={"HOME": str(tmp_path)})
    said = (done.stdout + done.stderr).strip().splitlines()
    assert len(said) == 1
    assert re.match(r"ConfigError: .*healty", said[0])


def test_a_store_that_is_away_is_undecided(monkeypatch):
    for name in ("ORG", "BUCKET", "TOKEN"):
        monkeypatch.setenv(f"INFLUXDB_V2_{name}", "x")
    shown = gatewatch.show(f"http://127.0.0.1:{free_port()}", "r")
    assert shown.verdict.verdict == "undecided"
    assert "<img" not in shown._repr_html_()


def test_the_notebook_of_the_docs_runs_and_is_kept_with_what_it_shows():
    kept = nbformat.read(NOTEBOOK, as_version=4)
    with tempfile.TemporaryDirectory() as folder:  # a short path, as sockets need
        run = executed(Path(folder))
    for notebook in (kept, run):
        said = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []))
        assert "learning_rate went from 0.001 to 0.3, 300 times as large" in said
        assert [len(shown(notebook, kind)) for kind in ("text/html", "image/png", PLOTLY)] == [2, 1, 1]
        assert "<strong>goog</strong>" in shown(notebook, "text/html")[0]
    assert [cell.source for cell in kept.cells] == [cell.source for cell in run.cells]
    assert NOTEBOOK.stat().st_size < 1_000_000
