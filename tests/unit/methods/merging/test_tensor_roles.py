"""What is merged, averaged, kept, and refused."""

from __future__ import annotations

import numpy as np
import pytest

from graftwork.core.errors import ConfigError, DataError
from graftwork.methods.merging.averaging import AveragingMerger
from graftwork.methods.merging.driver import merge_arrays
from graftwork.methods.merging.tensor_roles import assign_roles
from graftwork.methods.merging.ties import TiesConfig, TiesMerger

Model = dict[str, np.ndarray]


def model(value: float, **more: np.ndarray) -> Model:
    return {
        "trunk.weight": np.full((2, 3), value, np.float32),
        "norm.running_mean": np.full(2, value, np.float32),
        "norm.num_batches_tracked": np.array(int(value)),
        "head.weight": np.full(2, value, np.float32),
        **more,
    }


def test_every_tensor_of_the_base_has_one_role() -> None:
    base, tuned = model(0), [model(1), model(2)]
    roles = assign_roles(base, tuned, exclude=["head.*"])
    assert roles.merged == ("trunk.weight",)
    assert roles.averaged == ("norm.running_mean",)
    assert roles.kept == ("head.weight", "norm.num_batches_tracked")
    assert roles.notes == ()
    assert assign_roles(base, tuned, buffers="base").averaged == ()
    assert "norm.running_mean" in assign_roles(base, tuned, exclude=["norm.*"]).kept


def test_excluded_statistics_keep_the_values_of_the_base() -> None:
    merged = merge_arrays(model(0), [model(1), model(3)], AveragingMerger(), exclude=["norm.*"])
    np.testing.assert_array_equal(merged["norm.running_mean"], 0.0)
    np.testing.assert_array_equal(merged["trunk.weight"], 2.0)


def test_tensors_without_a_counterpart_are_named() -> None:
    more = {"lm_head.weight": np.ones(3, np.float32), "score.bias": np.ones(1, np.float32)}
    roles = assign_roles(model(0), [model(1), model(2, **more)], exclude=["score.*"])
    assert roles.notes == ("model 2 has 1 tensors that the base does not have; they are left out: lm_head.weight.",)
    with pytest.warns(UserWarning, match=r"lm_head\.weight"):
        merge_arrays(model(0), [model(1), model(2, **more)], AveragingMerger())


def test_buffers_that_a_model_lacks_are_named() -> None:
    tuned = model(1)
    del tuned["norm.running_mean"], tuned["norm.num_batches_tracked"]
    roles = assign_roles(model(0), [tuned])
    assert roles.notes == ("model 1 lacks 2 buffers; the base's are kept: norm.running_mean, norm.num_batches_tracked.",)
    assert roles.averaged == ()


def test_statistics_of_another_shape_do_not_fit() -> None:
    tuned = model(1)
    tuned["norm.running_mean"] = np.zeros(5, np.float32)
    with pytest.raises(DataError, match=r"model 1: 'norm\.running_mean' is \[5\], the base has \[2\]"):
        assign_roles(model(0), [tuned])


def test_patterns_that_fit_nothing_are_named() -> None:
    roles = assign_roles(model(0), [model(1)], exclude=["haed.weight"])
    assert roles.notes == ("--exclude 'haed.weight' fits no tensor. Did you mean 'head.weight'?",)


@pytest.mark.parametrize("dtype", [np.int8, np.int32, np.uint8, np.bool_, np.complex64])
def test_integer_weights_that_differ_are_refused(dtype: type) -> None:
    quantised = np.array([1, 0, 1, 1], dtype)
    equal = [model(0, q=quantised), model(1, q=quantised.copy())]
    np.testing.assert_array_equal(merge_arrays(equal[0], equal[1:], AveragingMerger())["q"], quantised)
    different = model(2, q=quantised[::-1].copy())
    with pytest.raises(DataError, match=rf"model 2: 'q' holds {np.dtype(dtype).name} that differ from the base's"):
        assign_roles(equal[0], [equal[1], different])
    assert "q" in assign_roles(equal[0], [equal[1], different], exclude=["q"]).kept


def test_integers_in_place_of_floating_point_weights_are_refused() -> None:
    tuned = model(1)
    tuned["trunk.weight"] = tuned["trunk.weight"].astype(np.int8)
    with pytest.raises(DataError, match=r"model 1: 'trunk\.weight' holds int8, the base float32"):
        assign_roles(model(0), [tuned])
    with pytest.raises(DataError, match=r"model 1: 'trunk\.weight' holds float32, the base int8"):
        assign_roles(tuned, [model(1)])


@pytest.mark.parametrize("merger", [AveragingMerger(), TiesMerger(), TiesMerger(TiesConfig(trim="per-tensor"))])
def test_nothing_left_to_merge_is_an_error(merger: AveragingMerger | TiesMerger) -> None:
    with pytest.raises(DataError, match=r"nothing to merge: the base has 4 tensors, 4 of them excluded.*--exclude was \*"):
        merge_arrays(model(0), [model(1)], merger, exclude=["*"])
    with pytest.raises(DataError, match="the base has no tensors at all"):
        merge_arrays({}, [{}], merger)
    with pytest.raises(DataError, match="no floating-point parameter is left"):
        merge_arrays({"q": np.ones(3, np.int64)}, [{"q": np.ones(3, np.int64)}], merger)


def test_the_settings_of_ties_are_checked_like_those_of_the_others() -> None:
    for weights, message in (
        ((1.0, float("nan")), "must be finite"),
        ((float("inf"), 1.0), "must be finite"),
        ((1.0,), "1 numbers for 2"),
    ):
        with pytest.raises(ConfigError, match=message):
            merge_arrays(model(0), [model(1), model(2)], TiesMerger(TiesConfig(weights=weights)))
    with pytest.raises(ConfigError, match="`scaling` must be finite; got nan"):
        merge_arrays(model(0), [model(1)], TiesMerger(TiesConfig(scaling=float("nan"))))


def test_nan_that_leaves_no_largest_changes_is_traced_to_model_and_tensor() -> None:
    base = {"a": np.zeros(10, np.float32), "b": np.zeros(900_000, np.float32)}
    broken = {"a": np.ones(10, np.float32), "b": np.full(900_000, np.nan, np.float32)}
    broken["b"][:1000] = 1.0
    with pytest.raises(DataError, match=r"'b' of model 2, where 899,000 of 900,000 entries are NaN"):
        merge_arrays(base, [base, broken], TiesMerger())
