"""A store of one's own that keeps the points as they are."""

from __future__ import annotations

from gatewatch.collector.schema import GATE_STATS, LAYER_UPDATES, RECURRENT_STATE


class Kept:
    """A store of one's own: a list."""

    url = "kept://"

    def __init__(self):
        self.points = []

    def check(self):
        pass

    def read(self, *_, **__):
        return []

    def write(self, points):
        self.points += points

    def captures(self):
        """The steps at which the gates were looked at."""
        return {point.fields["step"] for point in self.points if point.measurement == GATE_STATS}

    def updates(self):
        """Step of the capture → parameter → fields."""
        found = {}
        for point in self.points:
            if point.measurement == LAYER_UPDATES:
                fields = dict(point.fields)
                found.setdefault(fields.pop("step"), {})[point.tags["layer"], point.tags["param"]] = fields
        return found

    def states(self):
        """Step of the capture → layer → fields of its recurrent state."""
        found = {}
        for point in self.points:
            if point.measurement == RECURRENT_STATE:
                fields = dict(point.fields)
                found.setdefault(fields.pop("step"), {})[point.tags["layer"]] = fields
        return found
