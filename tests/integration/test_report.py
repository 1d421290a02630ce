"""The report: what it says of a run in a real store, and that a browser shows it without a network."""

from __future__ import annotations

import base64
import json
import os
import re
import zipfile
from datetime import UTC, datetime

import numpy as np
import pytest

from gatewatch.collector.cells import GRU, LSTM
from gatewatch.collector.errors import ConfigError
from gatewatch.collector.names import path_name
from gatewatch.collector.schema import Point
from gatewatch.collector.store import open_store
from gatewatch.jobs.report.page import write_report
from gatewatch.jobs.report.plot_style import points
from tests.integration.conftest import Visit

SECOND = 1_000_000_000
START = 1_780_000_000 * SECOND
HOSTILE_RUN = """it's "<b>mine</b>" </script><img src=x onerror=alert(2)>"""
HOSTILE_LAYER = "<script>alert(1)</script>"


@pytest.fixture
def store(tmp_path):
    store = open_store(f"sqlite:///{tmp_path}/gatewatch.db")
    yield store
    store.close()


def seed(
    store, run="goog-1", layers=("lstm",), gates=LSTM.gate_names, *, captures=40, fault=25, start=START, **options
):
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
                    if scored:
                        late = {"window_s": 10.0, "memory_timescale": 2.8, "dead_units": 3.0 * bad}
                        points.append(Point("gate_derived", tags, late, at))
    points.append(Point("runs", first, {"event": "completed", "step": captures * 10}, start + captures * SECOND))
    store.write(points)


def save_epoch(folder, epoch, run, layer="lstm", gates=LSTM.gate_names, phase="train"):
    rng = np.random.default_rng(epoch)
    path = folder / f"gate_epoch_{epoch}.npz"
    arrays = {f"{layer}/{gate}": rng.random((3, 12, 8)).astype(np.float32) for gate in gates}
    arrays[f"{layer}/{gates[0]}"][:, :2] = np.nan
    np.savez_compressed(path, **arrays)
    with zipfile.ZipFile(path, "a") as archive:
        archive.comment = json.dumps({"run": run, "epoch": epoch, "step": epoch * 100, "phase": phase}).encode()
    return path


def report(store, tmp_path, run=None):
    return write_report(store, run, tmp_path / "report.html")


def figures(page):
    """Return every figure of the page, as plotly reads it."""
    texts = re.findall(r'<script type="application/json">(.*?)</script>', page, re.DOTALL)
    return [json.loads(text) for text in texts]


def charts(page, label):
    """Return the figures with a label that begins so."""
    labelled = re.findall(r'aria-label="([^"]*)"[^>]*><script type="application/json">(.*?)</script>', page, re.DOTALL)
    return [json.loads(text) for name, text in labelled if name.startswith(label)]


def heatmaps(page):
    return [figure for figure in figures(page) if figure.get("frames")]


def test_the_verdict_names_the_worst_gate_the_onset_and_the_causes(store, tmp_path):
    seed(store, layers=("lstm", "lstm_1"))
    page = report(store, tmp_path).read_text()
    verdict = re.search(r'<p class="verdict">(.*?)</p>', page, re.DOTALL)[1]
    assert "the forget gate of lstm: 50 % of its scored captures are above 1, up to 2.5" in verdict
    assert "rose at step 250, from a median of 0.7 to 2.5" in verdict
    assert "the gate opens further than its trend" in verdict
    assert "Where: <strong>the forget gate of lstm</strong>" in page
    assert "Since: <strong>step 250</strong>" in page
    others = re.search(r'<ul class="findings">(.*?)</ul>', page, re.DOTALL)[1]
    assert (
        "the network overfits, whatever its gates look like"
        in re.search(r'<li class="notice">(.*)', others, re.DOTALL)[1]
    )
    assert page.count("<summary>What to do</summary>") == 2  # of the score, and of the overfitting
    assert "Go to the step that is named and look at what the training did there." in page


def test_it_lists_the_facts_of_the_run_and_every_gate(store, tmp_path):
    seed(store)
    page = report(store, tmp_path).read_text()
    for fact in ("goog-1", "completed", "2026-05-28", "40 s", "400", "keras 3.12.0", "sequential", "symbol=GOOG"):
        assert fact in page
    assert page.count('<td class="layer">lstm</td>') == len(LSTM.gate_names)
    assert '<td class="n">90 %</td>' in page


def test_the_table_says_where_the_cause_lies_also_of_what_is_no_gate(store, tmp_path):
    seed(store)
    tags = {"run": "goog-1", "phase": "train", "layer": "_optimizer", "gate": "kernel", "detector": "consensus"}
    at = store.read("gate_scores", run="goog-1")["time"].iloc[-1].value
    store.write([Point("gate_scores", tags, {"anomaly_score": 2.0, "step": 399, "source": "optimizer"}, at)])
    page = report(store, tmp_path).read_text()
    assert '<td class="layer">_optimizer</td><td>kernel</td><td>optimizer</td><td class="n high">2</td>' in page


def test_a_calm_run_is_called_calm(store, tmp_path):
    seed(store, fault=10_000)
    assert "All 6 gates stayed in their normal range" in report(store, tmp_path).read_text()


def test_values_that_are_not_finite_come_first(store, tmp_path):
    seed(store, fault=10_000)
    tags = {"run": "goog-1", "symbol": "GOOG", "phase": "train", "layer": "lstm", "gate": "cell"}
    store.write([Point("gate_stats", tags, {"nan_count": 12}, START + 30 * SECOND)])
    assert '<p class="verdict">Values that are not finite appeared in 1 gate, first at step 300' in (
        report(store, tmp_path).read_text()
    )


def test_without_scores_the_report_explains_how_to_get_them(store, tmp_path):
    seed(store, scored=False)
    page = report(store, tmp_path).read_text()
    assert "The run cannot be judged: 40 of its 40 captures are not scored yet, which gatewatch jobs" in page


def test_a_run_that_has_only_begun_has_a_report(store, tmp_path):
    store.write([Point("runs", {"run": "young"}, {"event": "started", "step": 0}, START)])
    page = report(store, tmp_path).read_text()
    assert "This run has recorded no gates yet" in page
    assert "There is nothing to draw" in page


def test_epoch_files_of_this_run_become_frames(store, tmp_path):
    seed(store, log_dir=tmp_path, gates=GRU.gate_names)
    for epoch in range(3):
        save_epoch(tmp_path, epoch, "goog-1", gates=GRU.gate_names)
    save_epoch(tmp_path, 7, "another run", gates=GRU.gate_names)
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
    assert "each frame an epoch" in page


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
    assert f"There is no epoch file of this run in {tmp_path / 'gone'}" in page
    (heatmap,) = heatmaps(page)
    assert len(heatmap["frames"]) == 40
    assert heatmap["layout"]["sliders"][0]["steps"][-1]["label"] == "390"


def test_each_phase_has_its_own_chips_and_charts(store, tmp_path):
    seed(store, phases=("train", "backtest"))
    page = report(store, tmp_path).read_text()
    assert "<th>Phase</th>" in page
    assert page.count('--phase:#0072b2">train</span>') > len(LSTM.gate_names)
    assert page.count('--phase:#cc79a7">backtest</span>') > len(LSTM.gate_names)
    assert [len(chart["data"]) for chart in charts(page, "Anomaly scores of lstm")] == [len(LSTM.gate_names)] * 2
    assert [heatmap["layout"]["sliders"][0]["steps"][-1]["label"] for heatmap in heatmaps(page)] == ["390"] * 2


DAY = 86_400 * SECOND
MARKET = 17_532 * DAY  # 2018-01-01


def seed_market(store, run="bt", *, backtest=60, live=40, step=3600 * SECOND, live_from=None, stray=False):
    """A backtest and then live, in the market's time, walked within ten seconds of the clock."""
    base = {"run": run, "symbol": "EURUSD"}
    points = []
    bars = {
        "backtest": (backtest, MARKET),
        "live": (live, MARKET + backtest * step if live_from is None else live_from),
    }
    for phase, (count, begin) in bars.items():
        about = {"config": json.dumps({"log_dir": None}), "framework": "keras/tensorflow", "model": "policy"}
        tags = {**base, "phase": phase}
        points.append(Point("runs", tags, {"event": "started", "step": 0, **about}, START + 1))
        points.append(Point("runs", tags, {"event": "completed", "step": count}, START + 1 + 10 * SECOND))
        for i in range(count):
            at, logged = begin + i * step, {"price": 1.2 + i / 1000, "position": 0.5, "equity": 100.0 + i}
            points.append(Point("train_metrics", tags, {**logged, "step": i + 1, "epoch": 0}, at))
            for gate in LSTM.gate_names:
                place = {**tags, "layer": "memory", "gate": gate}
                stats = {"mean": 0.5, "p05": 0.4, "p95": 0.6, "nan_count": 0, "step": i + 1}
                points.append(Point("gate_stats", place, stats, at))
                points.append(Point("gate_units", place, {"u000": 0.5, "u001": 0.4, "step": i + 1}, at))
                if i >= 32:
                    score = {"anomaly_score": 2.0 if gate == "cell" and i >= 50 else 0.6, "step": i + 1}
                    points.append(Point("gate_scores", {**place, "detector": "isolation_forest"}, score, at))
        if stray:  # what end_epoch writes has the clock's time
            points.append(Point("train_metrics", tags, {"sharpe": 1.5, "step": count, "epoch": 0}, START + 9 * SECOND))
    store.write(points)


def test_a_backtest_and_what_follows_it_are_drawn_over_the_markets_time(store, tmp_path):
    seed_market(store)
    page = report(store, tmp_path).read_text()
    for label in ("Anomaly scores of memory", "Range of forget", "Heatmap of", "price over market time"):
        (chart,) = charts(page, label)
        assert chart["layout"]["xaxis"]["type"] == "date", label
    (bands,) = charts(page, "Range of forget")
    mean = [line["x"] for line in bands["data"] if line.get("name")]
    assert (mean[0][0], mean[0][-1]) == ("2018-01-01 00:00", "2018-01-03 11:00")
    assert (mean[1][0], mean[1][-1]) == ("2018-01-03 12:00", "2018-01-05 03:00")
    (scores,) = charts(page, "Anomaly scores of memory")
    assert [note["text"] for note in scores["layout"]["annotations"]] == ["backtest", "live"]
    (heatmap,) = heatmaps(page)
    assert heatmap["layout"]["sliders"][0]["steps"][-1]["label"].startswith("2018-01-05")
    assert heatmap["layout"]["shapes"][0]["x0"] == "2018-01-03 12:00"
    verdict = re.search(r'<p class="verdict">(.*?)</p>', page, re.DOTALL)[1]
    assert "the cell gate of memory, backtest" in verdict
    assert "rose at 2018-01-03 02:00" in verdict


def facts(page):
    return dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", page))


def test_the_facts_of_a_backtest_say_when_in_the_market_and_how_many_steps_of_each_phase(store, tmp_path):
    seed_market(store)
    summary = facts(report(store, tmp_path).read_text())
    assert summary["Market time"] == (
        "from 2018-01-01 to 2018-01-05 03:00 (4 d 3 h); "
        "backtest from 2018-01-01 to 2018-01-03 11:00, live from 2018-01-03 12:00 to 2018-01-05 03:00"
    )
    assert summary["Duration"] == "10 s by the clock"
    assert summary["Steps"] == "backtest 60, live 40"
    assert summary["Recorded"] == "1 layer, 6 gates"


def test_phases_that_overlap_in_the_market_are_drawn_side_by_side_over_the_same_time(store, tmp_path):
    seed_market(store, live_from=MARKET)
    scores = charts(report(store, tmp_path).read_text(), "Anomaly scores of memory")
    assert [len(chart["data"]) for chart in scores] == [6, 6]
    assert scores[0]["layout"]["xaxis"]["range"] == scores[1]["layout"]["xaxis"]["range"]


def test_live_by_the_clock_goes_on_where_the_backtest_ended(store, tmp_path):
    seed_market(store, live_from=START, step=SECOND // 100)
    (price,) = charts(report(store, tmp_path).read_text(), "price over market time")
    assert [line["name"] for line in price["data"]] == ["backtest", "live"]
    assert price["data"][1]["x"][0].startswith("2026-05-28")


def test_a_point_from_the_end_of_an_epoch_is_drawn_at_the_bar_of_its_step(store, tmp_path):
    seed_market(store, stray=True)
    (sharpe,) = charts(report(store, tmp_path).read_text(), "sharpe over")
    assert sharpe["data"][0]["x"] == ["2018-01-03 11:00"]


def test_a_phase_with_too_few_captures_for_scores_is_named(store, tmp_path):
    seed_market(store, live=20)
    page = report(store, tmp_path).read_text()
    assert "The phase live cannot be judged: it has 20 of the 33 captures that scores need." in page


def test_the_metrics_of_a_backtest_stand_each_in_a_chart_of_its_own(store, tmp_path):
    seed_market(store)
    page = report(store, tmp_path).read_text()
    assert "<h2>Metrics</h2>" in page
    assert "losses fall" not in page
    for name in ("price", "position", "equity"):
        (chart,) = charts(page, f"{name} over")
        assert {line["line"]["color"] for line in chart["data"]} == {"#cc79a7", "#009e73"}


def numbers(axis):
    """The values of an axis as plotly reads them."""
    if isinstance(axis, list):
        return axis
    return np.frombuffer(base64.b64decode(axis["bdata"]), axis["dtype"]).tolist()


def seed_training(store, *, epochs=6, batches=10, metrics=None, val=None, params=None, config=None, **other):
    """A training as Keras logs it: within an epoch the mean so far, at its end that and the validation loss."""
    tags = {"run": "fit", "phase": "train"}
    about = {"framework": "keras/tensorflow", "model": "policy", "config": json.dumps(config or {"log_dir": None})}
    points = [Point("runs", tags, {"event": "started", "step": 0, **about}, START)]
    for step in range(1, epochs * batches + 1):
        at, epoch = START + step * SECOND, (step - 1) // batches
        place = {"step": step, "epoch": epoch}
        for layer in other.get("layers", ("lstm",)):
            stats = {"mean": 0.5, "p05": 0.4, "p95": 0.6, "nan_count": 0, **place}
            points.append(Point("gate_stats", {**tags, "layer": layer, "gate": "forget"}, stats, at))
        logged = {"loss": 1 / (1 + epoch) + 0.1 * (batches - 1 - (step - 1) % batches), **(metrics or {})}
        points.append(Point("train_metrics", tags, {**logged, **place}, at + 1))
        if step % batches == 0:
            held = {"val_loss": 0.4 if val is None else val[epoch]}
            points.append(Point("train_metrics", tags, {**logged, **held, **place}, at + 2))
        for param, fields in (params or {}).items():
            values = {name: value[step - 1] if isinstance(value, list) else value for name, value in fields.items()}
            place_of = {**tags, "layer": other.get("layer", "lstm"), "param": param}
            points.append(Point("layer_updates", place_of, {"nan_count": 0, **values, "step": step}, at))
    points.append(Point("runs", tags, {"event": "completed", "step": epochs * batches}, START + 100 * SECOND))
    store.write(points)


def test_losses_by_batch_are_drawn_faintly_behind_losses_by_epoch(store, tmp_path):
    seed_training(store)
    page = report(store, tmp_path).read_text()
    assert "<h2>Losses</h2>" in page
    assert "Keras gives the\n    mean of the epoch so far" in page
    (loss,) = charts(page, "loss over")
    batches, epochs, held_out = loss["data"]
    assert (batches["name"], epochs["name"], held_out["name"]) == ("loss, by batch", "loss, by epoch", "val_loss")
    assert batches["opacity"] < 0.5
    assert numbers(epochs["x"]) == [10, 20, 30, 40, 50, 60]
    assert numbers(epochs["y"]) == pytest.approx([1 / (1 + epoch) for epoch in range(6)])
    assert len(numbers(batches["x"])) == 60


def test_a_loop_that_logs_its_loss_by_batch_alone_has_one_line(store, tmp_path):
    seed(store)
    (loss,) = charts(report(store, tmp_path).read_text(), "loss over")
    assert [line["name"] for line in loss["data"]] == ["loss", "val_loss"]


def test_losses_of_a_like_size_share_a_chart_and_other_metrics_have_their_own(store, tmp_path):
    seed_training(store, metrics={"position_loss": 0.7, "value_loss": 900.0, "reward": 3.0})
    page = report(store, tmp_path).read_text()
    assert "<h2>Losses and metrics</h2>" in page
    captions = re.findall(
        r"<figcaption>(.*?)</figcaption>", page[page.index('id="metrics"') : page.index('id="scores"')]
    )
    assert captions == ["loss, position_loss", "value_loss", "reward"]


def test_learning_is_drawn_before_and_after_clipping_with_the_usual_ratio(store, tmp_path):
    clipped = {"gradient_norm": 2.0, "gradient_norm_clipped": 0.5, "update_ratio": 1e-3, "update_frequency": 1.0}
    seed_training(store, params={"bias": clipped, "recurrent": clipped, "kernel": clipped}, layer="dense")
    page = report(store, tmp_path).read_text()
    (norms,) = charts(page, "gradient norm of dense")
    assert norms["layout"]["yaxis"]["type"] == "log"
    assert [line["name"] for line in norms["data"]][::2] == ["kernel", "recurrent", "bias"]
    assert [numbers(line["y"])[0] for line in norms["data"]] == [2.0, 0.5] * 3
    (ratio,) = charts(page, "update ratio of dense")
    band = ratio["layout"]["shapes"][0]
    assert (band["y0"], band["y1"]) == (1e-4, 1e-2)
    assert "Every gradient of the kernel, recurrent and bias was clipped, at the median to 25 % of its norm." in page
    assert "Learning went wrong" not in page


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"nan_count": [0] * 30 + [3] * 30}, "Values that are not finite in the kernel, first at step 31."),
        ({"update_frequency": [1.0] * 50 + [0.0] * 10}, "The kernel did not move at all in the last 5 captures."),
        ({"gradient_norm": [1e-3] * 50 + [1e-9] * 10}, "The gradient of the kernel has vanished"),
        ({"gradient_norm": [1e-3] * 50 + [20.0] * 10}, "The gradient of the kernel has exploded, to 20,000 times"),
    ],
)
def test_a_problem_of_learning_is_a_sentence_in_its_section_and_at_the_top(store, tmp_path, fields, sentence):
    sound = {"gradient_norm": 1e-3, "update_frequency": 1.0, "update_ratio": 1e-3}
    seed_training(store, params={"kernel": {**sound, **fields}, "bias": sound})
    page = report(store, tmp_path).read_text()
    assert sentence in page[page.index('id="learning"') :]
    assert f"Learning went wrong in lstm: {sentence}" in page[: page.index("<dl")]


def test_sound_learning_is_not_commented_on_and_a_run_without_has_no_panel(store, tmp_path):
    seed_training(store, params={"kernel": {"gradient_norm": 1e-3, "update_frequency": 1.0, "update_ratio": 1e-3}})
    page = report(store, tmp_path).read_text()
    assert '<p class="note">' not in page[page.index('id="learning"') : page.index('id="heatmaps"')]
    seed(store, "without", start=START + 3600 * SECOND)
    assert '<section id="learning"></section>' in report(store, tmp_path).read_text()


def test_a_long_training_is_thinned_in_every_chart(store, tmp_path):
    sound = {"gradient_norm": 1e-3, "gradient_norm_clipped": 1e-4, "update_frequency": 1.0, "update_ratio": 1e-3}
    seed_training(store, epochs=50, batches=30, params={"kernel": sound})
    page = report(store, tmp_path).read_text()
    assert max(len(numbers(line["x"])) for figure in figures(page) for line in figure["data"] if "x" in line) == 400


def test_layers_stand_in_the_order_of_the_network(store, tmp_path):
    layers = ("b_first", "c_second", "a_third")
    listed = {name: {"type": "LSTM"} for name in layers[:2]}
    seed_training(store, layers=("a_third", "b_first", "c_second"), config={"layers": listed, "log_dir": None})
    page = report(store, tmp_path).read_text()
    assert re.findall(r'<td class="layer">(.*?)</td>', page) == list(layers)
    assert re.findall(r"<summary>(.*?)</summary>", page[page.index('id="ranges"') :])[:3] == list(layers)


def test_a_failed_run_shows_its_error(store, tmp_path):
    seed(store)
    failed = {"event": "failed", "error": "ValueError: loss is <nan>", "step": 400}
    store.write([Point("runs", {"run": "goog-1", "phase": "train"}, failed, START + 60 * SECOND)])
    page = report(store, tmp_path).read_text()
    assert facts(page)["State"] == "failed"
    assert "The run failed: ValueError: loss is &lt;nan&gt;" in page


def test_a_run_that_was_not_heard_of_for_long_has_died(store, tmp_path):
    now = int(datetime.now(UTC).timestamp()) * SECOND
    for run, silent in (("dead", 3600), ("alive", 1)):
        event = {"event": "heartbeat", "step": 7}
        store.write([Point("runs", {"run": run, "phase": "train"}, event, now - silent * SECOND)])
    dead, alive = (report(store, tmp_path, run).read_text() for run in ("dead", "alive"))
    assert facts(dead)["State"] == "died, or cut off from the store"
    assert "The run has sent nothing since" in dead
    assert facts(alive)["State"] == "running when this was written"
    assert "The run has sent nothing" not in alive


def test_epoch_files_of_each_phase_are_found_and_shown_apart(store, tmp_path):
    seed(store, phases=("train", "validation"), log_dir=tmp_path)
    (tmp_path / "validation").mkdir()
    (tmp_path / path_name("goog-1") / "live").mkdir(parents=True)
    save_epoch(tmp_path, 0, "goog-1")
    save_epoch(tmp_path / "validation", 0, "goog-1", phase="validation")
    save_epoch(tmp_path / "validation", 1, "goog-1", phase="validation")
    save_epoch(tmp_path / path_name("goog-1") / "live", 4, "goog-1", phase="live")
    page = report(store, tmp_path).read_text()
    labels = [[step["label"] for step in heatmap["layout"]["sliders"][0]["steps"]] for heatmap in heatmaps(page)]
    assert sorted(labels) == [["epoch 0"], ["epoch 0", "epoch 1"], ["epoch 4"]]
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", page[page.index('id="heatmaps"') :])
    assert [re.findall(r'">(\w+)</span>', caption) for caption in captions] == [["train"], ["validation"], ["live"]]


def test_the_notes_explain_how_to_get_epoch_files(store, tmp_path):
    seed(store, log_dir=tmp_path)
    assert "a loop of your own does so when it calls end_epoch()" in report(store, tmp_path).read_text()
    seed_market(store)
    assert "since the run has log_dir=None" in report(store, tmp_path, "bt").read_text()


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


def test_no_control_character_of_a_store_reaches_the_page(store, tmp_path):
    odd = "a\x1b[31m\x07\x9b\u202e\u2066\ufeff\ud800\0z"  # JSON holds what a store does not
    config = {odd: odd, "layers": {odd: {}, "lstm": {}}, "log_dir": f"/tmp/{odd}", "summary": f"one\n\ttwo {odd}"}
    seed(store, "r", captures=40, config={**config, "versions": {odd: odd}, "kept": "é\u00a0👩\u200d👧"})
    text = re.sub(r"<script.*?</script>", "", report(store, tmp_path).read_text(), flags=re.S)
    assert {c for c in text if not c.isprintable()} <= {"\n", "\t", "\u00a0", "\u200d"}
    assert r"a\x1b[31m\x07\x9b\u202e\u2066\ufeff\ud800\x00z" in text
    assert "one\n\ttwo" in text
    assert "é\u00a0👩\u200d👧" in text


def test_a_device_or_a_pipe_is_not_replaced_by_a_report(store, tmp_path):
    seed(store, "r", captures=2)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="pipe is a device or a pipe, which the report would replace"):
        write_report(store, output=tmp_path / "pipe")
    assert (tmp_path / "pipe").is_fifo()


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


def test_progress_is_reported_line_by_line(store, tmp_path):
    seed(store, captures=2)
    lines = []
    write_report(store, None, tmp_path / "r.html", progress=lines.append)
    assert lines[0] == "reading run goog-1"
    assert lines[-1].startswith("writing ")


def shown_frame(page):
    return page.locator(".heatmap .js-plotly-plot").first.evaluate("plot => plot._fullLayout.sliders[0].active")


def to_heatmap(page):
    page.locator("#heatmaps").scroll_into_view_if_needed()
    page.locator(".heatmap .js-plotly-plot").first.wait_for(timeout=30_000)
    page.locator(".heatmap .js-plotly-plot").first.scroll_into_view_if_needed()


def button(page, label):
    return page.locator(".heatmap .updatemenu-button", has_text=label).first


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    store = open_store(f"sqlite:///{folder}/gatewatch.db")
    seed(
        store,
        HOSTILE_RUN,
        (HOSTILE_LAYER, "%{x}<b>&amp;"),
        log_dir=folder,
        config={
            "<img src=x onerror=alert(3)>": "</script><script>alert(4)</script>",
            "layers": {HOSTILE_LAYER: {}, "%{x}<b>&amp;": {}},
        },
    )
    hostile_tags = {"run": HOSTILE_RUN, "phase": "train", "layer": HOSTILE_LAYER, "param": "<b>kernel</b>"}
    moved = {"gradient_norm": 1e-9, "update_frequency": 0.0, "nan_count": 1, "step": 1}
    store.write([Point("layer_updates", hostile_tags, moved, START + i) for i in range(9)])
    failed = {"event": "failed", "error": "ValueError: <img src=x onerror=alert(5)>", "step": 1}
    store.write([Point("runs", {"run": HOSTILE_RUN, "phase": "train"}, failed, START + 999 * SECOND)])
    for epoch in range(24):
        save_epoch(folder, epoch, HOSTILE_RUN, HOSTILE_LAYER)
    written = report(store, folder)
    store.close()
    return written


def test_a_browser_draws_every_chart_without_a_request_or_a_complaint(hostile, visit):
    page = visit.open(hostile)
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    visit.until("document.querySelectorAll('.plot:not(.js-plotly-plot)').length === 0")
    visit.until("[...document.querySelectorAll('.heatmap image')].some(i => i.href.baseVal.length > 99)")
    assert page.locator(".plot").count() > 10
    assert visit.requests == []
    assert visit.complaints == []


# Zoom, pan and save a picture: what a chart offers, and nothing that leads off the page.
BUTTONS = {"Download plot as a PNG", "Zoom", "Pan", "Zoom in", "Zoom out", "Reset axes"}
LEADS_AWAY = "a[href], a[*|href], area[href], form, iframe, [formaction]"


def modebar_titles(page):
    bars = page.locator(".js-plotly-plot .modebar").all()
    return [bar.locator(".modebar-btn").evaluate_all("b => b.map(e => e.dataset.title)") for bar in bars]


def addresses_off_the_page(page):
    links = page.locator(LEADS_AWAY).evaluate_all("all => all.map(e => e.getAttribute('href') ?? e.outerHTML)")
    return [link for link in links if not link.startswith("#")]


def test_no_chart_of_the_report_offers_to_leave_the_page(hostile, visit):
    page = draw_all(visit, hostile)
    titles = modebar_titles(page)
    assert len(titles) == page.locator(".plot").count() > 10
    for bar in titles:
        assert set(bar) == BUTTONS
        assert len(bar) == len(BUTTONS)
    assert addresses_off_the_page(page) == []
    for name in ("Zoom in", "Zoom out", "Pan", "Zoom", "Reset axes"):
        page.locator(f'.modebar-btn[data-title="{name}"]').first.dispatch_event("click")
    assert addresses_off_the_page(page) == []
    assert len(page.context.pages) == 1
    assert visit.requests == []
    assert visit.complaints == []


def test_a_heatmap_of_its_own_does_not_offer_to_upload_itself(visit, tmp_path):
    from gatewatch.jobs.report.heatmap import render_gate_heatmap

    path = tmp_path / "figure.html"
    render_gate_heatmap({"forget": np.ones((3, 2))}, "lstm").write_html(path, include_plotlyjs=True)
    page = visit.open(path)
    [titles] = modebar_titles(page)
    assert titles[0] == "Download plot as a PNG"
    assert not [title for title in titles if "share" in title.lower() or "cloud" in title.lower()]
    assert visit.requests == []


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
    assert page.locator(".bad").inner_text() == "The run failed: ValueError: <img src=x onerror=alert(5)>"
    assert "not finite in the <b>kernel</b>" in page.locator("#learning .note").inner_text()
    assert page.locator("body > script").count() == 2
    assert visit.complaints == []


def test_a_heatmap_of_its_own_shows_a_hostile_name_as_text(visit, tmp_path):
    from gatewatch.jobs.report.heatmap import render_gate_heatmap

    for name in (HOSTILE_LAYER, "<b>bold</b>", "&amp;", "%{x}"):
        path = tmp_path / "figure.html"
        frames = {name: {"forget": np.ones((3, 2))}, "next": {"forget": np.zeros((3, 2))}}
        render_gate_heatmap(frames, name).write_html(path, include_plotlyjs=True)
        page = visit.open(path)
        assert page.locator(".gtitle").text_content() == f"{name} · activation"
        page.wait_for_function(  # Plotly draws the labels after the title, in an order of its own
            "text => [...document.querySelectorAll('.slider-label')]"
            ".some(label => [...label.textContent].slice(0, 20).join('') === text)",
            arg=name[:20],
        )
    assert visit.complaints == []


def test_a_phone_sees_no_sideways_scrolling(hostile, visit):
    visit.page.set_viewport_size({"width": 390, "height": 800})
    page = visit.open(hostile)
    to_heatmap(page)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert page.locator(".heatmap .js-plotly-plot").first.bounding_box()["height"] > 1000
    assert visit.complaints == []


def draw_all(visit, path, size=(1280, 900)):
    visit.page.set_viewport_size({"width": size[0], "height": size[1]})
    page = visit.open(path)
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    visit.until("document.querySelectorAll('.plot:not(.js-plotly-plot)').length === 0")
    return page


def test_the_markets_time_is_shown_whatever_the_readers_time_zone(store, tmp_path, chromium):
    seed_market(store, step=DAY)
    context = chromium.new_context(
        viewport={"width": 1280, "height": 900}, offline=True, timezone_id="America/New_York"
    )
    visit = Visit(context)
    page = draw_all(visit, report(store, tmp_path))
    for section in ("metrics", "scores", "ranges", "heatmaps"):
        plot = page.locator(f"#{section} .js-plotly-plot").first
        kind, ticks = plot.evaluate("p => [p._fullLayout.xaxis.type, p.querySelector('.xaxislayer-above').textContent]")
        assert (kind, "2018" in ticks) == ("date", True), section
    plot = page.locator("#ranges .js-plotly-plot").first
    left, first = plot.evaluate("p => [p._fullLayout.xaxis._length, p._fullLayout.xaxis.d2p(p._fullData[2].x[0])]")
    assert plot.evaluate("p => p._fullData[2].x[0]") == "2018-01-01"
    assert 0 <= first < left / 50
    assert visit.complaints == []
    context.close()


def test_phases_with_steps_stand_side_by_side_over_the_same_steps(store, tmp_path, visit):
    seed(store, phases=("train", "validation"))
    page = draw_all(visit, report(store, tmp_path))
    train, validation = page.locator("#scores figure").all()
    left, right = train.bounding_box(), validation.bounding_box()
    assert left["y"] == right["y"]
    assert left["x"] + left["width"] <= right["x"]
    ranges = [
        plot.locator(".js-plotly-plot").evaluate("p => p._fullLayout.xaxis.range") for plot in (train, validation)
    ]
    assert ranges == [[0, 390]] * 2
    colours = "p => p._fullData.filter(t => t.name === 'train' || t.name === 'validation').map(t => t.line.color)"
    assert page.locator("#ranges .js-plotly-plot").first.evaluate(colours) == ["#0072b2", "#d55e00"]
    dots = page.locator("#scores .chip").evaluate_all(
        "chips => chips.map(c => getComputedStyle(c, '::before').backgroundColor)"
    )
    assert dots == ["rgb(0, 114, 178)", "rgb(213, 94, 0)"]
    assert visit.complaints == []


def test_the_usual_ratio_is_a_band_on_the_logarithmic_axis(store, tmp_path, visit):
    sound = {"gradient_norm": 1e-3, "update_frequency": 1.0, "update_ratio": 1e-5}
    seed_training(store, params={"kernel": sound})
    page = draw_all(visit, report(store, tmp_path))
    plot = page.locator("#learning .js-plotly-plot").nth(1)
    band = plot.locator(".shapelayer path").bounding_box()
    axis = "p => [1e-4, 1e-2].map(v => p._fullLayout.yaxis._offset + p._fullLayout.yaxis.c2p(v))"
    low, high = plot.evaluate(axis)
    top = plot.bounding_box()["y"]
    assert band["y"] - top == pytest.approx(high, abs=2)
    assert band["y"] + band["height"] - top == pytest.approx(low, abs=2)
    assert visit.complaints == []


@pytest.mark.parametrize("width", [1280, 390])
def test_the_facts_and_every_section_fit_the_page(store, tmp_path, visit, width):
    versions = {"python": "3.11.7", "keras": "3.15.1", "tensorflow-cpu": "2.21.0", "torch": "2.15.0", "numpy": "2.4.6"}
    summary = "\n".join("│ " + "─" * 96 for _ in range(4))
    seed(store, phases=("train", "validation"), config={"versions": versions, "summary": summary})
    seed_market(store, "goog-1")
    page = draw_all(visit, report(store, tmp_path), (width, 900))
    assert page.evaluate("document.documentElement.scrollWidth") == width
    libraries = page.locator(".facts div", has_text="Libraries").bounding_box()
    assert libraries["width"] > 0.85 * width
    if width == 1280:
        lines = page.locator(".facts div", has_text="Libraries").locator("dd").bounding_box()["height"]
        assert lines < 30
    for name in ("figure", ".facts div", "table", ".note", "summary", ".config div"):
        for box in filter(None, (part.bounding_box() for part in page.locator(name).all())):
            assert name == "table" or box["x"] + box["width"] <= width, name
    clipped = "plots => plots.filter(p => p.querySelector('.main-svg').clientWidth > p.clientWidth + 1).length"
    assert page.locator(".js-plotly-plot").evaluate_all(clipped) == 0
    assert visit.complaints == []


def test_a_metric_that_is_larger_than_single_precision_is_drawn_without_a_warning():
    drawn = points(np.arange(3), np.array([1.0, 1e308, np.nan]))["y"]
    np.testing.assert_array_equal(drawn, [1.0, 1e308, np.nan])


@pytest.mark.parametrize("width", [1280, 390])
def test_the_buttons_of_a_chart_cover_no_legend(hostile, visit, width):
    page = draw_all(visit, hostile, (width, 900))
    covered = """plots => plots.filter(plot => {
        const [legend, ...others] = [".legend", ".modebar", ".xtitle"].map(name => plot.querySelector(name));
        const box = element => element.getBoundingClientRect();
        return legend && others.filter(Boolean).some(other => box(other).bottom > box(legend).top + 1);
    }).length"""
    assert page.locator(".js-plotly-plot .legend").count() > 3
    assert page.locator(".js-plotly-plot").evaluate_all(covered) == 0
