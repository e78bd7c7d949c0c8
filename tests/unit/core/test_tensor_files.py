from __future__ import annotations

import json
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from graftwork.core.errors import DataError, FileFormatError
from graftwork.core.tensor_files import TensorFile, narrow_to_bfloat16, open_tensors, widen_bfloat16, write_tensors

TENSORS = {
    "a.weight": torch.randn(3, 4, generator=torch.Generator().manual_seed(0)),
    "b": torch.arange(5),
    "half": torch.tensor([0.5, -2.0], dtype=torch.float16),
    "brain": torch.tensor([1.5, -3.0, 1e-3], dtype=torch.bfloat16),
    "scalar": torch.tensor(2.0),
    "flags": torch.tensor([True, False]),
}


def test_reads_what_the_safetensors_package_writes(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "m.safetensors", metadata={"note": "x"})
    source = TensorFile(tmp_path / "m.safetensors")
    assert list(source) == sorted(TENSORS)
    assert source.metadata == {"note": "x"}
    for name, tensor in TENSORS.items():
        np.testing.assert_array_equal(source[name], tensor.float().numpy() if tensor.dtype == torch.bfloat16 else tensor.numpy())


def test_the_safetensors_package_reads_what_we_write(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "m.safetensors")
    source = TensorFile(tmp_path / "m.safetensors")
    layout = {name: (source.dtype_name(name), source.shape(name)) for name in source}
    write_tensors(tmp_path / "copy.safetensors", layout, source.items(), {"a": "b"})
    for name, tensor in load_file(tmp_path / "copy.safetensors").items():
        torch.testing.assert_close(tensor, TENSORS[name], rtol=0, atol=0)


@given(st.lists(st.floats(width=32, allow_nan=True), min_size=1, max_size=20))
def test_bfloat16_rounds_as_torch_does(values: list[float]) -> None:
    array = np.array(values, np.float32)
    expected = torch.from_numpy(array).bfloat16().float().numpy()
    np.testing.assert_array_equal(widen_bfloat16(narrow_to_bfloat16(array)), expected)


def test_shards_are_one_model_and_a_missing_one_is_named(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "model-1.safetensors")
    save_file({"b": torch.zeros(2)}, tmp_path / "model-2.safetensors")
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    source = open_tensors(tmp_path)
    assert list(source) == ["a", "b"]
    np.testing.assert_array_equal(source["a"], [1.0, 1.0])
    (tmp_path / "model-2.safetensors").unlink()
    with pytest.raises(FileFormatError, match="missing model-2.safetensors"):
        open_tensors(tmp_path)


class Bomb:
    def __reduce__(self) -> tuple:
        return (Path("exploded").touch, ())


def test_a_renamed_pickle_is_refused_unopened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.safetensors").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(FileFormatError, match="is a pickle, whatever its name says"):
        open_tensors(tmp_path / "m.safetensors")
    torch.save({"w": torch.ones(1)}, tmp_path / "n.safetensors")
    assert zipfile.is_zipfile(tmp_path / "n.safetensors")
    with pytest.raises(FileFormatError, match="zip archive, probably a PyTorch pickle"):
        open_tensors(tmp_path / "n.safetensors")
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"is empty \(0 bytes\)"),
        (b"abc", "not a safetensors file, or it is truncated"),
        (b"\xff" * 64, "not a safetensors file, or it is truncated"),
        ((12).to_bytes(8, "little") + b"{not json}  ", "header is not JSON"),
        ((2).to_bytes(8, "little") + b"[]", "no JSON object"),
        ((14).to_bytes(8, "little") + b'{"a": "small"}', "entry for 'a' cannot be read"),
    ],
)
def test_broken_files_are_named(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "m.safetensors").write_bytes(content)
    with pytest.raises(FileFormatError, match=message):
        open_tensors(tmp_path / "m.safetensors")


def test_every_truncation_is_noticed(tmp_path: Path) -> None:
    save_file({"a": torch.randn(40), "b": torch.randn(3, 3)}, tmp_path / "m.safetensors")
    content = (tmp_path / "m.safetensors").read_bytes()
    for size in range(0, len(content), 7):
        (tmp_path / "cut.safetensors").write_bytes(content[:size])
        with pytest.raises(FileFormatError):
            open_tensors(tmp_path / "cut.safetensors")


def test_a_tensor_that_never_came_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "m.safetensors"
    target.write_text("old")
    with pytest.raises(DataError, match="no values came for b"):
        write_tensors(target, {"a": ("F32", (1,)), "b": ("F32", (1,))}, [("a", np.ones(1))])
    assert target.read_text() == "old"


def test_no_torch_is_imported() -> None:
    code = "import sys, graftwork.workflows.merge; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def _mapped_bytes() -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssFile:"))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux")
def test_released_tensors_leave_the_memory_of_the_process_and_keep_their_values(tmp_path: Path) -> None:
    size = 1 << 22
    content = {name: torch.randn(size + 3, generator=torch.Generator().manual_seed(7)) for name in ("a", "b")}
    save_file({**content, "empty": torch.zeros(0)}, tmp_path / "m.safetensors")
    source = open_tensors(tmp_path)
    kept = {name: source[name] for name in source}
    sums = {name: float(values.sum()) for name, values in kept.items()}
    before = _mapped_bytes()
    for name in source:
        source.release(name)
    assert before - _mapped_bytes() > 1.8 * 4 * size
    # Views that were taken before still show the file.
    assert {name: float(values.sum()) for name, values in kept.items()} == sums
    np.testing.assert_array_equal(source["b"], content["b"].numpy())


def test_asking_for_a_name_reads_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_file(TENSORS, tmp_path / "m.safetensors")
    sources = [open_tensors(tmp_path), open_tensors(tmp_path / "m.safetensors")]
    monkeypatch.setattr("graftwork.core.tensor_files.widen_bfloat16", None)
    for source in sources:
        assert "brain" in source
        assert "other" not in source
        assert 3 not in source
