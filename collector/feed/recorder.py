"""Which batch is looked at, and the points that it becomes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Final, Protocol

import numpy as np

from gatewatch.collector.arrays import Array
from gatewatch.collector.errors import ConfigError
from gatewatch.collector.feed.groups import GroupDistances, group_points, read_labels
from gatewatch.collector.feed.leaves import iter_leaves
from gatewatch.collector.feed.measures import measure_feed
from gatewatch.collector.feed.reservoir import FeedReservoir
from gatewatch.collector.feed.sample import Reading, read_feed
from gatewatch.collector.schema import FEED_FEATURES, FEED_STATS, MAX_PROFILE, FieldValue, Point
from gatewatch.collector.statistics import profile
from gatewatch.collector.text import shorten_middle

GRADIENT_SHARE: Final = "gradient_share"
_LONGEST_NAME: Final = 64


def field_names(feature_names: Sequence[str]) -> list[str]:
    """Return what f000, f001, ... of `feed_features` are called: features, or the ends of a group of neighbours."""
    names = [shorten_middle(name, _LONGEST_NAME) for name in feature_names]
    if len(names) <= MAX_PROFILE:
        return names
    ends = [number * len(names) // MAX_PROFILE for number in range(MAX_PROFILE + 1)]
    groups = [names[begin:end] for begin, end in pairwise(ends)]
    return [group[0] if len(group) == 1 else f"{group[0]} … {group[-1]}" for group in groups]


class FeedSource(Protocol):
    """What shows the batches of a training to a `FeedRecorder`, where nobody hands them over."""

    def watch(self) -> None:
        """Show the next batch to `FeedRecorder.see`."""

    def release(self) -> None:
        """Show no more, and leave nothing behind."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """A batch as it was read.

    Attributes:
        reading: of its arrays.
        layer: the recurrent layer that is given it as it is; empty where there is none or that is not known.
        time_major: whether the first dimension of its sequences is time.
        groups: the label of each sequence of the sample; empty where there are none.
    """

    reading: Reading
    layer: str = ""
    time_major: bool = False
    groups: tuple[str, ...] = ()

    def is_of(self, inputs: Any) -> bool:
        """Return whether inputs are this batch, value for value as far as it is looked at."""
        other = read_feed(inputs, time_major=self.time_major)
        if self.reading.sample is None or other.sample is None or self.reading.features != other.features:
            return False
        return self.reading.sample.has_inputs_of(other.sample)


class FeedRecorder:
    """Holds the batch of the step that is recorded with a capture, until the capture.

    That is the step whose update is recorded: see `UpdateRecorder`. Where no update is, as in a backtest, it is the
    step of the capture. A batch is looked at in every step that may become this one; those of other steps are dropped.

    An adapter asks `is_wanted` and calls `see`. In one step the first batch counts: what a model is called with again
    (critic after actor, a second pass over the same data) is not looked at; what the user gives takes its place.

    Args:
        guarded: the context for what may fail.
        charged: the context that counts the time against the budget.
        warn_once: logs what is not looked at, once.
        feature_names: of the features, for the warning about another number of them.
    """

    def __init__(
        self,
        guarded: Callable[[str], AbstractContextManager[None]],
        charged: Callable[[str], AbstractContextManager[None]],
        warn_once: Callable[..., None],
        feature_names: Sequence[str] | None = None,
    ) -> None:
        self._guarded, self._charged, self._warn_once = guarded, charged, warn_once
        self._names = None if feature_names is None else len(feature_names)
        self._source: FeedSource | None = None
        self._wanted = self._is_watched = self._is_looking = False
        self._was_seen = False
        self._seen: _Seen | None = None
        self._held: dict[int, _Seen] = {}
        self._reservoir = FeedReservoir()
        self._groups = GroupDistances(warn_once)

    @property
    def is_wanted(self) -> bool:
        """Whether the batch of the present step, or of the next one at the end of a step, is to be looked at."""
        return self._wanted and self._seen is None

    @property
    def is_blind(self) -> bool:
        """Whether a source was to show batches, and no batch was seen or given yet."""
        return self._source is not None and not self._was_seen

    @contextmanager
    def looking(self) -> Iterator[None]:
        """Keep errors of what runs inside from the training, and charge its time to the budget."""
        if self._is_looking:  # it is charged once
            yield
            return
        self._is_looking = True
        try:
            with self._guarded("a look at the feed"), self._charged("hooks"):
                yield
        finally:
            self._is_looking = False

    def see(self, inputs: Any, targets: Any = None, *, groups: Any = None, time_major: bool = False) -> None:
        """Copy what is needed of a batch, if it is wanted. Nothing is raised.

        Args:
            inputs: as the model takes them: arrays or tensors, or nested lists, tuples and mappings of such.
            targets: of the batch.
            groups: a label for each of its sequences.
            time_major: whether the first dimension of sequences is time.
        """
        if self.is_wanted:
            with self.looking():
                self._read(inputs, targets, time_major)
                self._note_groups(groups)

    def note_layer(self, layer: str) -> None:
        """Note which recurrent layer is given the batch as it is."""
        if self._seen is not None and not self._seen.layer:
            self._seen = replace(self._seen, layer=layer)

    def give(self, inputs: Any, targets: Any = None, groups: Any = None, *, due: bool = False) -> None:
        """Do the same for what the user gives of the present step, instead of what was seen in it.

        The same batch as was seen keeps the layer that was given it.

        Args:
            inputs: as the model takes them; None for those that were seen.
            targets: of the batch.
            groups: a label for each of its sequences.
            due: whether a capture is due, even if nobody expected it.
        """
        with self.looking():
            seen, self._seen = self._seen, None  # nothing is recorded of a batch that cannot be read
            if seen is not None and (inputs is None or seen.is_of(inputs)):
                self._seen = replace(seen, reading=seen.reading.with_targets(targets))
                self._note_targets(self._seen.reading, targets)
            elif inputs is not None and (self._wanted or due):
                self._read(inputs, targets)
            self._note_groups(groups)

    def begin(self, source: FeedSource | None) -> None:
        """Begin with a run, or another part of it: nothing was seen yet of this step."""
        self._source = source
        self._wanted, self._seen, self._held = False, None, {}

    def settle(self, step: int, of_update: int | None) -> None:
        """At the end of a step: hold its batch if it was seen, and that of the latest update, and no other.

        Args:
            step: the one that ends.
            of_update: the step of the update that waits to be recorded; None where there is none.
        """
        if self._seen is not None:
            self._held[step], self._seen = self._seen, None
        latest = max(self._held, default=None)
        self._held = {number: seen for number, seen in self._held.items() if number in (latest, of_update)}

    def want(self, wanted: bool) -> None:
        """Say whether the batch of the next step is needed."""
        self._wanted = wanted
        if self._source is None or not (wanted or self._is_watched):
            return
        with self.looking():
            self._is_watched = wanted
            if wanted:
                self._source.watch()
            else:
                self._source.release()

    def take(
        self,
        tags: Mapping[str, str],
        time: int,
        step: int,
        of_update: int | None,
        gradient_shares: Mapping[str, Array] | None = None,
    ) -> list[Point]:
        """Return the points of a capture, and let go of the batch.

        Args:
            tags: run, phase and the user's own.
            time: nanoseconds since the epoch.
            step: of the capture.
            of_update: the step whose update is recorded; None where none is.
            gradient_shares: recurrent layer → the share of each of its inputs in its kernel's gradient in that step; ''
                for one that is given every batch as it is.
        """
        held, self._held = self._held, {}
        if not held:
            return []
        if of_update in held:
            seen = held[of_update]
            shares = (gradient_shares or {}).get(seen.layer)
        else:
            seen, shares = held[max(held)], None
        points = self._points(seen.reading, shares, tags, time, step)
        described = self._reservoir.latest
        if not seen.groups or described is None:
            return points
        by_group = self._groups.measure(seen.groups, described, self._reservoir.distance_of)
        return [*points, *group_points(by_group, tags, time, step)]

    def release(self) -> None:
        """Let go of the model and the batches."""
        source, self._source = self._source, None
        self._wanted, self._seen, self._held = False, None, {}
        if source is not None:
            source.release()

    def _read(self, inputs: Any, targets: Any, time_major: bool = False) -> None:
        self._was_seen = True
        reading = read_feed(inputs, targets, time_major=time_major)
        for what in reading.left_out:
            self._warn_once(f"of the feed is not recorded: {what}", f"feed: {what}")
        if reading.sample is None:
            return
        if self._names is not None and self._names != reading.features:
            counts = f"feature_names has {self._names} names, the feed {reading.features} features"
            self._warn_once(f"{counts}: give a name for each", "feature_names")
        self._note_targets(reading, targets)
        self._seen = _Seen(reading, time_major=time_major)

    def _note_targets(self, reading: Reading, targets: Any) -> None:
        """Say once that targets fit no batch."""
        if targets is None or reading.sample is None or reading.sample.targets is not None:
            return
        leaves, left_out = iter_leaves(targets)
        kinds = [f"of shape {leaf.shape}" for leaf in leaves] + [line.partition(", ")[2] for line in left_out]
        self._warn_once(
            f"targets of the feed are not recorded: {', '.join(kinds) or type(targets).__name__}; give an array or a "
            "tensor with a row for each sequence of the batch",
            "targets of the feed",
        )

    def _note_groups(self, groups: Any) -> None:
        """Keep the label of each sequence of the sample, or say once why labels fit no batch."""
        if groups is None or self._seen is None:
            return
        reading = self._seen.reading
        try:
            labels = read_labels(groups)
            if len(labels) != reading.size:
                raise ConfigError(
                    f"{len(labels)} labels for a batch of {reading.size} sequences; give one label for each sequence"
                )
        except ConfigError as error:
            self._warn_once(f"groups of the feed are not recorded: {error}", "groups of the feed")
            return
        self._seen = replace(self._seen, groups=tuple(labels[row] for row in reading.rows))

    def _points(
        self, reading: Reading, shares: Array | None, tags: Mapping[str, str], time: int, step: int
    ) -> list[Point]:
        sample = reading.sample
        assert sample is not None  # noqa: S101 - others are not held
        measures = measure_feed(sample)
        stats: dict[str, FieldValue] = dict(measures.stats)
        if (distance := self._reservoir.distance(sample)) is not None:
            stats["distance"] = distance
        features = dict(measures.features)
        if shares is not None and len(shares) == reading.features:
            features[GRADIENT_SHARE] = shares
        profiles = {statistic: profile("f", values) for statistic, values in features.items()}
        points = [
            Point(FEED_FEATURES, {**tags, "statistic": statistic}, {**fields, "step": step}, time)
            for statistic, fields in profiles.items()
            if fields
        ]
        finite = {name: value for name, value in stats.items() if np.isfinite(value)}
        return [*points, Point(FEED_STATS, tags, {**finite, "step": step}, time)]
