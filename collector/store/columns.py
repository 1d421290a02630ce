"""Names of the columns of a frame: a tag and a field may have the same name, and columns must differ."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gatewatch.collector.names import OWN_TAGS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

TAG: Final = "tag:"
FIELD: Final = "field:"
_TIME: Final = "time"


def labels(
    tags: Collection[str], fields: Collection[str], prefix_tags: bool = False
) -> tuple[dict[str, str], dict[str, str]]:
    """Name the columns of a frame by the rule of `Store.read`.

    Args:
        tags: names of the tags.
        fields: names of the fields.
        prefix_tags: as of `Store.read`.

    Returns:
        tag → column, and field → column. No column is called twice, and none is called `time`.
    """
    if prefix_tags:
        return (
            {name: name if name in OWN_TAGS else TAG + name for name in tags},
            {name: FIELD + name if _needs_prefix(name) else name for name in fields},
        )
    own = {name: name for name in tags if name in OWN_TAGS}
    taken = {_TIME, *own}
    of_fields = _free(fields, FIELD, taken)
    of_tags = _free([name for name in tags if name not in own], TAG, taken)
    return own | of_tags, of_fields


def tag_columns(columns: Iterable[str]) -> dict[str, str]:
    """Find the tags among the columns of a frame that was read with `prefix_tags`.

    Returns:
        column → name of the tag, in the order of the columns.
    """
    return {name: name.removeprefix(TAG) for name in columns if name in OWN_TAGS or name.startswith(TAG)}


def field_columns(columns: Iterable[str]) -> dict[str, str]:
    """Find the fields among the columns of a frame that was read with `prefix_tags`.

    Returns:
        column → name of the field, in the order of the columns.
    """
    columns = list(columns)
    tags = tag_columns(columns)
    return {name: name.removeprefix(FIELD) for name in columns if name != _TIME and name not in tags}


def _needs_prefix(field: str) -> bool:
    return field in OWN_TAGS or field == _TIME or field.startswith((TAG, FIELD))


def _free(names: Collection[str], prefix: str, taken: set[str]) -> dict[str, str]:
    """Give each name a column that is not taken yet: itself, else with the prefix, as often as that is needed."""
    columns = {name: name for name in names if name not in taken}
    taken |= {*columns}
    for name in sorted({*names} - {*columns}):
        column = prefix + name
        while column in taken:
            column = prefix + column
        taken.add(column)
        columns[name] = column
    return columns
