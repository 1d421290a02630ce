"""Damage to a file of skops: a zip of `schema.json` and arrays."""

from __future__ import annotations

import io
import json
from contextlib import suppress
from random import Random

import numpy as np

from tests.fuzz.odd import array_header, damaged, damaged_zip, number, other_json


def damaged_model(random: Random, content: bytes) -> bytes:
    """Return a file of skops that is damaged, often with sound checksums."""
    return damaged_zip(random, content, _member)


def _member(random: Random, name: str, content: bytes) -> bytes:
    if name.endswith(".json"):
        if random.random() < 0.2:
            return damaged(random, content)
        try:
            return json.dumps(other_json(random, json.loads(content))).encode(errors="replace")
        except (ValueError, RecursionError):  # it is damaged already
            return content
    if not content.startswith(b"\x93NUMPY") or random.random() < 0.2:
        return damaged(random, content)
    if random.random() < 0.2:
        return array_header(random, content)
    return _values(random, content)


def _values(random: Random, content: bytes) -> bytes:
    """Return an array with other values: children that no tree has, thresholds that are no numbers."""
    try:
        array = np.load(io.BytesIO(content), allow_pickle=False)
    except (ValueError, TypeError):  # it is damaged already
        return content
    if not array.size:
        return content
    flat = array.reshape(-1).copy()
    fields = flat.dtype.names
    for _ in range(random.choice((1, 1, 4, 64))):
        place = random.randrange(flat.size)
        column = flat[random.choice(fields)] if fields else flat
        if column.ndim == 1:
            try:
                column[place] = number(random) if random.random() < 0.5 else column[random.randrange(flat.size)]
            except (ValueError, TypeError, OverflowError):
                with suppress(TypeError):  # of times
                    column[place] = random.choice((0, 1))
    if random.random() < 0.2:
        flat = flat[: random.randint(0, flat.size)]
        array = flat
    file = io.BytesIO()
    np.save(file, flat.reshape(array.shape), allow_pickle=False)
    return file.getvalue()
