from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graftwork.core.errors import ConfigError
from graftwork.math.largest_places import largest_places, random_places


@given(seed=st.integers(0, 99), count=st.integers(0, 20))
@settings(max_examples=40, deadline=None)
def test_the_places_are_numpys_top_k(seed: int, count: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    tensors = {"a": torch.randn(3, 4, generator=draw), "b": torch.randn(8, generator=draw)}
    found = largest_places(tensors, count)
    flat = np.concatenate([tensor.abs().flatten().numpy() for tensor in tensors.values()])
    expected = np.zeros(20, dtype=bool)
    expected[np.argsort(-flat)[:count]] = True
    chosen = np.zeros(20, dtype=bool)
    for name, offset in (("a", 0), ("b", 12)):
        if name in found:
            assert bool((found[name].diff() > 0).all())
            chosen[offset + found[name].numpy()] = True
    np.testing.assert_array_equal(chosen, expected)


def test_among_equals_the_first_are_taken_and_no_more_than_asked_for() -> None:
    tensors = {"a": torch.tensor([1.0, 2.0, 2.0]), "b": torch.tensor([-2.0, 2.0])}
    found = largest_places(tensors, 3)
    assert {name: places.tolist() for name, places in found.items()} == {"a": [1, 2], "b": [0]}
    assert largest_places(tensors, 0) == {}
    zeros = largest_places({"a": torch.zeros(4)}, 2)
    assert zeros["a"].tolist() == [0, 1]


def test_places_that_are_set_aside_are_never_taken() -> None:
    tensors, besides = {"a": torch.tensor([9.0, 1.0, 8.0])}, {"a": torch.tensor([0])}
    assert largest_places(tensors, 2, besides=besides)["a"].tolist() == [1, 2]
    with pytest.raises(ConfigError, match="3 places were asked for, and there are 2"):
        largest_places(tensors, 3, besides=besides)


def test_random_places_are_spread_over_all_tensors_alike() -> None:
    counts = {"a": 0, "b": 0}
    for seed in range(300):
        found = random_places({"a": 30, "b": 10}, 8, torch.Generator().manual_seed(seed))
        assert sum(len(places) for places in found.values()) == 8
        for name, places in found.items():
            assert len(set(places.tolist())) == len(places)
            counts[name] += len(places)
    # Three quarters of 2400 draws; the spread of the sum is about 20.
    assert abs(counts["a"] - 1800) < 90
    assert 0 not in random_places({"a": 4}, 3, besides={"a": torch.tensor([0])})["a"].tolist()
