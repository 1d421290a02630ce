"""Files of trained models: skops, restricted to arrays, numbers, texts, and lists and dicts of these.

skops builds whatever class a file names, if it is trusted. Some crash the process when their content is wrong, as the
trees of scikit-learn do, whose nodes are indices that nothing checks. So a file holds no object of a class: who reads
one makes the model from arrays, after having checked them.
"""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import IO, Any, Final

from gatewatch.jobs.array_files import check_header, check_sizes
from gatewatch.jobs.skops_io import skops_io

MOST_BYTES: Final = 64 * 2**20
"""The largest file that is read, packed and unpacked. A hundred trees of 511 nodes take 2 MB."""
_PLAIN: Final = {
    "DictNode": ("builtins", "dict"),
    "ListNode": ("builtins", "list"),
    "NdArrayNode": ("numpy", "ndarray"),
    "JsonNode": ("builtins", "str"),
    "TypeNode": ("builtins", "str"),  # of the keys of a dict
}
"""What a file may consist of: how skops reads it → its module and class."""
_SCHEMA: Final = "schema.json"


def dump(content: dict[str, Any], file: IO[bytes]) -> None:
    """Write content, which consists of what `load` reads.

    Raises:
        OSError: it cannot be written.
    """
    skops_io().dump(content, file, compression=zipfile.ZIP_DEFLATED, compresslevel=1)


def load(path: Path) -> Any:
    """Return what `dump` wrote.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is damaged, too large, no file of skops, or one with objects of a class.
    """
    with path.open("rb") as file:
        packed = file.read(MOST_BYTES + 1)
    if len(packed) > MOST_BYTES:
        raise ValueError(f"it is larger than {MOST_BYTES:,} bytes")
    try:
        with zipfile.ZipFile(io.BytesIO(packed)) as archive:
            check_sizes(archive.infolist(), MOST_BYTES)
            for member in archive.infolist():
                if member.filename != _SCHEMA:
                    check_header(archive, member)
            _check_plain(json.loads(archive.read(_SCHEMA)))
        return skops_io().loads(packed, trusted=[])
    except Exception as error:  # skops, zipfile and numpy raise many kinds of error
        raise ValueError(f"it is damaged, or no file of this kind ({type(error).__name__}: {error})") from None


def _check_plain(schema: Any) -> None:
    """Check that a file of skops holds nothing but what `_PLAIN` lists."""
    nodes = [schema]
    while nodes:
        node = nodes.pop()
        if isinstance(node, dict):
            if "__loader__" in node and _PLAIN.get(node["__loader__"]) != (node["__module__"], node["__class__"]):
                raise ValueError(f"it holds a {node['__module__']}.{node['__class__']}")
            if node.get("type", "numpy") != "numpy" and node.get("__loader__") == "NdArrayNode":
                raise ValueError("it holds an array of objects")
            nodes += node.values()
        elif isinstance(node, list):
            nodes += node
