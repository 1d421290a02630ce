"""InfluxQL: what is asked of InfluxDB 2, and the points in its answers. Pure: text and messages in, columns out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from gatewatch.collector.store.frame import Block, column, unite

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from gatewatch.collector.store.selection import Selection

Part = dict[str, Any]
"""One series of an answer, or a piece of it: `tags` (where grouped), `columns` and `values`, a tuple for each point."""

# InfluxDB keeps a field's type by shard. Where shards differ it reads the first of these that occurs.
_TYPES: Final[Mapping[str, type]] = {"float": float, "integer": int, "string": str, "boolean": bool}
_NAMES: Final[Mapping[type, str]] = {kind: name for name, kind in _TYPES.items()}


def is_part(part: object) -> bool:
    """Return whether an entry of an answer has the form of a `Part`: rows as long as there are columns, and times."""
    if not isinstance(part, dict):
        return False
    tags, columns, values = part.get("tags") or {}, part.get("columns"), part.get("values")
    if not (isinstance(tags, dict) and isinstance(columns, tuple) and isinstance(values, tuple)):
        return False
    texts = [*tags.keys(), *tags.values(), *columns, part.get("name", "")]
    if not all(isinstance(text, str) for text in texts):
        return False
    rows = all(isinstance(row, tuple) and len(row) == len(columns) for row in values)
    return rows and (columns[:1] != ("time",) or all(type(row[0]) is int for row in values))


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


def field_keys(measurement: str) -> str:
    """Return the statement that asks which fields of which types a measurement has."""
    return f"SHOW FIELD KEYS FROM {identifier(measurement)}"


def typed(fields: Iterable[tuple[str, type]], function: str = "") -> str:
    """Return fields of some types for SELECT, or a function of each."""
    return ", ".join(f"{function}({identifier(name)}::{_NAMES[kind]})" for name, kind in fields)


def select(
    selection: Selection, fields: Iterable[tuple[str, type]], other_tags: Iterable[str] = (), function: str = ""
) -> tuple[str, dict[str, str]]:
    """Return the statement that selects fields, or a function of each, by series, and the values bound in it.

    Args:
        selection: which points.
        fields: names and types.
        other_tags: as of `where`.
        function: of InfluxQL.
    """
    clause, values = where(selection, other_tags)
    statement = f"SELECT {typed(fields, function)} FROM {identifier(selection.measurement)} {clause} GROUP BY *"  # noqa: S608 - names are quoted, values bound
    return statement, values


def where(selection: Selection, other_tags: Iterable[str] = ()) -> tuple[str, dict[str, str]]:
    """Return the clause that keeps the points of a selection, and the values bound in it.

    Args:
        selection: which points.
        other_tags: tags that the points must not have, where the selection does not name them.
    """
    tags = {**dict.fromkeys(other_tags, ""), **selection.tags}
    conditions = [f"{identifier(name)}::tag = $v{i}" for i, name in enumerate(tags)]
    conditions += [f"time >= {selection.start}"] if selection.start is not None else []
    conditions += [f"time < {selection.stop}"] if selection.stop is not None else []
    if selection.at_least is not None:
        field, least = selection.at_least
        conditions.append(f"{identifier(field)}::field >= {float(least)!r}")
    clause = f"WHERE {' AND '.join(conditions)}" if conditions else ""
    return clause, {f"v{i}": value for i, value in enumerate(tags.values())}


def blocks(parts: Iterable[Part], types: Mapping[str, type]) -> Iterator[Block]:
    """Yield the points of the answer to `select`."""
    for tags, sizes, rows in unite((part.get("tags") or {}, part["values"]) for part in parts):
        times, *columns = zip(*rows, strict=True)
        named = zip(types.items(), columns, strict=True)
        fields = {name: column(values, kind) for (name, kind), values in named}
        yield Block(tags, sizes, np.array(times, np.int64), fields)
