"""The fingerprint of a probe: the same in each process, and another for another content."""

from __future__ import annotations

import datetime
import json
import os
import subprocess
import sys
from itertools import combinations

import numpy as np
import pytest

from gatewatch.collector.run_metadata import fingerprint

NUMBERS = np.arange(6.0).reshape(2, 3)
PROBES = {
    "numbers": lambda: NUMBERS,
    "other numbers": lambda: NUMBERS + 1,
    "numbers of another shape": lambda: NUMBERS.T,
    "numbers of another type": lambda: NUMBERS.astype(np.float32),
    "texts as objects": lambda: np.array(["buy", "sell", "höld"], dtype=object),
    "other texts as objects": lambda: np.array(["buy", "sell", "hold"], dtype=object),
    "texts of another shape": lambda: np.array([["buy", "sell", "höld"]], dtype=object),
    "texts cut in another place": lambda: np.array(["buys", "ell", "höld"], dtype=object),
    "texts in another order": lambda: np.array(["sell", "buy", "höld"], dtype=object),
    "a list": lambda: ["buy", "sell"],
    "another list": lambda: ["buy", "sold"],
    "a nested list": lambda: [["buy"], ["sell"]],
    "a dict": lambda: {"open": ["buy"], "close": np.array(["sell"])},
    "a dict of other names": lambda: {"high": ["buy"], "close": np.array(["sell"])},
    "a dict of other texts": lambda: {"open": ["buy"], "close": np.array(["hold"])},
    "a dict of numbers and texts": lambda: {"price": NUMBERS, "news": ["buy"]},
    "a dict of other numbers": lambda: {"price": NUMBERS + 1, "news": ["buy"]},
    "objects": lambda: np.array([None, True, 1, 1.5, 10**5000, b"x", ["y"], {"z": "w"}], dtype=object),
    "other objects": lambda: np.array([None, True, 1, 1.5, 10**5000, b"x", ["y"], {"z": "v"}], dtype=object),
    "arrays in an array": lambda: np.array([NUMBERS, "x"], dtype=object),
    "other arrays in an array": lambda: np.array([NUMBERS + 1, "x"], dtype=object),
    "numpy's own": lambda: np.array([np.float32(1), np.str_("x"), np.datetime64("2026-01-01")], dtype=object),
    "records": lambda: np.array([("x", 1)], dtype=[("name", object), ("size", int)]),
    "other records": lambda: np.array([("y", 1)], dtype=[("name", object), ("size", int)]),
    "half of a pair": lambda: np.array(["\ud800"], dtype=object),
    "a set, whose order is another in each process": lambda: np.array([{"a", "b", "c"}], dtype=object),
    "an object, whose address is another": lambda: np.array([object()], dtype=object),
    "a type of its own": lambda: np.array([datetime.timedelta], dtype=object),
}


def of(probe):
    return fingerprint(probe, lambda part: part if isinstance(part, np.ndarray) else None)


def all_of_them():
    return {name: of(make()) for name, make in PROBES.items()}


@pytest.fixture(scope="module", params=["0", "1"])
def elsewhere(request):
    """The fingerprints in another process, whose strings hash and lie otherwise."""
    code = "import json; from tests.unit.test_fingerprint import all_of_them; print(json.dumps(all_of_them()))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONHASHSEED": request.param},
    )
    return json.loads(done.stdout)


def test_it_is_the_same_in_each_process(elsewhere):
    assert elsewhere == all_of_them() == all_of_them()


@pytest.mark.parametrize(("one", "other"), [*combinations(PROBES, 2)])
def test_another_content_has_another(one, other):
    assert of(PROBES[one]()) != of(PROBES[other]())


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (np.array(["buy", "sell"]), np.array(["buy", "sell"], dtype="U99")),
        (np.array(["buy", "sell"]), np.array(["buy", "sell"], dtype=object)),
        (np.array(["buy", "sell"]), np.array([b"buy", b"sell"])),
        (np.array(["buy", "sell"], dtype=object), np.array([b"buy", b"sell"], dtype=object)),
        ({"a": ["x"], "b": ["y"]}, {"b": ["y"], "a": ["x"]}),
        ({1: ["x"], "b": ["y"]}, {"b": ["y"], 1: ["x"]}),
        (np.asfortranarray(NUMBERS), NUMBERS),
        (["x", None], ("x", None)),
    ],
)
def test_equal_probes_have_the_same(one, other):
    assert of(one) == of(other)


@pytest.mark.parametrize("nothing", [None, 3, [], {}, [None, {"a": 3}], object()])
def test_what_has_neither_arrays_nor_texts_has_none(nothing):
    assert of(nothing) is None


def test_the_texts_of_numpy_2_have_one():
    if not hasattr(np.dtypes, "StringDType"):
        pytest.skip("numpy 1 has no such texts")
    texts = [np.array(["buy" * 20, word], dtype=np.dtypes.StringDType()) for word in ("sell", "sell", "hold")]
    assert of(texts[0]) == of(texts[1]) != of(texts[2])
