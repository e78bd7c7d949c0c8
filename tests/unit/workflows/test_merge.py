from __future__ import annotations

import json
import os
import random
import struct
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import load_file, save_file

from graftwork.cli.main import main
from graftwork.core.errors import ConfigError, DataError, FileFormatError
from graftwork.core.files import hash_file
from graftwork.core.tensor_files import TensorFile, write_tensors
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
    report = merge(base, models, tmp_path / "out.safetensors", density=0.5, scaling=1.3, exclude=["head.*"])
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
    with pytest.raises(ConfigError, match=r"is a folder\. Name the file"):
        merge(folder, models, folder)
    assert {path.name for path in folder.iterdir()} == {"model.safetensors", "config.json"}
    assert (folder / "config.json").read_text() == "{}"
    for _ in range(2):  # an earlier result may be replaced
        merge(folder, models, tmp_path / "merged.safetensors")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"method": "tise"}, "Did you mean 'ties'"),
        ({"method": "averaging", "density": 0.2}, "`density` belongs to ties"),
        ({"method": "averaging", "scaling": 0.2}, "no meaning for averaging"),
    ],
)
def test_bad_options_name_the_remedy(call: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_merger(**call)


# --- what a user may hand in -----------------------------------------------------------------------------------------


def constants(folder: Path, *values: float, **more: np.ndarray) -> list[Path]:
    """Write models whose only weight is a constant, the base first."""
    paths = []
    for number, value in enumerate(values):
        paths.append(folder / f"constant-{number}.safetensors")
        save_arrays({"w": np.full((2, 2), value, np.float32), **more}, paths[-1])
    return paths


def command(*words: object) -> int:
    return main(["merge", *map(str, words)])


@pytest.mark.parametrize("weights", ["1", "1,1", "1,1,1,1", "1,inf,1", "1,nan,1"])
@pytest.mark.parametrize("method", ["averaging", "task-arithmetic", "ties"])
def test_weights_are_one_finite_number_a_model(
    weights: str, method: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base, *models = constants(tmp_path, 0, 1, 2, 4)
    out = tmp_path / "out.safetensors"
    words = ("--base", base, "--models", *models, "--out", out, "--method", method, f"--weights={weights}")
    assert command(*words) == 2
    said = capsys.readouterr().err
    assert ("numbers for 3 models" in said) or ("finite" in said)
    assert not out.exists()
    assert command(*words[:-1], "--weights=1,1,2") == 0


def test_tensors_without_a_counterpart_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base, first, second = constants(tmp_path, 0, 1, 2)
    save_arrays({"w": np.ones((2, 2), np.float32), "lm_head.weight": np.ones(3, np.float32)}, first)
    words = ("--base", base, "--models", first, second, "--out", tmp_path / "out.safetensors", "--quiet")
    assert command(*words) == 0
    assert "model 1 has 1 tensors that the base does not have; they are left out: lm_head.weight" in capsys.readouterr().err
    assert command(*words, "--exclude", "lm_head.*") == 0
    assert capsys.readouterr().err == ""


def test_integer_weights_are_not_merged(tmp_path: Path) -> None:
    paths = []
    for number in range(3):
        paths.append(tmp_path / f"q{number}.safetensors")
        values = {"qweight": np.arange(6, dtype=np.int32) * (number + 1), "scales": np.full(2, number, np.float32)}
        save_arrays(values, paths[-1])
    with pytest.raises(DataError, match=r"model 1: 'qweight' holds I32 that differ from the base's.*unquantised"):
        merge(paths[0], paths[1:], tmp_path / "out.safetensors")


def test_types_that_numpy_does_not_know_are_kept_if_they_are_equal(tmp_path: Path) -> None:
    bits = torch.arange(8, dtype=torch.uint8).view(torch.float8_e4m3fn)
    for number in range(3):
        save_file({"w": torch.full((2,), float(number)), "small": bits}, tmp_path / f"{number}.safetensors")
    paths = [tmp_path / f"{number}.safetensors" for number in range(3)]
    merge(paths[0], paths[1:], tmp_path / "out.safetensors", method="averaging")
    merged = load_file(tmp_path / "out.safetensors")
    assert torch.equal(merged["small"].view(torch.uint8), bits.view(torch.uint8))
    assert merged["w"].tolist() == [1.5, 1.5]
    save_file({"w": torch.ones(2), "small": (bits.view(torch.uint8) + 1).view(torch.float8_e4m3fn)}, paths[1])
    with pytest.raises(DataError, match="'small' holds F8_E4M3 that differ"):
        merge(paths[0], paths[1:], tmp_path / "out.safetensors", method="averaging")


def test_only_the_model_of_a_training_folder_is_read(tmp_path: Path) -> None:
    folders = []
    for name, value in (("base", 0.0), ("a", 1.0), ("b", 3.0)):
        folders.append(tmp_path / name)
        folders[-1].mkdir()
        save_arrays({"w": np.full(2, value, np.float32)}, folders[-1] / "model.safetensors")
        save_arrays({"w": np.full(2, 99.0, np.float32)}, folders[-1] / "optimizer.safetensors")
    merge(folders[0], folders[1:], tmp_path / "out.safetensors", method="averaging")
    assert TensorFile(tmp_path / "out.safetensors")["w"].tolist() == [2.0, 2.0]


def test_lineage_has_every_file_under_its_folder(tmp_path: Path) -> None:
    paths = []
    for place in ("x/base", "x/a", "y/a"):
        folder = tmp_path / place
        folder.mkdir(parents=True)
        paths.append(folder)
        for part in ("v", "w"):
            shard = {part: np.full(2, len(paths), np.float32)}
            save_arrays(shard, folder / f"model-{1 if part == 'v' else 2}-of-2.safetensors")
    report = merge(paths[0], paths[1:], tmp_path / "out.safetensors", method="averaging")
    metadata = TensorFile(report.path).metadata
    digests = json.loads(metadata["inputs_sha256"])
    assert digests == {
        f"{place}/model-{part}-of-2.safetensors": hash_file(tmp_path / place / f"model-{part}-of-2.safetensors")
        for place in ("x/base", "x/a", "y/a")
        for part in (1, 2)
    }
    assert (metadata["base"], json.loads(metadata["models"])) == ("x/base", ["x/a", "y/a"])
    assert str(tmp_path) not in json.dumps(dict(metadata))


def test_a_file_that_vanishes_is_no_bug(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base, *models = constants(tmp_path, 0, 1, 2)

    def gone(path: Path) -> str:
        raise FileNotFoundError(2, "No such file or directory", str(path))

    monkeypatch.setattr("graftwork.workflows.merge_lineage.hash_file", gone)
    with pytest.raises(DataError, match=r"constant-0\.safetensors could not be read.*No such file"):
        merge(base, models, tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()


def test_models_that_are_mostly_nan_end_with_their_name(tmp_path: Path) -> None:
    base, *models = (tmp_path / f"{number}.safetensors" for number in range(3))
    save_arrays({"w": np.zeros(600_000, np.float32)}, base)
    save_arrays({"w": np.ones(600_000, np.float32)}, models[0])
    save_arrays({"w": np.full(600_000, np.nan, np.float32)}, models[1])
    with pytest.raises(DataError, match=r"'w' of model 2, where 600,000 of 600,000 entries are NaN"):
        merge(base, models, tmp_path / "out.safetensors")
    report = merge(base, models, tmp_path / "out.safetensors", method="averaging")
    assert report.not_finite == (f"w (from {models[1]})",)


def test_values_that_the_stored_type_cannot_hold_are_said(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.safetensors" for number in range(2)]
    for path, value in zip(paths, (0.0, 60_000.0), strict=True):
        save_arrays({"w": np.full(3, value, np.float16)}, path)
    report = merge(paths[0], paths[1:], tmp_path / "out.safetensors", method="task-arithmetic", scaling=2.0)
    assert report.not_finite == ("w (values up to 1.2e+05 do not fit F16)",)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_equal_models_come_back_bit_for_bit(dtype: type, tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(40, 30)).astype(dtype)
    paths = [tmp_path / f"{number}.safetensors" for number in range(4)]
    for number, path in enumerate(paths):
        save_arrays({"w": values if number else np.zeros_like(values)}, path)
    for models in (paths[1:2], paths[1:]):
        merge(paths[0], models, tmp_path / "out.safetensors", method="averaging")
        np.testing.assert_array_equal(TensorFile(tmp_path / "out.safetensors")["w"], values)


def test_kept_bfloat16_is_copied_bit_for_bit(tmp_path: Path) -> None:
    bits = np.arange(65536, dtype=np.uint16)  # every bfloat16 there is, all NaN included
    for number in range(2):
        path = tmp_path / f"{number}.safetensors"
        save_file({"keep": torch.from_numpy(bits).view(torch.bfloat16), "w": torch.full((2,), float(number))}, path)
    merge(tmp_path / "0.safetensors", [tmp_path / "1.safetensors"], tmp_path / "out.safetensors", exclude=["keep"])
    kept = load_file(tmp_path / "out.safetensors")["keep"].view(torch.uint16).numpy()
    np.testing.assert_array_equal(kept, bits)


@pytest.mark.parametrize("method", ["averaging", "task-arithmetic", "ties"])
def test_memory_stays_at_one_widened_tensor(method: str, tmp_path: Path) -> None:
    size = 3_000_000
    paths = [tmp_path / f"{number}.safetensors" for number in range(4)]
    for number, path in enumerate(paths):
        values = np.random.default_rng(number).standard_normal(size, np.float32)
        write_tensors(path, {"w": ("BF16", (size,))}, [("w", values)])
    merge(paths[0], paths[1:], tmp_path / "out.safetensors", method=method, hashes=False)  # imports and caches
    tracemalloc.start()
    merge(paths[0], paths[1:], tmp_path / "out.safetensors", method=method, hashes=False)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    sampled = 4 * len(paths) * (1 << 19) * 2 if method == "ties" else 0  # of each model, while it is thinned out
    assert peak < 4 * size * 1.3 + 8e6 + sampled


def test_what_killed_merges_left_is_swept_at_the_next_start(tmp_path: Path) -> None:
    base, *models = constants(tmp_path, 0, 1, 2)
    code = (
        "import os, signal, sys; import graftwork.core.tensor_files as files, graftwork.workflows.merge as work\n"
        "files._write_at = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "work.merge(sys.argv[1], sys.argv[2:3], sys.argv[3])"
    )
    words = [sys.executable, "-c", code, str(base), str(models[0]), str(tmp_path / "other.safetensors")]
    assert subprocess.run(words, check=False).returncode == -9
    (left,) = [name for name in os.listdir(tmp_path) if name.endswith(".tmp")]
    report = merge(base, models, tmp_path / "out.safetensors")
    (note,) = report.notes
    assert left in note
    assert "that a killed process left behind" in note
    assert not [name for name in os.listdir(tmp_path) if name.endswith(".tmp")]


def test_damaged_models_are_named_errors_or_whole_results_and_never_a_bug(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base, *models = constants(tmp_path, 0, 1, 2, count=np.array(3), extra=np.ones(5, np.float16))
    whole, chance = models[1].read_bytes(), random.Random(0)
    codes = {0: 0, 1: 0, 2: 0}
    for number in range(240):
        broken = bytearray(whole)
        for _ in range(chance.choice((1, 2, 5))):
            place = chance.randrange(len(broken))
            broken[place] = chance.randrange(256) if number % 2 else chance.choice(b'0123456789,:"[]{}-eE. ')
        if number % 5 == 0:
            del broken[chance.randrange(len(broken)) :]
        elif number % 5 == 1:
            broken[:8] = struct.pack("<Q", chance.randrange(len(broken)))
        models[1].write_bytes(bytes(broken))
        code = command("--base", base, "--models", *models, "--out", tmp_path / "out.safetensors", "--method", "ties", "--quiet")
        said = capsys.readouterr().err
        assert "This is a bug" not in said, (bytes(broken), said)
        assert code != 1 or "NaN or infinity" in said
        codes[code] += 1
    assert codes[2] > 100
    assert codes[0] > 5


def test_damaged_indices_and_odd_paths_are_named_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base, model = constants(tmp_path, 0, 1)
    folder = tmp_path / "shards"
    folder.mkdir()
    for index in ("{", "[]", "3", "{}", '{"weight_map": {"w": "../constant-1.safetensors"}}', "[" * 99_999):
        (folder / "model.safetensors.index.json").write_text(index)
        assert command("--base", base, "--models", folder, "--out", tmp_path / "out.safetensors") == 2
        assert "model.safetensors.index.json" in capsys.readouterr().err
    assert command("--base", base, "--models", os.devnull, "--out", tmp_path / "out.safetensors") == 2
    assert "neither a file nor a folder" in capsys.readouterr().err
    with pytest.raises(FileFormatError, match="cannot be read: Is a directory"):
        (folder / "model.safetensors.index.json").write_text('{"weight_map": {"w": "deep.safetensors"}}')
        (folder / "deep.safetensors").mkdir()
        merge(base, [folder], tmp_path / "out.safetensors")
    assert model.exists()
