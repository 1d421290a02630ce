"""The parts of a copy: batches, comparisons, retries, and the problems that are named at the end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewatch.collector.errors import ConfigError, WriteUnavailable
from gatewatch.collector.schema import Point
from gatewatch.collector.store.sqlite.store import SqliteStore
from gatewatch.jobs.copying.batches import LISTS, batches, matching
from gatewatch.jobs.copying.counts import Copied, problems
from gatewatch.jobs.copying.plan import CopyScope, Part, parts
from gatewatch.jobs.retry import Retry


def point(time, series="a", **fields):
    return Point("m", {"run": "r", "gate": series}, fields or {"f": float(time)}, time)


class TestBatches:
    @given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 7)), max_size=30), st.integers(1, 12))
    def test_they_hold_every_point_in_pieces_of_one_series_each(self, sizes, size):
        by_series = sorted(sizes, key=lambda each: each[0])
        lists = [[point(i, series) for i in range(count)] for series, count in by_series]
        found = list(batches(lists, size))
        pieces = [piece for batch in found for piece in batch]
        assert [p for piece in pieces for p in piece.points] == [p for each in lists for p in each]
        assert all(sum(len(piece.points) for piece in batch) <= max(size, 7) for batch in found)
        assert all(len({piece.series for piece in batch}) == len(batch) for batch in found)
        for piece in pieces:
            assert {p.tags["gate"] for p in piece.points} == {dict(piece.series)["gate"]}
            assert piece.whole == ([each.series for each in pieces].count(piece.series) == 1)

    def test_what_is_large_is_not_put_together(self):
        found = list(batches([[point(i)] for i in range(3 * LISTS)], 10**6))
        assert [[len(piece.points) for piece in batch] for batch in found] == [[LISTS]] * 3

    def test_they_know_their_times_and_counts(self):
        ((piece,),) = batches([[point(3, f=1.0), point(5, f=1.0, g="x")]])
        assert (piece.first, piece.stop, piece.counts) == (3, 6, {"f": 2, "g": 1})


class TestMatching:
    def test_values_are_found_by_time_and_field(self):
        read = [point(1, f=1.0, g=2.0), point(2, f=1.0), point(4, f=1.0)]
        there = [point(0, f=1.0), point(1, f=9.0), point(2, h=1.0), point(3, f=1.0), point(4, f=1.0, g=1.0)]
        assert matching(read, there, by_value=False) == 2
        assert matching(read, read, by_value=False) == 4
        assert matching(read, [], by_value=False) == 0
        assert matching([], there, by_value=False) == 0

    def test_values_may_have_to_be_alike(self):
        read, there = [point(1, f=1.0, g=1.0)], [point(1, f=1.0, g=2.0)]
        assert matching(read, there, by_value=True) == 1


class TestPlan:
    @pytest.fixture
    def history(self, tmp_path):
        store = SqliteStore(tmp_path / "points.db")
        for measurement, run in (("a", "r1"), ("b", "r1"), ("a", "r0"), ("b", ""), ("c", "r1")):
            store.write([Point(measurement, {"run": run}, {"f": 1.0}, 1)])
        history = store.history()
        yield history
        history.close()

    def test_runs_are_whole_early_and_what_has_no_run_is_last(self, history):
        assert parts(history, CopyScope()) == [("a", "r0"), ("a", "r1"), ("b", "r1"), ("c", "r1"), ("b", "")]

    def test_only_what_is_named_is_copied(self, history):
        assert parts(history, CopyScope(runs=["r1"], measurements=["a", "b"])) == [("a", "r1"), ("b", "r1")]
        assert parts(history, CopyScope(measurements=["b"])) == [Part("b", "r1"), Part("b", "")]

    @pytest.mark.parametrize("selection", [CopyScope(runs=["r2"]), CopyScope(measurements=["d"])])
    def test_what_is_named_and_not_there_is_told(self, history, selection):
        with pytest.raises(ConfigError, match=r"--(run 'r2'|measurement 'd'): the source has no points of it"):
            parts(history, selection)


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        self.now += 1.0
        return self.now


class TestRetry:
    def test_a_store_is_asked_again_until_it_answers(self):
        answers = [WriteUnavailable("away", 0.0), WriteUnavailable("away", 0.0), None]
        told = []

        def ask():
            if (answer := answers.pop(0)) is not None:
                raise answer
            return "done"

        assert Retry(60, told.append)(ask) == "done"
        assert told == ["away", "away"]

    def test_not_for_ever(self):
        asked = []

        def ask():
            asked.append(1)
            raise WriteUnavailable("away", 0.0)

        with pytest.raises(WriteUnavailable, match="away"):
            Retry(10, clock=Clock())(ask)
        assert len(asked) == 11

    @pytest.mark.parametrize("error", [WriteUnavailable("mend it", slow=True), WriteUnavailable("later", 3600.0)])
    def test_nor_where_it_would_not_help(self, error):
        asked = []

        def ask():
            asked.append(1)
            raise error

        with pytest.raises(WriteUnavailable):
            Retry(60)(ask)
        assert len(asked) == 1

    def test_nor_when_all_is_over(self):
        retry = Retry(60)
        retry.end()

        def ask():
            raise WriteUnavailable("away", 30.0)

        with pytest.raises(WriteUnavailable):
            retry(ask)


class TestProblems:
    def test_there_are_none_where_all_counts_agree(self):
        assert list(problems([Copied("m", points=2, values=4, found=4), Copied("n")])) == []

    def test_nor_where_nothing_was_to_be_written(self):
        assert list(problems([Copied("m", points=2, written=2, values=4, found=None)])) == []

    def test_what_was_refused_is_told_with_the_reason_that_was_most_frequent(self):
        copied = [
            Copied("m", refused=3, values=9, found=1, reasons={"m: field 'f' is int, already exists as float": 3}),
            Copied("n", refused=1, values=9, found=8, reasons={"points beyond retention policy": 1}),
        ]
        (told,) = problems(copied)
        assert told.startswith("4 points of m, n refused: m: field 'f' is int, already exists as float; ")
        assert "another type" in told
        (told,) = problems(copied[1:])
        assert "--since" in told
        assert "retention" in told

    def test_what_is_lacking_is_told_with_its_counts(self):
        (told,) = problems([Copied("m", values=9_000, found=8_999), Copied("n", values=1, found=1)])
        assert "m (8,999 of 9,000 values)" in told
        assert "n (" not in told
        assert "--again" in told
