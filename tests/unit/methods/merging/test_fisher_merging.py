"""Fisher merging of whole models: against the written-out rule, with files, with searched coefficients, and what it asks for."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from graftwork.core.errors import ConfigError, DataError
from graftwork.core.input_spec import table_input
from graftwork.core.records import TaskSpec
from graftwork.data.suite import Suite
from graftwork.interfaces.model_merger import MergeContext, MergeModel
from graftwork.methods.merging.fisher_merging import FisherConfig, FisherMerging
from graftwork.methods.merging.model_answers import Answering
from graftwork.methods.sharing.shared_trunk import SharedTrunk
from graftwork.nn.backbones.mlp import TableBackbone
from graftwork.nn.fisher import diagonal_fisher
from graftwork.workflows.merge_kinds import merge_context

COLOUR = TaskSpec(name="colour", kind="multiclass", size=3, classes=("a", "b", "c"))
LATE = TaskSpec(name="late", kind="binary", size=1)
FEATURES = 4


def make_suite(num_rows: int = 60, tasks: tuple[TaskSpec, ...] = (COLOUR,), **targets: Any) -> Suite:
    random = np.random.default_rng(0)
    numeric = random.normal(size=(num_rows, FEATURES)).astype(np.float32)
    ready = {
        "colour": numeric[:, :3].argmax(axis=1).astype(np.int64),
        "late": (numeric[:, 3] > 0).astype(np.int64),
        **targets,
    }
    part = np.arange(num_rows)
    return Suite.of_arrays(
        name="colours",
        input_specs=table_input(FEATURES),
        tasks=tasks,
        inputs={"numeric": numeric, "categorical": np.zeros((num_rows, 0), np.int64)},
        targets={task.name: ready[task.name] for task in tasks},
        splits={"train": part[: num_rows // 2], "val": part[num_rows // 2 : -10], "test": part[-10:]},
    )


def make_model(seed: int, tasks: tuple[TaskSpec, ...] = (COLOUR,)) -> MergeModel:
    def build() -> SharedTrunk:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return SharedTrunk(
                tasks, lambda: TableBackbone(FEATURES, width=6, num_blocks=1, dropout=0.0), inputs={}, head_hidden=0
            )

    noise = np.random.default_rng(seed)
    tensors = {
        name: (value.numpy() + 0.1 * noise.normal(size=tuple(value.shape))).astype(np.float32)
        for name, value in build().state_dict().items()
    }
    return of_tensors(f"m{seed}", tensors, build)


def of_tensors(name: str, tensors: Mapping[str, np.ndarray], build: Any) -> MergeModel:
    def made() -> nn.Module:
        network = build()
        network.load_state_dict({key: torch.from_numpy(np.array(value)) for key, value in tensors.items()})
        return network  # type: ignore[no-any-return]

    return MergeModel(name=name, tensors=tensors, network=made)


def information_of(model: MergeModel, suite: Suite, tasks: tuple[TaskSpec, ...] = (COLOUR,)) -> dict[str, np.ndarray]:
    rows = suite.splits["train"]
    inputs = {name: torch.from_numpy(value[rows]) for name, value in suite.inputs.items()}
    return {name: value.numpy() for name, value in diagonal_fisher(model.build(), [inputs], tasks).items()}


def settings(**values: Any) -> FisherMerging:
    return FisherMerging(FisherConfig(**values))


def test_it_is_the_written_out_rule() -> None:
    suite, models = make_suite(), [make_model(seed) for seed in range(3)]
    merger = settings(weights=(2.0, 1.0, 1.0))
    merged = merger.merge(None, models, merge_context(suite, {}))
    weights = []
    for index, (model, coefficient) in enumerate(zip(models, (0.5, 0.25, 0.25), strict=True)):
        found = information_of(model, suite)
        norm = np.sqrt(sum(float(np.square(value.astype(np.float64)).sum()) for value in found.values()))
        floor = 1e-6 if index == 0 else 0.0
        weights.append({name: coefficient * np.maximum(value / norm, floor) for name, value in found.items()})
    assert set(merged) == set(models[0].tensors)
    for name, value in merged.items():
        total = sum(weight[name] for weight in weights)
        top = sum(weight[name] * model.tensors[name] for weight, model in zip(weights, models, strict=True))
        np.testing.assert_allclose(value, top / total, rtol=1e-4, atol=1e-6)
    assert merger.weights == (0.5, 0.25, 0.25)
    assert merger.settings()["weights"] == (0.5, 0.25, 0.25)


def test_without_information_it_is_the_mean_and_needs_no_rows() -> None:
    models = [make_model(seed) for seed in range(2)]
    merged = settings(information="none", weights=(0.7, 0.3)).merge(None, models, MergeContext())
    for name, value in merged.items():
        np.testing.assert_allclose(value, 0.7 * models[0].tensors[name] + 0.3 * models[1].tensors[name], rtol=1e-5, atol=1e-6)


def test_files_of_information_give_what_rows_give() -> None:
    suite, models = make_suite(), [make_model(seed) for seed in range(2)]
    context = merge_context(suite, {})
    files = [settings(result="fisher").merge(None, [model], context) for model in models]
    assert set(files[0]) == {f"fisher.{name}" for name in models[0].tensors}
    weights_only = [MergeModel(name=model.name, tensors=model.tensors) for model in models]
    merged = FisherMerging().merge(None, weights_only, MergeContext(statistics={"fisher": files}))
    plain = [{name.removeprefix("fisher."): value for name, value in file.items()} for file in files]
    again = FisherMerging().merge(None, weights_only, MergeContext(statistics={"fisher": plain}))
    for name, value in FisherMerging().merge(None, models, context).items():
        np.testing.assert_allclose(merged[name], value, rtol=1e-5, atol=1e-7)
        np.testing.assert_array_equal(merged[name], again[name])


def test_the_target_alone_is_tried_first_and_kept_bit_for_bit_where_nothing_is_better() -> None:
    """The target is right on all validation rows; the other model answers with the classes turned around."""
    suite = make_suite()
    target = make_model(0)
    right = target.build()({name: torch.from_numpy(value) for name, value in suite.inputs.items()})["colour"].argmax(1).numpy()
    suite = dataclasses.replace(suite, targets={"colour": right})
    other = of_tensors("turned", {name: -value for name, value in target.tensors.items()}, target.build)
    merger = settings(trials=6)
    context = merge_context(suite, {})
    merged = merger.merge(None, [target, other], context)
    assert merger.weights == (1.0, 0.0)
    assert context.costs["trials"] == 6
    for name, value in merged.items():
        np.testing.assert_array_equal(value, target.tensors[name])


@pytest.mark.parametrize("information", ["fisher", "none"])
def test_a_search_finds_the_model_that_is_right_on_validation_rows(information: str) -> None:
    suite, right = make_suite(), make_model(0)
    answers = right.build()({name: torch.from_numpy(value) for name, value in suite.inputs.items()})["colour"].argmax(1).numpy()
    suite = dataclasses.replace(suite, targets={"colour": answers})
    worse = of_tensors("noise", make_model(5).tensors, right.build)
    merger = settings(trials=11, information=information)
    context = merge_context(suite, {})
    merged = merger.merge(None, [worse, right], context)
    assert merger.weights is not None
    assert merger.weights[1] > 0.5
    found = Answering(of_tensors("merged", merged, right.build), suite.tasks)
    assert found.score(context, "val") > Answering(worse, suite.tasks).score(context, "val")


def test_heads_of_different_tasks_keep_the_target_and_its_rows_count_only() -> None:
    """Rows of the other task are labelled, but not for this model; rows without any label count for both."""
    colour, late = np.full(60, -1, np.int64), np.full(60, -1, np.int64)
    colour[:10], late[10:20] = 1, 0
    suite = make_suite(tasks=(COLOUR, LATE), colour=colour, late=late)
    target, donor = make_model(0), make_model(1, (LATE,))
    context = merge_context(suite, {})
    merged = FisherMerging().merge(None, [target, donor], context)
    head = [name for name in merged if name.startswith("heads.")]
    assert head
    for name in merged:
        assert np.array_equal(merged[name], target.tensors[name]) == (name in head), name
    rows = np.concatenate([np.arange(10), np.arange(20, 30)])
    inputs = {name: torch.from_numpy(value[rows]) for name, value in suite.inputs.items()}
    expected = diagonal_fisher(target.build(), [inputs], [COLOUR])
    found = Answering(target, suite.tasks).information(context, "train", None, num_rows=100)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value.numpy(), rtol=1e-5, atol=1e-8)


def test_equal_shapes_of_heads_are_no_equal_tasks() -> None:
    second = dataclasses.replace(COLOUR, name="shade")
    suite = make_suite(tasks=(COLOUR, second), shade=np.zeros(60, np.int64))
    target, donor = make_model(0), make_model(1, (second,))
    merged = FisherMerging().merge(None, [target, donor], merge_context(suite, {}))
    for name in merged:
        assert np.array_equal(merged[name], target.tensors[name]) == name.startswith("heads."), name


def test_tensors_that_are_not_shared_are_said_and_kept() -> None:
    target, donor = make_model(0), make_model(1)
    cut = {name: value for name, value in donor.tensors.items() if not name.startswith("heads.")}
    files = [{name: np.ones_like(value) for name, value in target.tensors.items()}] * 2
    with pytest.warns(UserWarning, match=r"4 tensors are not shared by all models and keep those of m0: heads\."):
        merged = FisherMerging().merge(
            None,
            [MergeModel(name="m0", tensors=target.tensors), MergeModel(name="m1", tensors=cut)],
            MergeContext(statistics={"fisher": files}),
        )
    assert np.array_equal(merged["heads.0.norm.weight"], target.tensors["heads.0.norm.weight"])
    kept = settings(exclude=("heads.*",)).merge(
        None,
        [MergeModel(name="m0", tensors=target.tensors), MergeModel(name="m1", tensors=donor.tensors)],
        MergeContext(statistics={"fisher": files}),
    )
    for name, value in kept.items():
        np.testing.assert_array_equal(value, merged[name])


def test_running_statistics_are_averaged_with_the_coefficients() -> None:
    tensors = [
        {"weight": np.full(2, value), "norm.running_mean": np.full(2, 10.0 * value), "norm.num_batches_tracked": np.array(7)}
        for value in (1.0, 2.0)
    ]
    information = [{"weight": np.array([1.0, 0.0])}, {"weight": np.array([0.0, 1.0])}]
    models = [MergeModel(name=str(index), tensors=values) for index, values in enumerate(tensors)]
    merged = settings(weights=(0.75, 0.25)).merge(None, models, MergeContext(statistics={"fisher": information}))
    np.testing.assert_allclose(merged["norm.running_mean"], 12.5)
    np.testing.assert_allclose(merged["weight"], [1.0, 2.0], rtol=1e-5)
    assert merged["norm.num_batches_tracked"] == 7


def test_drawn_rows_and_answers_are_those_of_the_seed() -> None:
    suite, models = make_suite(), [make_model(seed) for seed in range(2)]
    merger = settings(num_rows=7, num_samples=2)
    first, second, other = (merger.merge(None, models, merge_context(suite, {}, seed=seed)) for seed in (1, 1, 2))
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert not all(np.array_equal(first[name], other[name]) for name in first)


def test_what_is_missing_is_named() -> None:
    suite, model = make_suite(), make_model(0)
    bare = MergeModel(name="bare", tensors=model.tensors)
    with pytest.raises(ConfigError, match=r"needs the Fisher information of each model.*--statistics fisher=FILE,FILE.*--suite"):
        FisherMerging().merge(None, [model, model], MergeContext())
    with pytest.raises(ConfigError, match=r"needs the Fisher information of each model"):
        FisherMerging().merge(None, [bare, bare], merge_context(suite, {}))
    with pytest.raises(ConfigError, match=r"'fisher' statistics for each of the 2 models; there are 1"):
        FisherMerging().merge(None, [bare, bare], MergeContext(statistics={"fisher": [model.tensors]}))
    with pytest.raises(ConfigError, match=r"information of bare lacks .* order of the models"):
        FisherMerging().merge(None, [bare, bare], MergeContext(statistics={"fisher": [{}, {}]}))
    with pytest.raises(ConfigError, match=r"No data was given. Give data with --suite"):
        settings(trials=2, information="none").merge(None, [model, model], MergeContext())
    with pytest.raises(ConfigError, match=r"one model; there are 2"):
        settings(result="fisher").merge(None, [model, model], merge_context(suite, {}))
    with pytest.raises(ConfigError, match=r"m1 answers shade, and the rows have colour"):
        shade = dataclasses.replace(COLOUR, name="shade")
        FisherMerging().merge(None, [model, make_model(1, (shade,))], merge_context(suite, {}))
    with pytest.raises(DataError, match=r"None of the 'train' rows counts for m0: all are labelled for other tasks than colour"):
        other = make_suite(tasks=(COLOUR, LATE), colour=np.full(60, -1, np.int64))
        settings(result="fisher").merge(None, [model], merge_context(other, {}))
    with pytest.raises(DataError, match=r"None of the 'val' rows has a label of colour"):
        unlabelled = dataclasses.replace(suite, targets={"colour": np.full(60, -1, np.int64)})
        settings(trials=2).merge(None, [model, model], merge_context(unlabelled, {}))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"weights": (0.5, -0.5)}, "at least 0 and not all 0"),
        ({"weights": (0.0, 0.0)}, "at least 0 and not all 0"),
        ({"weights": (float("nan"), 1.0)}, "finite"),
        ({"weights": (1.0, 1.0), "trials": 3}, "Leave one of the two out"),
        ({"trials": -1}, "must be at least 0"),
        ({"num_rows": 0}, "must be at least 0"),
    ],
)
def test_wrong_settings_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        FisherConfig(**values)
