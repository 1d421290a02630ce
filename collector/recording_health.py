"""How the recording of a run goes: the fields of `collector_health`, and what is said of a run that lacks something."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from gatewatch.collector.capture_schedule import CaptureSchedule
from gatewatch.collector.schema import FieldValue
from gatewatch.collector.spool.shipper import Shipper
from gatewatch.collector.text import safe_repr

_LOOKS: Final = ("the first capture", "a capture")
"""What is guarded when a model is looked at."""
WITHOUT_FEED: Final = (
    "without what was fed: the watched module itself was never seen called in training, but maybe a part or a method"
    " of it, or a compiled copy; give batches with step(batch=...)"
)
"""What is said of a run that ends without the feed, after `run 'name' ends`."""
_LONGEST: Final = 4096


def health_fields(
    shipper: Shipper,
    schedule: CaptureSchedule,
    *,
    captured: int,
    steps_between: int,
    failures: int,
    moved_times: int,
    replay_error: float | None,
    unreplayed: Mapping[str, str],
) -> dict[str, FieldValue]:
    """Return the fields of a `collector_health` point.

    Args:
        shipper: sends the points of the run.
        schedule: of its captures.
        captured: so many captures were made.
        steps_between: so many steps lie between the latest two; recorded where the schedule is "auto".
        failures: so many times something went wrong.
        moved_times: so many steps have points at another time than their market time.
        replay_error: the largest difference between a replay and the layer's own output; None where it is not known.
        unreplayed: layer → why it is not recorded.
    """
    fields: dict[str, FieldValue] = {
        "captured": captured,
        "shipped": shipper.delivery.shipped,
        "spooled_bytes": shipper.spool.waiting_bytes,
        "rejected": shipper.delivery.rejected,
        "dropped": shipper.spool.dropped,
        "failures": failures,
        "capture_ms": schedule.capture_seconds * 1e3,
        "every": steps_between if schedule.every == "auto" else schedule.every,
        "unreplayed_layers": len(unreplayed),
    }
    if schedule.overhead_ratio is not None:
        fields["overhead_ratio"] = schedule.overhead_ratio
    if moved_times:
        fields["moved_times"] = moved_times
    if replay_error is not None:
        fields["replay_error"] = replay_error
    if unreplayed:
        fields["unreplayed"] = "; ".join(f"{path}: {reason}" for path, reason in unreplayed.items())[:_LONGEST]
    return fields


def why_without_capture(problems: Mapping[str, str], steps: int, every: object) -> str:
    """Return what is said of a run that ends without a capture, after `run 'name' ends`.

    Args:
        problems: activity that was guarded → what went wrong in it.
        steps: so many the run has made.
        every: as the schedule was given it.
    """
    failed = [problems[activity] for activity in _LOOKS if activity in problems]
    if failed:
        return f"without a capture: each look failed: {failed[0]}"
    if not steps:
        return "without a capture: the training ended before its first step, or nothing called step()"
    return f"without a capture: none of its {steps} steps was due, with every={safe_repr(every)}"
