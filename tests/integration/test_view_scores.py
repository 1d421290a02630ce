"""The page scores what it shows, unless somebody else does."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from gatewatch.collector.schema import Point
from gatewatch.collector.store import open_store
from gatewatch.jobs.scoring.scoring_pass import run_pass
from gatewatch.jobs.view.scorer import LOCK, Scorer, Settings
from tests.recorded import end, fill, recorded, shut

SECOND = 10**9


@pytest.fixture
def store(tmp_path):
    store = open_store(f"sqlite:///{tmp_path}/gatewatch.db")
    yield store
    store.close()


def scorer(store, tmp_path, **options):
    return Scorer(open_store(store.url), Settings(tmp_path / "state", 2000, 0.05), **options)


def scores(store):
    return store.read("gate_scores", prefix_tags=True)


def jobs_health(store, at):
    fields = {
        "duration_s": 0.1,
        "lag_s": 0.0,
        "windows": 0,
        "rows_read": 0,
        "points_written": 0,
        "failures": 0,
        "missed": 0,
    }
    store.write([Point("jobs_health", {"job": "score"}, fields, int(at.timestamp()) * SECOND)])


def test_it_writes_the_scores_of_the_jobs(store, tmp_path):
    other = open_store(f"sqlite:///{tmp_path}/other.db")
    for each in (store, other):
        fill(each, recorded(48, change=shut(40)))
        end(each)
    run_pass(other)
    own = scorer(store, tmp_path)
    own.turn()
    assert own.status() == "This page scores the store."
    assert len(scores(store))
    assert scores(store).equals(scores(other))
    fill(store, recorded(4, first=48, change=shut(40)))
    own.turn()
    assert scores(store)["step"].max() == 51
    own.close()
    other.close()


def test_what_is_quiet_is_not_looked_at_again(store, tmp_path, monkeypatch):
    fill(store, recorded(34))
    own = scorer(store, tmp_path)
    passes = []
    counted = Scorer._pass
    monkeypatch.setattr(Scorer, "_pass", lambda self: passes.append(1) or counted(self))
    for _ in range(6):
        own.turn()
    assert scores(store)["step"].max() == 33  # of a run that has not ended: in the second pass that finds it unchanged
    at_rest = len(passes)
    own.turn()
    assert len(passes) == at_rest < 6
    fill(store, recorded(1, first=34))
    own.turn()
    assert len(passes) == at_rest + 1
    own.close()


def test_two_pages_of_one_machine_do_the_work_once(store, tmp_path):
    fill(store, recorded(33))
    first, second = scorer(store, tmp_path), scorer(store, tmp_path)
    first.turn()
    second.turn()
    assert second.status() == "Another gatewatch view on this machine scores this store."
    first.close()
    second.turn()
    assert second.status() == "This page scores the store."
    second.close()
    assert (tmp_path / "state" / LOCK).exists()


def test_it_leaves_a_store_to_the_service_and_takes_over_when_that_has_ended(store, tmp_path):
    fill(store, recorded(34))
    end(store)
    now = datetime(2026, 5, 1, 12, tzinfo=UTC)
    jobs_health(store, now)
    time = [now]
    own = scorer(store, tmp_path, now=lambda: time[0])
    own.turn()
    assert own.status() == "gatewatch jobs scores this store."
    assert scores(store).empty
    time[0] += timedelta(seconds=121)
    own.turn()
    assert own.status() == "This page scores the store."
    assert not scores(store).empty
    own.close()


def test_what_is_wrong_is_said_and_tried_again(store, tmp_path):
    own = scorer(store, tmp_path)
    own.turn()
    assert own.status() == "Scores begin with the first run."
    store.path.write_bytes(b"no database" * 500)
    own.turn()
    assert own.status().startswith("The scores wait: ")
    assert "not a sound SQLite file" in own.status()
    store.path.unlink()
    fill(store, recorded(33))
    (tmp_path / "state").write_text("in the way")
    own.turn()
    assert "the state folder" in own.status()
    (tmp_path / "state").unlink()
    own.turn()
    assert own.status() == "This page scores the store."
    own.close()


def test_a_thread_scores_until_it_is_closed(store, tmp_path):
    fill(store, recorded(34))
    end(store)
    own = scorer(store, tmp_path, interval=0.01)
    own.start()
    deadline = datetime.now(UTC) + timedelta(seconds=30)
    while scores(store).empty and datetime.now(UTC) < deadline:
        pass
    own.close()
    assert not own._thread.is_alive()
    assert scores(store)["step"].max() == 33
