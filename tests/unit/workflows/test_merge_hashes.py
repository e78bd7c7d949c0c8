import hashlib
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from graftwork.core.errors import DataError
from graftwork.core.files import hash_file
from graftwork.workflows import merge_hashes
from graftwork.workflows.merge import merge
from graftwork.workflows.merge_hashes import InputHashes, hash_mapped


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Every file that is hashed, as often as it is."""
    seen: list[Path] = []

    def counting(path: Path) -> str:
        seen.append(path)
        return hash_mapped(path)

    monkeypatch.setattr(merge_hashes, "hash_mapped", counting)
    return seen


@pytest.mark.parametrize("size", [1, 4096, 16_384, 16_385, 40_000])
def test_mapped_files_have_the_sha256_of_their_bytes(size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merge_hashes, "_BLOCK", 1 << 14)
    content = np.random.default_rng(size).bytes(size)
    (tmp_path / "file").write_bytes(content)
    assert hash_mapped(tmp_path / "file") == hashlib.sha256(content).hexdigest()


def test_every_file_is_hashed_once_in_threads(tmp_path: Path, hashed: list[Path]) -> None:
    files = [tmp_path / f"{number}" for number in range(7)]
    for number, file in enumerate(files):
        file.write_bytes(bytes([number]) * 1000)
    hashes = InputHashes()
    assert hashes.of(files[3]) == hash_file(files[3])
    hashes.start([*files, files[0]])
    assert hashes.wait() == {file: hash_file(file) for file in files}
    assert sorted(hashed) == files


def test_a_file_that_is_gone_or_empty_is_said_where_the_hashes_are_asked_for(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    for name, said in (("gone", "No such file"), ("empty", "empty")):
        hashes = InputHashes()
        hashes.start([tmp_path / name])
        with pytest.raises(DataError, match=rf"{name} could not be read for its hash: .*{said}.*Run the merge again"):
            hashes.wait()


def test_a_base_that_is_checked_is_not_hashed_again(tmp_path: Path, hashed: list[Path]) -> None:
    base, tuned = tmp_path / "base.safetensors", tmp_path / "tuned.safetensors"
    save_file({"w": np.zeros(4, np.float32)}, base)
    save_file({"w": np.ones(4, np.float32)}, tuned, metadata={"base_fingerprint": hash_file(base)})
    merge(base, [tuned], tmp_path / "out.safetensors")
    assert sorted(hashed) == [base, tuned]
    hashed.clear()
    # Without hashes in the lineage the base is still checked, and nothing else is read twice.
    merge(base, [tuned], tmp_path / "out.safetensors", hashes=False)
    assert hashed == [base]
