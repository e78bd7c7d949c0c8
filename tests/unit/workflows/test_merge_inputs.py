"""What users hand in, and what a merge makes of it: the right numbers, or an error that names file, tensor and value."""

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
from graftwork.core.errors import DataError, FileFormatError
from graftwork.core.files import hash_file
from graftwork.core.tensor_files import TensorFile, write_tensors
from graftwork.workflows.merge import merge
from graftwork.workflows.mergekit import merge_from_yaml


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


def test_lineage_has_the_hash_of_every_file_also_where_all_have_one_name(tmp_path: Path) -> None:
    paths = []
    for number, place in enumerate(("base", "a", "b", "c")):
        (tmp_path / place).mkdir()
        paths.append(tmp_path / place / "model.safetensors")
        save_arrays({"w": np.full(2, number, np.float32)}, paths[-1])
    report = merge(paths[0], paths[1:], tmp_path / "out.safetensors", method="averaging")
    found = json.loads(TensorFile(report.path).metadata["inputs_sha256"])
    assert found == {f"{path.parent.name}/model.safetensors": hash_file(path) for path in paths}
    # Folders, files in folders of that name, and files beside the models.
    merge(tmp_path / "base", [tmp_path / "a", paths[2]], tmp_path / "out2.safetensors", method="averaging")
    found = json.loads(TensorFile(tmp_path / "out2.safetensors").metadata["inputs_sha256"])
    assert sorted(found.values()) == sorted(hash_file(path) for path in paths[:3])


def test_a_file_that_vanishes_is_no_bug(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base, *models = constants(tmp_path, 0, 1, 2)

    def gone(path: Path) -> str:
        raise FileNotFoundError(2, "No such file or directory", str(path))

    monkeypatch.setattr("graftwork.workflows.merge_hashes.hash_mapped", gone)
    with pytest.raises(DataError, match=r"constant-\d\.safetensors could not be read.*No such file"):
        merge(base, models, tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()


def test_models_that_are_mostly_nan_end_with_their_name(tmp_path: Path) -> None:
    base, *models = (tmp_path / f"{number}.safetensors" for number in range(3))
    save_arrays({"w": np.zeros(600_000, np.float32)}, base)
    save_arrays({"w": np.ones(600_000, np.float32)}, models[0])
    save_arrays({"w": np.full(600_000, np.nan, np.float32)}, models[1])
    with pytest.raises(DataError, match=r"'w' of model 2, where 600,000 of 600,000 entries are NaN"):
        merge(base, models, tmp_path / "out.safetensors", method="ties")
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


@pytest.mark.parametrize("dtype", ["BF16", "F16"])
@pytest.mark.parametrize("method", ["averaging", "task-arithmetic", "ties"])
def test_memory_stays_at_one_widened_tensor(method: str, dtype: str, tmp_path: Path) -> None:
    size = 3_000_000
    paths = [tmp_path / f"{number}.safetensors" for number in range(4)]
    for number, path in enumerate(paths):
        values = np.random.default_rng(number).standard_normal(size, np.float32)
        write_tensors(path, {"w": (dtype, (size,))}, [("w", values)])
    merge(paths[0], paths[1:], tmp_path / "out.safetensors", method=method, hashes=False)  # imports and caches
    tracemalloc.start()
    merge(paths[0], paths[1:], tmp_path / "out.safetensors", method=method, hashes=False)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    sampled = 4 * len(paths) * (1 << 19) * 2 if method == "ties" else 0  # of each model, while it is thinned out
    assert peak < 4 * size * 1.3 + 8e6 + sampled


def mapped_bytes() -> int:
    """Pages of files in this process's memory."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith("RssFile")))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's account of mapped files")
@pytest.mark.parametrize("dtype", ["F32", "BF16", "F16"])
@pytest.mark.parametrize("method", ["linear", "task_arithmetic", "passthrough"])
@pytest.mark.parametrize("way", ["flags", "yaml"])
def test_mapped_pages_of_written_tensors_are_given_back(way: str, method: str, dtype: str, tmp_path: Path) -> None:
    size, count = 500_000, 12
    item = {"F32": 4, "BF16": 2, "F16": 2}[dtype]
    for number in range(3):
        layout = {f"layers.{place}.w": (dtype, (size,)) for place in range(count)}
        values = np.random.default_rng(number).standard_normal(size, np.float32)
        write_tensors(tmp_path / f"{number}.safetensors", layout, [(name, values) for name in layout])
    models = [
        {"model": f"{number}.safetensors", "parameters": {"weight": 0.5}}
        for number in ((1,) if method == "passthrough" else (1, 2))
    ]
    file = tmp_path / "merge.yml"
    file.write_text(
        json.dumps(
            {"merge_method": method, "models": models, **({"base_model": "0.safetensors"} if method == "task_arithmetic" else {})}
        )
    )
    seen: list[int] = []

    def look(done: int, total: int) -> None:
        seen.append(mapped_bytes())

    def go() -> None:
        if way == "yaml":
            merge_from_yaml(file, tmp_path / "out.safetensors", hashes=False, on_progress=look)
        else:
            paths = [tmp_path / item["model"] for item in models]
            merge(tmp_path / "0.safetensors", paths, tmp_path / "out.safetensors", method=method, hashes=False, on_progress=look)

    go()  # code that is imported is mapped, too
    seen.clear()
    before = mapped_bytes()
    go()
    assert len(seen) == count
    # One tensor of each of three models, and as much again for what stands around them; all would be twelve.
    assert max(seen) - before < 6 * size * item


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
