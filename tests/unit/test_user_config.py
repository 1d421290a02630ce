"""`config=`: a user's own settings, recorded with a run as JSON can hold them."""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewatch.collector.errors import ConfigError
from gatewatch.collector.run_metadata import MOST_CONFIG, check_config


def test_settings_are_recorded_as_they_are():
    given = {"units": 24, "rate": 1e-3, "layers": ["lstm", "dense"], "clip": None, "market": {"symbol": "GOOG"}}
    assert check_config(given) == given
    assert check_config(None) is None


def test_what_json_cannot_hold_becomes_a_number_or_text():
    class Strategy:
        def __repr__(self):
            return "Strategy(\x1b[31mred)\nand more"

    shown = check_config(
        {"rate": np.float32(0.5), "seed": np.int64(7), "path": Path("data.csv"), 3: (1, 2), "own": Strategy()}
    )
    assert shown == {"rate": 0.5, "seed": 7, "path": "data.csv", "3": [1, 2], "own": "Strategy(red) and more"}


@pytest.mark.parametrize("wrong", [[1], "units=24", 7, argparse.Namespace(units=24)])
def test_what_is_no_mapping_is_refused_in_a_line_that_says_how_to_make_one(wrong):
    with pytest.raises(ConfigError, match=r"config=.*must be a mapping, such as \{'units': 24\}; vars\(\) makes one"):
        check_config(wrong)


def test_data_is_no_setting():
    with pytest.raises(
        ConfigError, match=r"config: 90,0.. characters of JSON, at most 16,384 are allowed: leave out data"
    ):
        check_config({"prices": [0] * 30_000})
    assert check_config({"array": np.zeros(1_000_000)})["array"].startswith("[0. 0. 0. ... 0.")


def test_a_mapping_that_raises_is_refused_and_one_that_holds_itself_has_an_end():
    class Broken(dict):
        def items(self):
            raise RuntimeError("no")

    with pytest.raises(ConfigError, match="cannot be read"):
        check_config(Broken(a=1))
    around = {}
    around["self"] = around
    assert len(json.dumps(check_config(around))) < MOST_CONFIG


def test_a_dataclass_says_how():
    @dataclasses.dataclass
    class Settings:
        units: int = 24

    with pytest.raises(ConfigError, match=r"dataclasses\.asdict\(\)"):
        check_config(Settings())
    assert check_config(dataclasses.asdict(Settings())) == {"units": 24}


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
        lambda part: st.lists(part, max_size=3) | st.dictionaries(st.text() | st.integers(), part, max_size=3),
        max_leaves=8,
    )
)
def test_any_setting_survives_as_json(value):
    settings = check_config({"it": value})
    assert json.loads(json.dumps(settings)).keys() == {"it"}
