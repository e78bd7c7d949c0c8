from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from graftwork.core.errors import ConfigError, DataError
from graftwork.core.files import hash_file
from graftwork.core.tensor_files import TensorFile
from graftwork.methods.merging.driver import merge_arrays
from graftwork.methods.merging.ties import TiesConfig, TiesMerger
from graftwork.workflows.merge import build_merger, merge


@pytest.fixture
def family(tmp_path: Path) -> tuple[Path, list[Path]]:
    """A base and three tuned models with a head, batch normalisation and a bfloat16 tensor."""
    generator = torch.Generator().manual_seed(0)

    def model(noise: float) -> dict[str, torch.Tensor]:
        def values(*size: int) -> torch.Tensor:
            fixed = torch.linspace(-1, 1, int(np.prod(size))).reshape(size)
            return fixed + noise * torch.randn(size, generator=generator)

        return {
            "trunk.weight": values(8, 6),
            "trunk.half": values(10).bfloat16(),
            "norm.running_mean": values(4),
            "norm.num_batches_tracked": torch.tensor(int(noise * 100)),
            "head.weight": values(3, 8),
        }

    paths = []
    for name, noise in (("base", 0.0), ("a", 0.5), ("b", 0.7), ("c", 0.9)):
        paths.append(tmp_path / f"{name}.safetensors")
        save_file(model(noise), paths[-1])
    return paths[0], paths[1:]


def test_file_merge_equals_merge_in_memory_and_leaves_heads_and_counters(family: tuple[Path, list[Path]], tmp_path: Path) -> None:
    base, models = family
    report = merge(base, models, tmp_path / "out.safetensors", method="ties", density=0.5, scaling=1.3, exclude=["head.*"])
    merged, start = load_file(report.path), load_file(base)
    expected = merge_arrays(
        TensorFile(base),
        [TensorFile(path) for path in models],
        TiesMerger(TiesConfig(density=0.5, scaling=1.3)),
        exclude=["head.*"],
    )
    np.testing.assert_allclose(merged["trunk.weight"].numpy(), expected["trunk.weight"], rtol=1e-6)
    assert merged["trunk.half"].dtype == torch.bfloat16
    torch.testing.assert_close(merged["trunk.half"], torch.from_numpy(expected["trunk.half"]).bfloat16())
    torch.testing.assert_close(merged["head.weight"], start["head.weight"], rtol=0, atol=0)
    assert merged["norm.num_batches_tracked"] == start["norm.num_batches_tracked"]
    means = torch.stack([load_file(path)["norm.running_mean"] for path in models]).mean(0)
    torch.testing.assert_close(merged["norm.running_mean"], means)
    assert report.num_parameters == 58
    assert 0.0 < report.sign_conflict_share < 1.0  # type: ignore[operator]


def test_lineage_in_the_file_names_inputs_and_settings(family: tuple[Path, list[Path]], tmp_path: Path) -> None:
    base, models = family
    merge(base, models, tmp_path / "out.safetensors", method="ties", density=0.3)
    metadata = TensorFile(tmp_path / "out.safetensors").metadata
    assert json.loads(metadata["inputs_sha256"]) == {path.name: hash_file(path) for path in (base, *models)}
    assert json.loads(metadata["method"])["density"] == 0.3


def test_averaging_of_one_model_is_that_model(family: tuple[Path, list[Path]], tmp_path: Path) -> None:
    base, models = family
    merge(base, models[:1], tmp_path / "out.safetensors", method="linear")
    torch.testing.assert_close(load_file(tmp_path / "out.safetensors")["trunk.weight"], load_file(models[0])["trunk.weight"])


def test_task_arithmetic_is_the_formula(family: tuple[Path, list[Path]], tmp_path: Path) -> None:
    base, models = family
    merge(base, models, tmp_path / "out.safetensors", method="task-arithmetic", scaling=0.4, weights=[1, 2, 0.5])
    start = load_file(base)["trunk.weight"].double()
    changes = [load_file(path)["trunk.weight"].double() - start for path in models]
    expected = start + 0.4 * (changes[0] + 2 * changes[1] + 0.5 * changes[2])
    torch.testing.assert_close(load_file(tmp_path / "out.safetensors")["trunk.weight"].double(), expected, rtol=1e-5, atol=1e-6)


def test_models_that_do_not_fit_are_all_named(family: tuple[Path, list[Path]], tmp_path: Path) -> None:
    base, models = family
    wrong = load_file(models[1])
    wrong["trunk.weight"] = torch.ones(2, 2)
    del wrong["head.weight"]
    save_file(wrong, models[1])
    with pytest.raises(
        DataError, match=r"model 2 has no tensor 'head.weight'; model 2: 'trunk.weight' is \[2, 2\], the base has \[8, 6\]"
    ):
        merge(base, models, tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()


def test_a_model_of_another_base_is_refused(family: tuple[Path, list[Path]], tmp_path: Path) -> None:
    base, models = family
    save_file(load_file(models[0]), models[0], metadata={"base_fingerprint": hash_file(base)})
    merge(base, models, tmp_path / "out.safetensors")
    save_file(load_file(models[0]), models[0], metadata={"base_fingerprint": "f" * 64})
    with pytest.raises(DataError, match="was tuned from another base"):
        merge(base, models, tmp_path / "out2.safetensors")


def test_nan_is_traced_to_its_model(family: tuple[Path, list[Path]], tmp_path: Path) -> None:
    base, models = family
    broken = load_file(models[2])
    broken["trunk.weight"][0, 0] = float("nan")
    save_file(broken, models[2])
    report = merge(base, models, tmp_path / "out.safetensors", method="averaging")
    assert len(report.not_finite) == 1
    assert "trunk.weight (from" in report.not_finite[0]
    assert "c.safetensors" in report.not_finite[0]


@pytest.mark.parametrize("link", ["same", "relative", "symbolic", "hard", "base"])
def test_inputs_are_never_overwritten(
    family: tuple[Path, list[Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, link: str
) -> None:
    base, models = family
    monkeypatch.chdir(base.parent)
    out = {"same": models[0], "relative": Path(f"../{base.parent.name}/{models[0].name}"), "base": base}.get(
        link, tmp_path / "link"
    )
    if link == "symbolic":
        out.symlink_to(models[0])
    elif link == "hard":
        out.hardlink_to(models[0])
    before = [path.read_bytes() for path in (base, *models)]
    with pytest.raises(ConfigError, match=r"is also an input .* would be overwritten.*--out"):
        merge(base, models, out)
    assert [path.read_bytes() for path in (base, *models)] == before
    assert out.is_symlink() == (link == "symbolic")


def test_nothing_is_written_into_a_model_folder_that_is_read(family: tuple[Path, list[Path]], tmp_path: Path) -> None:
    base, models = family
    folder = tmp_path / "base"
    folder.mkdir()
    base.rename(folder / "model.safetensors")
    (folder / "config.json").write_text("{}")
    (tmp_path / "link").symlink_to(folder)
    for out in (folder / "config.json", folder / "merged.safetensors", tmp_path / "link" / "config.json"):
        with pytest.raises(ConfigError, match=r"lies in the folder of .*base, one of the models to merge.*--out"):
            merge(folder, models, out)
    with pytest.raises(ConfigError, match=r"model\.safetensors is also an input"):
        merge(folder, models, folder / "model.safetensors")
    with pytest.raises(ConfigError, match="is not empty and is not a merge of graftwork"):
        merge(folder, models, folder)
    assert {path.name for path in folder.iterdir()} == {"model.safetensors", "config.json"}
    assert (folder / "config.json").read_text() == "{}"
    for _ in range(2):  # an earlier result may be replaced
        merge(folder, models, tmp_path / "merged.safetensors")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"method": "tise"}, "Did you mean 'ties'"),
        ({"method": "averaging", "density": 0.2}, "`density` belongs to breadcrumbs, .*ties, not to averaging"),
        ({"method": "averaging", "scaling": 0.2}, "belongs to .*task-arithmetic, ties, not to averaging"),
    ],
)
def test_bad_options_name_the_remedy(call: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_merger(**call)


def test_the_default_is_task_arithmetic(family: tuple[Path, list[Path]], tmp_path: Path) -> None:
    """Our own evidence: untuned it is ahead of TIES and far ahead of averaging on tuned text encoders."""
    base, models = family
    plain = load_file(merge(base, models, tmp_path / "plain.safetensors").path)
    named = load_file(merge(base, models, tmp_path / "named.safetensors", method="task-arithmetic", scaling=0.4).path)
    assert all(torch.equal(plain[name], named[name]) for name in named)
