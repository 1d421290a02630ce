"""The targets, one file each."""

from __future__ import annotations

from collections.abc import Mapping

from tests.fuzz.target import Target
from tests.fuzz.targets.checkpoints import Checkpoints
from tests.fuzz.targets.configurations import Configurations
from tests.fuzz.targets.detector_files import DetectorFiles
from tests.fuzz.targets.epoch_files import EpochFiles
from tests.fuzz.targets.names import Names
from tests.fuzz.targets.server_answers import ServerAnswers
from tests.fuzz.targets.spool import SpoolFiles
from tests.fuzz.targets.sqlite_files import SqliteFiles

_ALL: tuple[type[Target], ...] = (
    Names,
    Configurations,
    SqliteFiles,
    EpochFiles,
    SpoolFiles,
    Checkpoints,
    DetectorFiles,
    ServerAnswers,
)
TARGETS: Mapping[str, type[Target]] = {target.name: target for target in _ALL}
