from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from graftwork.core.tensor_files import TensorFile
from graftwork.methods.merging.driver import iterate_merged
from graftwork.methods.merging.ties import TiesMerger


def test_each_tensor_is_given_back_once_it_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    for number in range(3):
        # More entries than a first sample holds, so that TIES asks for two passes.
        save_file({name: random.normal(size=300_000).astype("f4") for name in "abc"}, tmp_path / f"{number}.safetensors")
    base, *experts = (TensorFile(tmp_path / f"{number}.safetensors") for number in range(3))
    released: list[tuple[Path, str]] = []
    original = TensorFile.release

    def release(self: TensorFile, name: str) -> None:
        released.append((self.path, name))
        original(self, name)

    monkeypatch.setattr(TensorFile, "release", release)
    seen = []
    for name, values in iterate_merged(base, experts, TiesMerger()):
        # Not before its values are taken: of the passes the last tensor alone is still there.
        assert released.count((base.path, name)) == (2 if name != "c" else 1)
        seen.append((name, values))
    files = [source.path for source in (base, *experts)]
    assert [name for name, _ in seen] == ["a", "b", "c"]
    assert released[-9:] == [(file, name) for name in "abc" for file in files]
    in_memory = [{name: np.array(source[name]) for name in source} for source in (base, *experts)]
    for name, values in iterate_merged(in_memory[0], in_memory[1:], TiesMerger()):
        np.testing.assert_array_equal(values, dict(seen)[name])
