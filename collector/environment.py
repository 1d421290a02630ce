"""Environment variables, read in one place: a .env file saved on Windows leaves a carriage return after each value."""

from __future__ import annotations

import os
from collections.abc import Mapping


def read_variable(name: str, environment: Mapping[str, str] | None = None) -> str:
    r"""Read an environment variable without the white space around it, such as a carriage return (\r) at its end.

    Args:
        name: of the variable.
        environment: where it is looked up; None: this process's own.

    Returns:
        The value; empty where the variable is not set or holds white space alone, which counts as not set.
    """
    return _value(name, environment).strip()


def read_password(name: str, environment: Mapping[str, str] | None = None) -> str:
    """Read a password: only line breaks at its end are left out, since it may begin or end with a blank on purpose.

    Args:
        name: of the variable.
        environment: where it is looked up; None: this process's own.

    Returns:
        The value; empty where the variable is not set, or holds line breaks alone.
    """
    return _value(name, environment).rstrip("\r\n")


def whole_number(text: str) -> int | None:
    """Read a whole number from 0 of at most 18 digits, as it is typed or set; None where the text is none."""
    digits = text.lstrip("0") or text[-1:]
    return int(digits) if text.isascii() and text.isdecimal() and len(digits) <= 18 else None


def _value(name: str, environment: Mapping[str, str] | None) -> str:
    return (os.environ if environment is None else environment).get(name, "")
