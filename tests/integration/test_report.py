"""The report: what it says of a run in a real store, and that a browser shows it without a network."""

from __future__ import annotations

import json
import re
import zipfile

import numpy as np
import pytest

from collector.errors import ConfigError
from collector.schema import GRU_GATES, LSTM_GATES, Point, path_name
from collector.store import open_store
from jobs.report.page import write_report

SECOND = 1_000_000_000
START = 1_780_000_000 * SECOND
HOSTILE_RUN = """it's "<b>mine</b>" </script><img src=x onerror=alert(2)>"""
HOSTILE_LAYER = "<script>alert(1)</script>"


@pytest.fixture
def store(tmp_path):
    store = open_store(f"sqlite:///{tmp_path}/gatewatch.db")
    yield store
    store.close()


def seed(store, run="goog-1", layers=("lstm",), gates=LSTM_GATES, *, captures=40, fault=25, start=START, **options):
    """A run whose first layer's forget (or update) gate collapses at capture `fault`."""
    log_dir, phases, scored = options.get("log_dir", ""), options.get("phases", ("train",)), options.get("scored", True)
    config = {"log_dir": str(log_dir), "every": "auto", "versions": {"keras": "3.12.0"}, **options.get("config", {})}
    base = {"run": run, "symbol": "GOOG"}
    about = {"framework": "keras 3.12.0", "model": "sequential", "config": json.dumps(config)}
    first = {**base, "phase": phases[0]}
    points = [Point("runs", first, {"event": "started", "step": 0, **about}, start)]
    noise = np.random.default_rng(1)
    for i in range(captures):
        at, step = start + i * SECOND, i * 10
        loss = {"loss": 1 / (1 + i), "val_loss": 0.5 + 0.01 * i, "step": step, "epoch": i // 10}
        points.append(Point("train_metrics", first, loss, at))
        for phase in phases:
            for layer in layers:
                for gate in gates:
                    bad = layer == layers[0] and gate in ("forget", "update") and i >= fault
                    mean = 0.05 if bad else 0.7 + 0.01 * float(noise.normal())
                    tags = {**base, "phase": phase, "layer": layer, "gate": gate}
                    stats = {"mean": mean, "p05": mean - 0.04, "p95": mean + 0.04, "step": step}
                    stats |= {"saturated_low": 0.9 if bad else 0.0, "saturated_high": 0.0, "nan_count": 0}
                    points.append(Point("gate_stats", tags, stats, at))
                    points.append(Point("gate_units", tags, {"u000": mean, "u001": mean / 2, "step": step}, at))
                    if scored and i >= 10:
                        score = {"anomaly_score": 2.5 if bad else 0.7, "anomalous": int(bad), "step": step}
                        why = {"why_mean_activation": 3.0 if bad else 0.1, "why_entropy": 0.2}
                        detector = {**tags, "detector": "isolation_forest"}
                        points.append(Point("gate_scores", detector, score | why, at))
                        late = {"memory_timescale": 2.8, "dead_units": 3.0 * bad}
                        points.append(Point("gate_derived", tags, late, at))
    points.append(Point("runs", first, {"event": "completed", "step": captures * 10}, start + captures * SECOND))
    store.write(points)


def save_epoch(folder, epoch, run, layer="lstm", gates=LSTM_GATES):
    rng = np.random.default_rng(epoch)
    path = folder / f"gate_epoch_{epoch}.npz"
    arrays = {f"{layer}/{gate}": rng.random((3, 12, 8)).astype(np.float32) for gate in gates}
    arrays[f"{layer}/{gates[0]}"][:, :2] = np.nan
    np.savez_compressed(path, **arrays)
    with zipfile.ZipFile(path, "a") as archive:
        archive.comment = json.dumps({"run": run, "epoch": epoch, "step": epoch * 100, "phase": "train"}).encode()
    return path


def report(store, tmp_path, run=None):
    return write_report(store, run, tmp_path / "report.html")


def figures(page):
    """Every figure that lies in the file, as plotly will read it."""
    found = re.findall(r'<script type="application/json">(.*?)</script>', page, re.DOTALL)
    return [json.loads(text) for text in found]


def heatmaps(page):
    return [figure for figure in figures(page) if figure.get("frames")]


def test_it_says_what_stands_out_since_when_and_why(store, tmp_path):
    seed(store, layers=("lstm", "lstm_1"))
    page = report(store, tmp_path).read_text()
    verdict = re.search(r'<p class="verdict">(.*?)</p>', page, re.DOTALL)[1]
    assert "the forget gate of lstm: 50 % of its scored captures are above 1, up to 2.5" in verdict
    assert "rose at step 250, from a median of 0.7 to 2.5" in verdict
    assert "mean activation" in verdict
    assert "overfits" in verdict


def test_it_lists_the_facts_of_the_run_and_every_gate(store, tmp_path):
    seed(store)
    page = report(store, tmp_path).read_text()
    for fact in ("goog-1", "completed", "2026-05-28", "40 s", "400", "keras 3.12.0", "sequential", "symbol=GOOG"):
        assert fact in page
    assert page.count('<td class="layer">lstm</td>') == len(LSTM_GATES)
    assert '<td class="n">90 %</td>' in page


def test_a_calm_run_is_called_calm(store, tmp_path):
    seed(store, fault=10_000)
    assert "All 6 gates stayed in their normal range" in report(store, tmp_path).read_text()


def test_values_that_are_not_finite_come_first(store, tmp_path):
    seed(store)
    tags = {"run": "goog-1", "symbol": "GOOG", "phase": "train", "layer": "lstm", "gate": "cell"}
    store.write([Point("gate_stats", tags, {"nan_count": 12}, START + 30 * SECOND)])
    assert '<p class="verdict">Values that are not finite appeared in 1 gate, first at step 300' in (
        report(store, tmp_path).read_text()
    )


def test_without_scores_it_says_how_to_get_them(store, tmp_path):
    seed(store, scored=False)
    assert "made by gatewatch jobs --once" in report(store, tmp_path).read_text()


def test_a_run_that_has_only_begun_has_a_report(store, tmp_path):
    store.write([Point("runs", {"run": "young"}, {"event": "started", "step": 0}, START)])
    page = report(store, tmp_path).read_text()
    assert "This run has recorded no gates yet" in page
    assert "There is nothing to draw" in page


def test_epoch_files_of_this_run_become_frames(store, tmp_path):
    seed(store, log_dir=tmp_path, gates=GRU_GATES)
    for epoch in range(3):
        save_epoch(tmp_path, epoch, "goog-1", gates=GRU_GATES)
    save_epoch(tmp_path, 7, "another run", gates=GRU_GATES)
    (heatmap,) = heatmaps(report(store, tmp_path).read_text())
    steps = heatmap["layout"]["sliders"][0]["steps"]
    assert [step["label"] for step in steps] == ["epoch 0", "epoch 1", "epoch 2"]
    assert heatmap["layout"]["annotations"][0]["text"] == "Update Gate Activation"


def test_epoch_files_are_found_where_a_later_run_moved_them(store, tmp_path):
    seed(store, "über 1", log_dir=tmp_path)
    (tmp_path / path_name("über 1")).mkdir()
    save_epoch(tmp_path / path_name("über 1"), 0, "über 1")
    save_epoch(tmp_path, 0, "later")
    (heatmap,) = heatmaps(report(store, tmp_path).read_text())
    assert [step["label"] for step in heatmap["layout"]["sliders"][0]["steps"]] == ["epoch 0"]


def test_layers_with_slashes_in_their_names_are_found(store, tmp_path):
    seed(store, layers=("bidirectional/forward_lstm",), log_dir=tmp_path)
    save_epoch(tmp_path, 0, "goog-1", "bidirectional/forward_lstm")
    page = report(store, tmp_path).read_text()
    assert len(heatmaps(page)) == 1
    assert "each frame is an epoch" in page


def test_files_that_cannot_be_read_are_named_and_survived(store, tmp_path):
    seed(store, log_dir=tmp_path)
    whole = save_epoch(tmp_path, 0, "goog-1")
    damaged = save_epoch(tmp_path, 1, "goog-1")
    content = bytearray(damaged.read_bytes())
    content[-1500:-1200] = bytes(300)  # one of the last arrays: those before it are whole
    damaged.write_bytes(content)
    (tmp_path / "gate_epoch_2.npz").write_bytes(whole.read_bytes()[:100])
    (tmp_path / "gate_epoch_3.npz").write_text("not a zip file")
    page = report(store, tmp_path).read_text()
    assert [name for name in (f"gate_epoch_{n}.npz could not be read" for n in range(4)) if name in page] == [
        f"gate_epoch_{n}.npz could not be read" for n in (1, 2, 3)
    ]
    assert [step["label"] for step in heatmaps(page)[0]["layout"]["sliders"][0]["steps"]] == ["epoch 0"]


def test_without_epoch_files_the_units_points_are_drawn(store, tmp_path):
    seed(store, log_dir=tmp_path / "gone")
    page = report(store, tmp_path).read_text()
    assert f"No epoch file of this run was found in {tmp_path / 'gone'}" in page
    (heatmap,) = heatmaps(page)
    assert len(heatmap["frames"]) == 40
    assert heatmap["layout"]["sliders"][0]["steps"][-1]["label"] == "390"


def test_phases_are_told_apart(store, tmp_path):
    seed(store, phases=("train", "backtest"))
    page = report(store, tmp_path).read_text()
    assert "<th>Phase</th>" in page
    assert "lstm · backtest" in page


def test_many_layers_are_drawn_worst_first_and_all_are_in_the_table(store, tmp_path):
    layers = [f"lstm_{n}" for n in range(14)]
    seed(store, layers=layers, captures=14, fault=11)
    page = report(store, tmp_path).read_text()
    assert "2 more are in the table" in page
    assert all(f'<td class="layer">{layer}</td>' in page for layer in layers)


def test_two_layers_and_twenty_epochs_stay_below_ten_megabytes(store, tmp_path):
    seed(store, layers=("a", "b"), log_dir=tmp_path)
    rng = np.random.default_rng(0)
    for epoch in range(20):
        path = tmp_path / f"gate_epoch_{epoch}.npz"
        names = [f"{layer}/{gate}" for layer in "ab" for gate in ("input", "forget", "cell", "output")]
        np.savez(path, **{name: rng.random((2, 80, 128), np.float32) for name in names})
        with zipfile.ZipFile(path, "a") as archive:
            archive.comment = json.dumps({"run": "goog-1", "epoch": epoch}).encode()
    written = report(store, tmp_path)
    assert [len(heatmap["frames"]) for heatmap in heatmaps(written.read_text())] == [20, 20]
    assert written.stat().st_size < 10_000_000


def test_the_newest_run_is_taken_and_the_file_is_named_after_it(store, tmp_path, monkeypatch):
    seed(store, "older")
    seed(store, "newer/1", start=START + 3600 * SECOND)
    monkeypatch.chdir(tmp_path)
    written = write_report(store)
    assert written.name == f"gatewatch-{path_name('newer/1')}.html"
    assert "<h1>newer/1</h1>" in written.read_text()


def test_an_unknown_run_names_those_that_are_near(store, tmp_path):
    seed(store, "goog-lstm-1", captures=2)
    with pytest.raises(ConfigError, match=r"no run 'goog-lstm-2' in .*did you mean 'goog-lstm-1'\?"):
        report(store, tmp_path, "goog-lstm-2")
    with pytest.raises(ConfigError, match=r"no run 'zzz' in .*there is 'goog-lstm-1'$"):
        report(store, tmp_path, "zzz")


def test_an_empty_store_says_what_to_do(store, tmp_path):
    with pytest.raises(ConfigError, match=r"has no runs yet.*gatewatch demo"):
        report(store, tmp_path)


@pytest.mark.parametrize("place", ["missing/report.html", ".", "x" * 300])
def test_an_output_that_cannot_be_written_is_named_and_leaves_nothing(store, tmp_path, place):
    seed(store, captures=2)
    before = {path.name for path in tmp_path.iterdir()}
    with pytest.raises(ConfigError, match="-o"):
        write_report(store, None, tmp_path / place)
    assert {path.name for path in tmp_path.iterdir()} == before


def test_progress_is_told(store, tmp_path):
    seed(store, captures=2)
    said = []
    write_report(store, None, tmp_path / "r.html", progress=said.append)
    assert said[0] == "reading run goog-1"
    assert said[-1].startswith("writing ")


def shown_frame(page):
    return page.locator(".heatmap .js-plotly-plot").first.evaluate("plot => plot._fullLayout.sliders[0].active")


def to_heatmap(page):
    page.locator("#heatmaps").scroll_into_view_if_needed()
    page.locator(".heatmap .js-plotly-plot").first.wait_for(timeout=30_000)
    page.locator(".heatmap .js-plotly-plot").first.scroll_into_view_if_needed()


def button(page, label):
    return page.locator(".heatmap .updatemenu-button", has_text=label).first


@pytest.fixture
def hostile(store, tmp_path):
    seed(
        store,
        HOSTILE_RUN,
        (HOSTILE_LAYER, "%{x}<b>&amp;"),
        log_dir=tmp_path,
        config={"<img src=x onerror=alert(3)>": "</script><script>alert(4)</script>"},
    )
    for epoch in range(24):
        save_epoch(tmp_path, epoch, HOSTILE_RUN, HOSTILE_LAYER)
    return report(store, tmp_path)


def test_a_browser_draws_every_chart_without_a_request_or_a_complaint(hostile, visit):
    page = visit.open(hostile)
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    visit.until("document.querySelectorAll('.plot:not(.js-plotly-plot)').length === 0")
    visit.until("[...document.querySelectorAll('.heatmap image')].some(i => i.href.baseVal.length > 99)")
    assert page.locator(".plot").count() > 10
    assert visit.requests == []
    assert visit.complaints == []


def test_play_moves_the_frames_and_pause_stops_them(hostile, visit):
    page = visit.open(hostile)
    to_heatmap(page)
    last = shown_frame(page)
    assert last == 23
    pixels = "() => document.querySelector('.heatmap .js-plotly-plot image').href.baseVal"
    before = page.evaluate(pixels)
    button(page, "Play").click()
    active = "document.querySelector('.heatmap .js-plotly-plot')._fullLayout.sliders[0].active"
    visit.until(f"1 < {active} && {active} < 23")
    button(page, "Pause").click()
    stopped = shown_frame(page)
    assert page.evaluate(pixels) != before
    page.wait_for_timeout(1500)
    assert shown_frame(page) == stopped < last
    assert visit.complaints == []


def test_hostile_names_stay_text(hostile, visit):
    page = visit.open(hostile)
    assert page.locator("h1").inner_text() == HOSTILE_RUN
    assert page.title() == f"{HOSTILE_RUN} · Gatewatch"
    to_heatmap(page)
    captions = page.locator("figcaption").all_inner_texts()
    assert HOSTILE_LAYER in captions
    assert "%{x}<b>&amp;" in captions
    assert page.locator("main img, main b, header img, header b").count() == 0
    assert page.locator("body > script").count() == 2
    assert visit.complaints == []


def test_a_heatmap_of_its_own_shows_a_hostile_name_as_text(visit, tmp_path):
    from jobs.report.heatmap import render_gate_heatmap

    for name in (HOSTILE_LAYER, "<b>bold</b>", "&amp;", "%{x}"):
        path = tmp_path / "figure.html"
        frames = {name: {"forget": np.ones((3, 2))}, "next": {"forget": np.zeros((3, 2))}}
        render_gate_heatmap(frames, name).write_html(path, include_plotlyjs=True)
        page = visit.open(path)
        assert page.locator(".gtitle").text_content() == f"{name} · activation"
        assert page.locator(".slider-label").first.text_content()[:20] == name[:20]
    assert visit.complaints == []


def test_a_phone_sees_no_sideways_scrolling(hostile, visit):
    visit.page.set_viewport_size({"width": 390, "height": 800})
    page = visit.open(hostile)
    to_heatmap(page)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert page.locator(".heatmap .js-plotly-plot").first.bounding_box()["height"] > 1000
    assert visit.complaints == []
