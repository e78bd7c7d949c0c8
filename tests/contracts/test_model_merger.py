"""What every merger of whole models must do: the ModelMerger seam, found by cards as ``graftwork merge`` finds them."""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from throw_away_mergers import throw_away_cards
from torch import Tensor, nn

from graftwork.core.cards import load_cards
from graftwork.core.errors import ConfigError, DataError
from graftwork.core.settings import build_from_settings
from graftwork.core.tensor_files import TensorFile
from graftwork.data.suite import Suite
from graftwork.data.suites.digit_family import digit_family
from graftwork.data.suites.glyphs import glyphs
from graftwork.interfaces.model_merger import MergeContext, MergeModel, ModelMerger
from graftwork.methods.sharing.shared_trunk import SharedTrunk
from graftwork.nn.backbones.vit import ViTBackbone
from graftwork.workflows.merge import merge
from graftwork.workflows.merge_kinds import merge_context
from graftwork.workflows.merge_methods import merge_methods

Model = dict[str, np.ndarray]
Build = Callable[[], ModelMerger]


def found_mergers() -> dict[str, Build]:
    """Return every merger of whole models, built with the settings that its card gives for tests."""
    found: dict[str, Build] = {}
    for name, method in merge_methods({**load_cards(), **throw_away_cards()}).items():
        cls = method.resolve()
        if issubclass(cls, ModelMerger):
            settings = method.contract.get(cls.__name__, {})
            found[name] = lambda cls=cls, settings=settings: build_from_settings(cls, settings)  # type: ignore[misc]
    return found


BUILDERS = found_mergers()


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Network()


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(144, 6), nn.Linear(6, 10)

    def forward(self, rows: Tensor) -> Tensor:
        return self.second(torch.relu(self.first(rows)))  # type: ignore[no-any-return]


def weights(seed: int) -> Model:
    random = np.random.default_rng(seed)
    start = {name: value.numpy() for name, value in network().state_dict().items()}
    return {name: (value + 0.1 * seed * random.normal(size=value.shape)).astype(np.float32) for name, value in start.items()}


def models() -> list[MergeModel]:
    def build(tensors: Model) -> Callable[[], nn.Module]:
        def made() -> nn.Module:
            found = network()
            found.load_state_dict({name: torch.from_numpy(value) for name, value in tensors.items()})
            return found

        return made

    return [MergeModel(name=f"m{seed}", tensors=weights(seed), network=build(weights(seed))) for seed in range(4)]


OF_PICTURES = {"ot-fusion"}
"""Methods that know transformers for pictures only, two at a time."""


@dataclasses.dataclass(frozen=True)
class World:
    suite: Suite
    network: Callable[[], nn.Module]
    models: list[MergeModel]
    """The base first."""


def pictures() -> World:
    suite = glyphs(num_train=20, num_val=4, num_test=4, num_classes=3, size=8, seed=0)

    def make(seed: int = 0) -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            trunk = ViTBackbone(8, width=8, depth=1, num_heads=2)
            return SharedTrunk(suite.tasks, lambda: trunk, inputs=suite.input_specs, head_hidden=0)

    states = [{name: value.numpy().copy() for name, value in make(seed).state_dict().items()} for seed in range(3)]
    return World(
        suite,
        make,
        [MergeModel(name=f"m{seed}", tensors=state, network=functools.partial(make, seed)) for seed, state in enumerate(states)],
    )


@pytest.fixture(scope="module")
def suite() -> Suite:
    return digit_family("plain", seed=0)


@pytest.fixture(params=sorted(BUILDERS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def build(name: str) -> Build:
    return BUILDERS[name]


@pytest.fixture
def world(name: str, suite: Suite) -> World:
    return pictures() if name in OF_PICTURES else World(suite, network, models())


@pytest.fixture
def context(world: World) -> MergeContext:
    return merge_context(world.suite, {"fisher": []}, seed=3)


def assert_same(first: Mapping[str, np.ndarray], second: Mapping[str, np.ndarray]) -> None:
    assert set(first) == set(second)
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name])


def test_it_returns_finite_arrays_and_changes_no_input(build: Build, world: World, context: MergeContext) -> None:
    base, *experts = world.models
    before = [copy.deepcopy(dict(model.tensors)) for model in (base, *experts)]
    merged = build().merge(base, experts, context)
    assert merged
    assert all(np.isfinite(np.asarray(value)).all() for value in merged.values())
    for model, copied in zip((base, *experts), before, strict=True):
        assert_same(model.tensors, copied)


def test_equal_seeds_give_equal_results(build: Build, world: World, context: MergeContext) -> None:
    base, *experts = world.models
    again = dataclasses.replace(context, costs={})
    assert_same(build().merge(base, experts, context), build().merge(base, experts, again))
    assert context.costs == again.costs


def test_the_global_random_state_stays(build: Build, world: World, context: MergeContext) -> None:
    base, *experts = world.models
    before = torch.get_rng_state()
    build().merge(base, experts, context)
    assert torch.equal(torch.get_rng_state(), before)


def test_settings_name_the_method_and_are_plain_values(build: Build) -> None:
    settings = build().settings()
    assert settings["method"]
    assert all(isinstance(value, str | int | float | bool | tuple | list | None) for value in settings.values())


def test_the_file_holds_what_was_returned_with_lineage(build: Build, world: World, tmp_path: Path) -> None:
    paths = []
    for seed, model in enumerate(world.models):
        paths.append(tmp_path / f"m{seed}.safetensors")
        save_file(dict(model.tensors), paths[-1])
    suite = world.suite
    report = merge(paths[0], paths[1:], tmp_path / "out.safetensors", method=build(), suite=suite, network=world.network, seed=3)
    base, *experts = world.models
    expected = build().merge(base, experts, merge_context(suite, {}, seed=3))
    written = TensorFile(report.path)
    assert_same(dict(written), expected)
    assert report.num_models == len(experts)
    assert report.ledger.wall_seconds > 0
    assert f"m{len(experts)}.safetensors" in written.metadata["inputs_sha256"]


def test_what_is_missing_is_named(suite: Suite) -> None:
    context = merge_context(suite, {"fisher": []})
    assert sorted(context.rows) == ["train", "val"], "test rows are for nobody"
    with pytest.raises(ConfigError, match=r"needs rows for 'test', but there are rows for train, val"):
        next(context.batches("test"))
    with pytest.raises(ConfigError, match=r"needs rows for 'val', but no data was given. Give data with --suite"):
        next(MergeContext().batches("val"))
    with pytest.raises(ConfigError, match=r"'fisher' statistics for each of the 3 models; there are 0"):
        context.readers("fisher", 3)
    with pytest.raises(ConfigError, match=r"needs the networks, and m0 holds weights only"):
        MergeModel(name="m0", tensors={}).build()


def test_rows_come_in_order_and_are_counted(suite: Suite) -> None:
    context = merge_context(suite, {})
    rows = torch.cat([batch.rows for batch in context.batches("val", 7)])
    np.testing.assert_array_equal(rows.numpy(), suite.splits["val"])
    assert context.costs == {"samples": len(suite.splits["val"])}


class Broken(ModelMerger):
    def __init__(self, result: Mapping[str, np.ndarray]) -> None:
        self.result = result

    def merge(self, base: object, experts: object, context: object) -> Mapping[str, np.ndarray]:
        return self.result


def test_what_cannot_be_written_is_named(tmp_path: Path) -> None:
    save_file(weights(0), tmp_path / "m.safetensors")
    call = {"base": None, "models": [tmp_path / "m.safetensors"], "out": tmp_path / "out.safetensors"}
    with pytest.raises(DataError, match="returned no tensors"):
        merge(method=Broken({}), **call)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="'x' holds complex128, which cannot be stored"):
        merge(method=Broken({"x": np.ones(2, np.complex128)}), **call)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="`exclude` belongs to methods that go tensor by tensor"):
        merge(method=Broken({"x": np.ones(2)}), exclude=["x"], **call)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="2 functions for 1 models"):
        merge(method=Broken({"x": np.ones(2)}), network=[network, network], **call)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="Name the base with --base"):
        merge(method="ties", **call)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="a network only for scores"):
        merge(method="ties", network=network, **{**call, "base": tmp_path / "m.safetensors"})  # type: ignore[arg-type]
    assert not (tmp_path / "out.safetensors").exists()


def test_stored_types_are_those_of_the_first_model(tmp_path: Path) -> None:
    save_file({"half": np.ones(2, np.float16), "count": np.array(3)}, tmp_path / "m.safetensors")
    result = {"half": np.full(2, 0.5), "count": np.array(4), "new": np.ones((2, 3), np.float32)}
    merge(None, [tmp_path / "m.safetensors"], tmp_path / "out.safetensors", method=Broken(result))
    written = TensorFile(tmp_path / "out.safetensors")
    assert {name: written.dtype_name(name) for name in written} == {"half": "F16", "count": "I64", "new": "F32"}
    assert written["new"].shape == (2, 3)
