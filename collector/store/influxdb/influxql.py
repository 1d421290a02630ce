"""InfluxQL: what is asked of InfluxDB 2, and the points in its answers. Pure: text and messages in, columns out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from gatewatch.collector.store.frame import BLOCK, Block, column
from gatewatch.collector.times import Time, nanoseconds

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from gatewatch.collector.schema import FieldValue

Part = dict[str, Any]
"""One series of an answer, or a piece of it: `tags` (where grouped), `columns` and `values`, a tuple for each point."""

# InfluxDB keeps a field's type by shard. Where shards differ it reads the first of these that occurs.
_TYPES: Final[Mapping[str, type]] = {"float": float, "integer": int, "string": str, "boolean": bool}
_NAMES: Final[Mapping[type, str]] = {kind: name for name, kind in _TYPES.items()}


def identifier(name: str) -> str:
    """Return a name quoted for InfluxQL, whatever it holds."""
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def field_types(parts: Iterable[Part]) -> dict[str, type]:
    """Return field name → type, from the answer to SHOW FIELD KEYS."""
    found: dict[str, str] = {}
    for part in parts:
        for name, kind in part["values"]:
            found[name] = min(found.get(name, kind), kind, key=list(_TYPES).index)
    return {name: _TYPES[kind] for name, kind in found.items()}


def all_types(parts: Iterable[Part]) -> list[tuple[str, type]]:
    """Return each field with each type that it has in some shard, from the answer to SHOW FIELD KEYS.

    One that has floats and integers has floats alone: InfluxDB gives the ones as the others too, whichever is asked.
    """
    found = {(name, _TYPES[kind]) for part in parts for name, kind in part["values"]}
    return sorted(
        ((name, kind) for name, kind in found if not (kind is int and (name, float) in found)),
        key=lambda each: (each[0], _NAMES[each[1]]),
    )


def select(measurement: str, fields: Iterable[tuple[str, type]], clause: str, function: str = "") -> str:
    """Return the statement that selects fields, or a function of each, of the points that a clause keeps, by series."""
    columns = ", ".join(f"{function}({identifier(name)}::{_NAMES[kind]})" for name, kind in fields)
    return f"SELECT {columns} FROM {identifier(measurement)} {clause} GROUP BY *"  # noqa: S608 - names are quoted, values bound


def where(
    run: str | None, start: Time | None, stop: Time | None, tags: Mapping[str, str] | None
) -> tuple[str, dict[str, str]]:
    """Return the clause that keeps the points asked for, see `Store.read`, and the values bound in it."""
    wanted = dict(tags or {}) | ({} if run is None else {"run": run})
    conditions = [f"{identifier(name)}::tag = $v{i}" for i, name in enumerate(wanted)]
    if start is not None:
        conditions.append(f"time >= {nanoseconds(start)}")
    if stop is not None:
        conditions.append(f"time < {nanoseconds(stop)}")
    clause = f"WHERE {' AND '.join(conditions)}" if conditions else ""
    return clause, {f"v{i}": value for i, value in enumerate(wanted.values())}


def blocks(parts: Iterable[Part], types: Mapping[str, type]) -> Iterator[Block]:
    """Yield the points of the answer to `select`."""
    tags: list[Mapping[str, str]] = []
    sizes: list[int] = []
    rows: list[Sequence[FieldValue | None]] = []
    for part in parts:
        tags.append(part.get("tags") or {})
        sizes.append(len(part["values"]))
        rows += part["values"]
        if len(rows) >= BLOCK:
            yield _block(tags, sizes, rows, types)
            tags, sizes, rows = [], [], []
    if rows:
        yield _block(tags, sizes, rows, types)


def _block(
    tags: list[Mapping[str, str]],
    sizes: list[int],
    rows: list[Sequence[FieldValue | None]],
    types: Mapping[str, type],
) -> Block:
    times, *columns = zip(*rows, strict=True)
    named = zip(types.items(), columns, strict=True)
    return Block(tags, sizes, np.array(times, np.int64), {name: column(each, kind) for (name, kind), each in named})
