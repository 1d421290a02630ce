"""Numbers as people read them."""

from __future__ import annotations

import pytest

from gatewatch.jobs.report.text import number


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (0.123456, 3, "0.123"),
        (12.3456, 3, "12.3"),
        (999.4, 3, "999"),
        (999.7, 3, "1,000"),
        (12345.6, 3, "12,346"),
        (99.4, 2, "99"),
        (100.3, 2, "100"),
        (-100.3, 2, "-100"),
        (1e-7, 2, "1e-07"),
        (1234.0, 2, "1,234"),
        (float("nan"), 3, "–"),
        (None, 3, "–"),
    ],
)
def test_a_number_has_no_exponent_where_it_is_large(value, digits, text):
    assert number(value, digits) == text
