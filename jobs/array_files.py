"""Read arrays from zip files of numpy (`.npz`) that may be damaged or crafted, within stated bounds.

What a zip file says of itself is checked before anything is unpacked: a small file may unpack to gigabytes, and the
header of an array may claim any shape. Nothing is written to the disk, so the names of members do not matter.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

_METHODS: Final = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
"""What numpy and skops write. Python unpacks the others without regard to how much is asked for."""
_HEADERS: Final[dict[tuple[int, int], Callable[[Any], tuple[tuple[int, ...], bool, np.dtype[Any]]]]] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def check_sizes(members: list[zipfile.ZipInfo], most_bytes: int) -> None:
    """Check that members of a zip file unpack to no more than a bound. They never unpack to more than they say.

    Raises:
        ValueError: they do, or they are packed in another way than numpy and skops pack them.
    """
    if any(member.compress_type not in _METHODS for member in members):
        raise ValueError("it is packed in another way than numpy and skops pack files")
    size = sum(member.file_size for member in members)
    if size > most_bytes:
        what = members[0].filename if len(members) == 1 else "it"
        raise ValueError(f"{what} unpacks to {size:,} bytes, and at most {most_bytes:,} are read")


def read_arrays(
    archive: zipfile.ZipFile,
    most_bytes: int,
    most_bytes_each: int | None = None,
    *,
    wanted: Callable[[str], bool] = lambda _: True,
) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield name and array of the members that are wanted, one at a time.

    Args:
        archive: a zip file that `numpy.savez` might have written.
        most_bytes: that these members may unpack to, together.
        most_bytes_each: that one of them may unpack to; `most_bytes` where it is None.
        wanted: whether the array of a name is read.

    Raises:
        ValueError: they are too large, or one is no array of plain values or not as large as its header says.
        Exception: whatever `zipfile` raises for a damaged file.
    """
    members = [member for member in archive.infolist() if wanted(member.filename.removesuffix(".npy"))]
    check_sizes(members, most_bytes)
    for member in members:
        check_sizes([member], most_bytes if most_bytes_each is None else most_bytes_each)
        check_header(archive, member)
        with archive.open(member) as stream:
            array = np.lib.format.read_array(stream, allow_pickle=False)
        yield member.filename.removesuffix(".npy"), array


def check_header(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    """Check that an array is as large as its header says, and holds plain values.

    Raises:
        ValueError: it does not.
    """
    with archive.open(member) as stream:
        read_header = _HEADERS.get(np.lib.format.read_magic(stream))
        shape, _, dtype = ((-1,), False, np.dtype(object)) if read_header is None else read_header(stream)
        size = math.prod(shape) * dtype.itemsize
        if dtype.hasobject or min(shape, default=0) < 0 or stream.tell() + size != member.file_size:
            raise ValueError(f"{member.filename} is no array of plain values, or not as large as its header says")
