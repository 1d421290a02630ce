"""Odd input from random numbers: damage to bytes, and text that is hostile to somebody."""

from __future__ import annotations

import io
import json
import math
import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import Any

MARKUP = "<zq onerror=1>"
"""In names: a report must never have it as it is."""
_PIECES = (
    *("a", "forget", "lstm_0", "run", "time", "_field", "_measurement", "null", "None", "NaN", "1e999", "-1", "0x1f"),
    *(
        ",",
        "=",
        " ",
        '"',
        "'",
        "\\",
        "\\\\",
        "`",
        ";",
        "--",
        "#",
        "%s",
        "%",
        "{0}",
        "{}",
        "${x}",
        "{{7*7}}",
        "$",
        "*",
        ".*[c]|",
    ),
    *(
        "\n",
        "\r",
        "\r\n",
        "\t",
        "\0",
        "\x1b[31m",
        "\x1b]0;t\x07",
        "\x7f",
        "\x85",
        "\u2028",
        "\u202e",
        "\u200b",
        "\ufeff",
    ),
    *("é", "e\u0301", "漢", "🙂", "ß", "İ", "\ud800", "\udcff", "\U0010ffff"),
    *(
        "/",
        "..",
        "../",
        "/etc/passwd",
        "~",
        "con",
        ".npz",
        "-o",
        "--help",
        "@file",
        "tag:",
        "field:",
        "u000",
        "why_",
        "hist_00",
    ),
    *(MARKUP, "</script>", "&amp;", "<b>", "%{x}", "' OR 1=1 --", '"; DROP', "|> drop()", "$v0", "::tag"),
)
_LENGTHS = (255, 256, 511, 512, 513, 4096, 70_000)


def text(random: Random, longest: int = 6) -> str:
    """Return text that is seldom harmless."""
    if random.random() < 0.05:
        return ""
    if random.random() < 0.08:
        return random.choice(("x", " ", "é", "漢", "\\", '"')) * random.choice(_LENGTHS)
    return "".join(random.choice(_PIECES) for _ in range(random.randint(1, longest)))


def argument(random: Random) -> str:
    """Return text that can be on a command line, or in the environment."""
    return text(random).replace("\0", "")


def path(random: Random) -> str:
    """Return a path that never leads out of the working directory to anything that can be written."""
    name = argument(random).replace("/", "_").replace("..", "_").replace("~", "_") or "x"
    return random.choice(
        (name, name, "x", ".", f"no/such/{name}", f"{name}/x", f"/dev/null/{name}", "/proc/version", "a" * 300)
    )


def number(random: Random) -> object:
    """Return something that stands where a number should."""
    return random.choice(
        (
            0,
            1,
            -1,
            2**31,
            2**63 - 1,
            -(2**63),
            2**64,
            10**400,
            0.5,
            -0.0,
            1e308,
            math.nan,
            math.inf,
            True,
            None,
            "1",
            "",
            [],
            {},
        )
    )


def json_value(random: Random, depth: int = 3) -> Any:
    """Return a value of JSON."""
    if depth == 0 or random.random() < 0.5:
        return random.choice((text, number))(random)
    if random.random() < 0.5:
        return [json_value(random, depth - 1) for _ in range(random.randint(0, 3))]
    return {text(random, 2): json_value(random, depth - 1) for _ in range(random.randint(0, 3))}


def other_json(random: Random, value: Any) -> Any:
    """Return a value of JSON with one place changed: another value, a key that is missing or more."""
    if isinstance(value, dict) and value and random.random() < 0.85:
        key = random.choice([*value])
        changed = dict(value)
        if random.random() < 0.25:
            del changed[key]
        else:
            changed[key] = other_json(random, value[key])
        return changed
    if isinstance(value, list | tuple) and value and random.random() < 0.85:
        changed_list = list(value)
        place = random.randrange(len(changed_list))
        if random.random() < 0.25:
            changed_list.insert(place, json_value(random))
        else:
            changed_list[place] = other_json(random, changed_list[place])
        return changed_list
    if isinstance(value, str) and value and random.random() < 0.5:
        return damaged(random, value.encode(errors="replace")).decode(errors="replace")[:100_000]
    if isinstance(value, int | float) and random.random() < 0.5:
        return number(random)
    return json_value(random)


def damaged(random: Random, content: bytes) -> bytes:
    """Return bytes with one to four things done to them."""
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        content = random.choice(_DAMAGES)(random, content)
    return content


def _flip(random: Random, content: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(random.choice((1, 1, 8, 64))):
        if changed:
            changed[random.randrange(len(changed))] = random.choice((0, 255, random.randrange(256)))
    return bytes(changed)


def _flip_early(random: Random, content: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(random.choice((1, 2, 4))):
        if changed:
            changed[random.randrange(min(128, len(changed)))] = random.choice(
                (0, 1, 127, 128, 255, random.randrange(256))
            )
    return bytes(changed)


def _cut(random: Random, content: bytes) -> bytes:
    return content[
        : random.choice((0, 1, len(content) // 2, max(0, len(content) - 1), random.randint(0, len(content))))
    ]


def _cut_out(random: Random, content: bytes) -> bytes:
    begin = random.randint(0, len(content))
    return content[:begin] + content[begin + random.choice((1, 4, 512, 4096)) :]


def _put_in(random: Random, content: bytes) -> bytes:
    begin = random.randint(0, len(content))
    size = random.choice((1, 4, 64, 4096))
    more = random.choice((random.randbytes(size), bytes(size), b"\xff" * size, content[:size], b"\n" * size))
    return content[:begin] + more + content[begin:]


def _overwrite(random: Random, content: bytes) -> bytes:
    begin, size = random.randint(0, len(content)), random.choice((4, 8, 64, 512, 4096))
    size = min(size, len(content) - begin)
    return (
        content[:begin] + random.choice((bytes(size), b"\xff" * size, random.randbytes(size))) + content[begin + size :]
    )


def _move(random: Random, content: bytes) -> bytes:
    size = random.choice((16, 512, 4096))
    source, target = random.randint(0, len(content)), random.randint(0, len(content))
    return content[:target] + content[source : source + size] + content[target + size :]


def _other(random: Random, content: bytes) -> bytes:
    return random.choice(
        (
            b"",
            b"\0",
            b"null",
            b"[]",
            b"{}",
            b"<html>502</html>",
            random.randbytes(200),
            bytes(4096),
            b"PK\x03\x04",
            b"SQLite format 3\0",
        )
    )


_DAMAGES: tuple[Callable[[Random, bytes], bytes], ...] = (
    *(_flip, _flip, _flip_early, _flip_early, _cut, _cut, _cut_out, _put_in, _overwrite, _move, _other),
)


def unzipped(content: bytes) -> tuple[dict[str, bytes], bytes]:
    """Return the members of a zip, and its comment."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}, archive.comment


def zipped(members: Mapping[str, bytes], comment: bytes = b"", level: int = 1) -> bytes:
    """Return a zip with sound checksums."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=level) as archive:
        archive.comment = comment[:65_535]
        for name, content in members.items():
            member = zipfile.ZipInfo(name)  # which has a fixed date: a seed makes the same bytes each time
            member.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(member, content)
    return file.getvalue()


def steady(content: bytes) -> bytes:
    """Return a zip without dates, and without the addresses by which skops calls its arrays: the same each time."""
    members, comment = unzipped(content)
    numbers: dict[bytes, bytes] = {}

    def numbered(match: re.Match[bytes]) -> bytes:
        return numbers.setdefault(match[0], b"%d" % (10**12 + len(numbers)))

    def renamed(text: bytes) -> bytes:
        return re.sub(rb"\d{13,}", numbered, text)

    schema = {name: renamed(text) for name, text in members.items() if name.endswith(".json")}
    return zipped({renamed(name.encode()).decode(): schema.get(name, text) for name, text in members.items()}, comment)


def array_header(random: Random, member: bytes) -> bytes:
    """Return a file of one array (.npy) with another header: it claims another shape, order or type."""
    size = int.from_bytes(member[8:10], "little")
    shapes = (
        "(0,)",
        "()",
        "(1, 1, 1)",
        "(2, 3, 4)",
        "(-1, 2)",
        f"({2**40},)",
        f"({2**31}, {2**31}, {2**31})",
        "(1e3,)",
        "(True,)",
        "(1,)" * 3,
    )
    kinds = (
        "'<f4'",
        "'<f8'",
        "'|O'",
        "'<U9'",
        "'|V0'",
        "'<c16'",
        "'<M8[ns]'",
        "[('a', '<f4')]",
        "'|S1'",
        "None",
        "'>i8'",
        "'|b1'",
    )
    header = member[10 : 10 + size].decode("latin1")
    if random.random() < 0.7:
        text_of = {
            "shape": random.choice(shapes),
            "descr": random.choice(kinds),
            "order": random.choice(("True", "False", "1")),
        }
        if random.random() < 0.5:
            text_of["descr"] = "'<f4'"
        header = (
            f"{{'descr': {text_of['descr']}, 'fortran_order': {text_of['order']}, 'shape': {text_of['shape']}, }}\n"
        )
    else:
        header = damaged(random, header.encode("latin1")).decode("latin1")
    encoded = header.encode("latin1")[:60_000]
    return member[:8] + len(encoded).to_bytes(2, "little") + encoded + member[10 + size :]


def damaged_zip(random: Random, content: bytes, member: Callable[[Random, str, bytes], bytes] | None = None) -> bytes:
    """Return a zip that is damaged: its bytes, or with sound checksums its members, their names or its comment.

    Args:
        random: numbers.
        content: of a sound zip.
        member: changes a member, given its name; None: its bytes are damaged, or its header where it is an array.
    """
    if random.random() < 0.35:
        return damaged(random, content)
    members, comment = unzipped(content)
    for _ in range(random.choice((1, 1, 2, 5))):
        name = random.choice([*members])
        what = random.random()
        if what < 0.65:
            change = member or _member
            members[name] = change(random, name, members[name])
        elif what < 0.75:
            del members[name]
        elif what < 0.85:
            members[text(random).replace("\0", "").encode(errors="replace").decode()[:9_000] or "x"] = members[name]
        elif what < 0.97:
            comment = random.choice((damaged(random, comment or b"{}"), json.dumps(json_value(random)).encode()))
        else:
            members[name] = bytes(random.choice((10**6, 4 * 10**8)))  # a bomb: it is packed to a thousandth
        if not members:
            break
    return zipped(members, comment)


def _member(random: Random, name: str, content: bytes) -> bytes:
    is_array = content.startswith(b"\x93NUMPY")
    return array_header(random, content) if is_array and random.random() < 0.6 else damaged(random, content)


def put(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files, by their path in a folder."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def taken(folder: Path) -> dict[str, bytes]:
    """Return the files of a folder, by their path in it."""
    return {str(each.relative_to(folder)): each.read_bytes() for each in sorted(folder.rglob("*")) if each.is_file()}
