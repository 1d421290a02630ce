"""What a rule about silence compares, as Flux: how long nothing came, from a run, a job or the store."""

from __future__ import annotations

from typing import Final

from gatewatch.collector.schema import COLLECTOR_HEALTH, GATE_SCORES, GATE_STATS, HEARTBEAT_SECONDS, JOBS_HEALTH, RUNS
from gatewatch.jobs.alerts.rule import JOB, RUN, Rule
from gatewatch.jobs.alerts.service_rules import JOBS_SECONDS, UNSCORED_SECONDS
from gatewatch.jobs.findings.run_state import DIED_SECONDS
from gatewatch.jobs.queries.flux_values import literal
from gatewatch.jobs.scoring.residuals import WARM_UP
from grafana.source.flux import points, texts
from grafana.source.rules_flux import NOW, SINCE, START, ago, beside, by, compared, field_of, part

GOING: Final = ("started", "heartbeat")
"""The events of a run that has not ended."""
TURN_SECONDS: Final = 60.0
"""A spacing of a job's turns below this counts as this."""
_AGE: Final = "\n  |> map(fn: (r) => ({r with _value: since(time: r._time)}))"


def run_silence(rule: Rule) -> str:
    """Compare the seconds since the last event of a run; 0 for a run that has ended."""
    going = " or ".join(f'r._value == "{event}"' for event in GOING)
    return f"""{SINCE}

{field_of(rule)}
  |> last()
  |> keep(columns: {texts(["_time", "_value", *RUN])}){_newest(RUN)}
  |> map(fn: (r) => ({{r with _value: if {going} then since(time: r._time) else 0.0}}))\
{compared(rule)}"""


def capture_silence(rule: Rule) -> str:
    """Compare the time since the last capture of a run that lives, in its usual spacings of captures."""
    usual = "if r.counted > r.begun then (r.began - r.captured) / (r.counted - r.begun) else 0.0"

    def one(fn: str) -> str:
        return f"""{field_of(rule)}
  |> {fn}()
  |> toFloat()
  |> group(columns: {texts(RUN)})
  |> sort(columns: ["_time"])"""

    return f"""{SINCE}

oldest = {one("first")}
  |> limit(n: 1)
newest = {one("last")}
  |> tail(n: 1)
highest = {one("max")}
  |> max()
begun = oldest{part("begun", RUN)}
began = oldest{_AGE}{part("began", RUN)}
heard = newest{_AGE}{part("heard", RUN)}
counted = highest{part("counted", RUN)}
captured = highest{_AGE}{part("captured", RUN)}
{beside(("begun", "began", "heard", "counted", "captured"), RUN)}
  |> filter(fn: (r) => exists r.heard and r.heard <= {literal(DIED_SECONDS)})
  |> map(fn: (r) => ({{r with usual: {usual}}}))\
{compared(rule, _spacings("r.captured", HEARTBEAT_SECONDS))}"""


def score_delay(rule: Rule) -> str:
    """Compare the time that the newest capture which is due has waited for its score, of a run that lives."""
    one = f"""
  |> last()
  |> toFloat()
  |> keep(columns: {texts(["_time", "_value", *RUN])}){_newest(RUN)}"""
    due = points(GATE_STATS, ("nan_count",), "r._value == 0", stop=ago(int(UNSCORED_SECONDS)))
    return f"""import "date"

{SINCE}

due = {due}{one}{_AGE}{part("due", RUN)}
scored = {points(GATE_SCORES, (rule.quantity.field,), 'r.detector == "consensus"')}{one}{_AGE}{part("scored", RUN)}
newest = {points(COLLECTOR_HEALTH, ("captured",))}{one}
captured = newest{part("captured", RUN)}
heard = newest{_AGE}{part("heard", RUN)}
{beside(("due", "scored", "captured", "heard"), RUN)}
  |> filter(fn: (r) => exists r.due and r.heard <= {literal(DIED_SECONDS)} and r.captured > {literal(float(WARM_UP))})\
{compared(rule, "if exists r.scored and r.scored <= r.due then 0.0 else r.due")}"""


def turn_silence(rule: Rule) -> str:
    """Compare the time since a job that still reports has ended a turn, in the usual spacings of its ends."""
    usual = "if r.turns > 0.0 then (r.began - r.ended) / r.turns else 0.0"
    return f"""{SINCE}

reports = {field_of(rule)}
  |> toFloat(){by(JOB)}
  |> sort(columns: ["_time"])
oldest = reports
  |> limit(n: 1)
ends = union(tables: [oldest, reports
  |> difference()
  |> filter(fn: (r) => r._value != 0.0)])
  |> sort(columns: ["_time"])
began = oldest{_AGE}{part("began", JOB)}
heard = reports
  |> tail(n: 1){_AGE}{part("heard", JOB)}
ended = ends
  |> tail(n: 1){_AGE}{part("ended", JOB)}
turns = ends
  |> count()
  |> map(fn: (r) => ({{r with _value: float(v: r._value) - 1.0}})){part("turns", JOB)}
{beside(("began", "heard", "ended", "turns"), JOB)}
  |> filter(fn: (r) => exists r.heard and r.heard <= {literal(JOBS_SECONDS)})
  |> map(fn: (r) => ({{r with usual: {usual}}}))\
{compared(rule, _spacings("r.ended", TURN_SECONDS))}"""


def jobs_silence(rule: Rule) -> str:
    """Compare the seconds since the last report of any job."""
    return f"""{SINCE}

{field_of(rule)}
  |> last()
  |> keep(columns: ["_time"]){_newest(())}{compared(rule, "since(time: r._time)")}"""


def write_silence(rule: Rule) -> str:
    """Compare the seconds since anything was written of runs or jobs; without any point, all that are read."""
    newest = [
        f"""{points(measurement, (field,))}
  |> last()
  |> keep(columns: ["_time"])
  |> group()"""
        for measurement, field in ((RUNS, "event"), (COLLECTOR_HEALTH, "captured"), (JOBS_HEALTH, "duration_s"))
    ]
    return _since_the_newest(rule, START, *newest)


def store_silence(rule: Rule) -> str:
    """Compare the seconds without an answer: 0 as soon as the store answers. Where it does not, the query fails."""
    return _since_the_newest(
        rule, NOW, f'{field_of(rule)}\n  |> limit(n: 1)\n  |> keep(columns: ["_time"])\n  |> group()'
    )


def _since_the_newest(rule: Rule, otherwise: str, *rows: str) -> str:
    return f"""import "array"

{SINCE}

union(tables: [{", ".join([f"array.from(rows: [{{_time: {otherwise}}}])", *rows])}]){_newest(())}\
{compared(rule, "since(time: r._time)")}"""


def _newest(labels: tuple[str, ...]) -> str:
    return f"""
  |> group(columns: {texts(labels)})
  |> sort(columns: ["_time"])
  |> tail(n: 1)"""


def _spacings(seconds: str, least: float) -> str:
    """Return so many seconds in usual spacings, `r.usual`, each of which counts as `least` seconds at least."""
    return f"{seconds} / (if r.usual > {literal(least)} then r.usual else {literal(least)})"
