"""The parameters of an address, of which one may be there several times."""

from __future__ import annotations

from collections.abc import Iterable


class Query(dict[str, str]):
    """The parameters of an address: name → its last value.

    Args:
        pairs: name and value of each, in their order.
    """

    def __init__(self, pairs: Iterable[tuple[str, str]] = ()) -> None:
        self.pairs = list(pairs)
        super().__init__(self.pairs)

    def every(self, name: str) -> list[str]:
        """Return all values of a parameter, in their order."""
        return [value for each, value in self.pairs if each == name]

    def without(self, name: str) -> list[tuple[str, str]]:
        """Return name and value of all other parameters."""
        return [(each, value) for each, value in self.pairs if each != name]
