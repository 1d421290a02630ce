"""What a model is given, of any shape, kind and framework, as the arrays that are looked at."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.utils.rnn import pack_sequence

from gatewatch.collector.feed.measures import FeedSample
from gatewatch.collector.feed.sample import MOST_VALUES, Reading, read_feed


def read(inputs: Any, targets: Any = None, **options: Any) -> FeedSample:
    """Return the sample of a batch of which everything is read."""
    reading = read_feed(inputs, targets, **options)
    assert reading.left_out == ()
    assert reading.sample is not None
    return reading.sample


def numbers(*shape: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return 0, 1, 2, … in a shape."""
    return np.arange(np.prod(shape), dtype=np.float64).reshape(shape)


def test_sequences_are_taken_as_they_are_and_copied() -> None:
    batch = numbers(2, 3, 4)

    sample = read(batch)
    batch[:] = -1

    assert sample.values.tolist() == numbers(2, 3, 4).tolist()
    assert sample.mask is None


def test_a_mapping_is_taken_in_the_order_of_its_names_and_a_tuple_in_its_own() -> None:
    a, b = numbers(2, 3, 1), 100 + numbers(2, 3, 2)

    assert read({"b": b, "a": a}).values[0, 0].tolist() == [0, 100, 101]
    assert read((b, a)).values[0, 0].tolist() == [100, 101, 0]


def test_what_has_no_time_is_one_position_and_beside_sequences_the_same_at_each() -> None:
    alone = read(numbers(5, 2))
    beside = read((numbers(5, 3, 1), numbers(5, 2)))

    assert alone.values.shape == (5, 1, 2)
    assert beside.values.shape == (5, 3, 3)
    assert beside.values[4, :, 1:].tolist() == [[8, 9]] * 3


def test_images_are_flattened() -> None:
    frames = np.full((2, 3, 4, 5, 6), 7, np.uint8)

    assert read(frames).values.shape == (2, 3, 120)
    assert read(frames).values.dtype == np.float32


def test_ids_are_told_apart_but_are_no_quantities() -> None:
    reading = read_feed({"price": numbers(4, 6, 2), "symbol": np.array([1, 1, 2, 3])})
    tokens = read_feed(torch.randint(0, 9, (4, 6)))

    assert reading.sample is not None
    assert tokens.sample is not None
    assert reading.features == 2
    assert reading.sample.others[0].tolist() == [1, 1, 2, 3]
    assert tokens.features == 0
    assert tokens.sample.values.shape == (4, 6, 0)


def test_time_may_come_first() -> None:
    sample = read((numbers(3, 2, 1), torch.zeros(3, 2, 2)), numbers(3, 2), time_major=True)

    assert sample.values[:, :, 0].tolist() == [[0, 2, 4], [1, 3, 5]]
    assert sample.targets is not None
    assert sample.targets.tolist() == [[4], [5]]


def test_packed_and_ragged_sequences_are_padded() -> None:
    short, long = torch.tensor([[5.0]]), torch.tensor([[1.0], [2.0]])

    for batch in (pack_sequence([short, long], enforce_sorted=False), [short, long], [short.numpy()[:, 0], long[:, 0]]):
        sample = read(batch)
        assert sample.values.tolist() == [[[5], [0]], [[1], [2]]]
        assert sample.mask is not None
        assert sample.mask.tolist() == [[True, False], [True, True]]


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_half_precision_is_read_as_numbers(kind: torch.dtype) -> None:
    assert read(torch.tensor([[[0.5], [2.0]]], dtype=kind, requires_grad=True)).values.tolist() == [[[0.5], [2.0]]]


def test_sparse_batches_are_read() -> None:
    dense = np.array([[0.0, 2.0], [0.0, 0.0]])

    for batch in (torch.tensor(dense).to_sparse(), scipy.sparse.csr_array(dense), pd.DataFrame(dense)):
        assert read(batch).values[:, 0].tolist() == dense.tolist()


def test_lists_of_numbers_are_a_batch() -> None:
    assert read([[[1, 2.5], [3, 4]]]).values.tolist() == [[[1, 2.5], [3, 4]]]


@pytest.mark.parametrize(
    "batch",
    [
        pytest.param("buy", id="text"),
        pytest.param(["buy", "sell"], id="texts"),
        pytest.param(np.array(["buy", "sell"]), id="array of texts"),
        pytest.param(np.array([{}, []], dtype=object), id="objects"),
        pytest.param(np.zeros((2, 3), complex), id="complex"),
        pytest.param(np.array(["2026-01-01"], "datetime64[D]"), id="dates"),
        pytest.param(torch.sparse_coo_tensor(torch.zeros(2, 0), torch.zeros(0), (10**5, 10**5)), id="large sparse"),
    ],
)
def test_what_is_no_array_of_numbers_is_left_out_with_a_line(batch: Any) -> None:
    alone, beside = read_feed(batch), read_feed((numbers(2, 3, 1), {"odd\n": batch}))

    assert alone.sample is None
    assert len(alone.left_out) >= 1
    assert beside.sample is not None
    assert beside.left_out[0].startswith("'odd', ")
    assert all("\n" not in line for line in beside.left_out)


@pytest.mark.parametrize("batch", [None, (), {}, 3, True, np.float64(1), torch.tensor(2.0), np.empty((0, 3, 2))])
def test_nothing_to_look_at_is_no_batch(batch: Any) -> None:
    assert read_feed(batch) == Reading(None)


def test_an_input_of_another_batch_is_left_out_with_its_shape() -> None:
    reading = read_feed({"x": numbers(4, 6, 2), "h": numbers(1, 4, 8), "y": numbers(4, 9, 2)})

    assert reading.features == 2
    assert reading.left_out == (
        "'h' of shape (1, 4, 8) beside 'x' of shape (4, 6, 2)",
        "'y' of shape (4, 9, 2) beside 'x' of shape (4, 6, 2)",
    )


def test_targets_are_taken_as_they_make_sense() -> None:
    batch = numbers(4, 3, 1)

    def of(targets: Any) -> Any:
        found = read(batch, targets).targets
        return None if found is None else found.tolist()

    assert of([1.0, 2, 3, 4]) == [[1], [2], [3], [4]]
    assert of(numbers(4, 2)) == numbers(4, 2).tolist()
    assert of(numbers(4, 3)) == [[2], [5], [8], [11]]  # a sequence each: its last
    assert of(numbers(4, 3, 2)) == [[4, 5], [10, 11], [16, 17], [22, 23]]
    assert of({"up": [0, 1, 0, 1]}) == [[0], [1], [0], [1]]
    assert of(np.array([0, 1, 2, 1])) == [[0, 1, 0, 0], [1, 0, 1, 0], [2, 0, 0, 1], [1, 0, 1, 0]]  # a column a class
    for nothing in (None, "up", ["a", "b", "c", "d"], numbers(5, 1), 3):
        assert of(nothing) is None


def test_the_last_target_of_a_padded_sequence_is_that_of_its_last_position() -> None:
    batch = pack_sequence([torch.zeros(3, 1), torch.zeros(2, 1)])

    assert read(batch, torch.tensor([[1, 2, 3.0], [4, 5, 0]])).targets == pytest.approx(np.array([[3], [5]]))


@given(
    st.tuples(st.integers(1, 5000), st.integers(1, 3000), st.integers(1, 3000)).filter(
        lambda shape: np.prod(shape, dtype=float) <= 2e7
    )
)
def test_of_a_huge_batch_a_bounded_part_is_looked_at_and_always_the_same(shape: tuple[int, int, int]) -> None:
    batch = np.broadcast_to(np.arange(shape[1], dtype=np.float32)[None, :, None], shape)

    first, again = read(batch), read(batch)

    assert first.values.size <= MOST_VALUES
    looked_at = first.values.shape
    assert looked_at[0] >= min(shape[0], 16)
    assert looked_at[1] >= min(shape[1], 16)
    assert looked_at[2] == min(shape[2], 512)
    assert first.values[0, -1, 0] == shape[1] - 1  # the end of a sequence is what an output is made from
    assert (np.diff(first.values[0, :, 0]) == 1).all()
    assert first.values.tobytes() == again.values.tobytes()


def test_of_long_padded_sequences_each_has_its_own_last_positions() -> None:
    long, short = (torch.arange(float(length))[:, None] for length in (1000, 300))

    sample = read(pack_sequence([long, short]))

    assert sample.values[:, -1, 0].tolist() == [999, 299]
    assert sample.mask is None


def test_features_past_the_bound_are_evenly_spaced_over_all_inputs() -> None:
    batch = {
        name: np.broadcast_to(offset + np.arange(2000.0), (2, 3, 2000)) for name, offset in (("a", 0), ("b", 2000))
    }

    reading = read_feed(batch)

    assert reading.features == 4000
    assert reading.sample is not None
    assert reading.sample.values[0, 0].tolist() == [number * 4000 // 512 for number in range(512)]
