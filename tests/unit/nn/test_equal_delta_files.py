"""Equal deltas give equal files, whatever process writes them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load, save

from graftwork.core.tensor_header import with_sorted_texts

WRITE = """
import sys, torch
from graftwork.nn.weight_delta import Dense, WeightDelta
delta = WeightDelta({"w": Dense(torch.ones(2, 3))}, {"w": torch.Size([2, 3])}, base_fingerprint="ab", lineage={"tuner": "x"})
for number in range(8):
    delta.save(f"{sys.argv[1]}/{number}.safetensors")
"""


def test_processes_write_the_same_bytes(tmp_path: Path) -> None:
    found = set()
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        subprocess.run([sys.executable, "-c", WRITE, str(tmp_path / name)], check=True)
        found |= {file.read_bytes() for file in (tmp_path / name).iterdir()}
    assert len(found) == 1


def test_nothing_but_the_order_of_texts_changes(tmp_path: Path) -> None:
    tensors, texts = {"a": torch.arange(3.0), "b": torch.ones(2, 2)}, {name: name * 3 for name in "zyxwv"}
    content = with_sorted_texts(save(tensors, metadata=texts))
    assert {name: value.tolist() for name, value in load(content).items()} == {
        name: value.tolist() for name, value in tensors.items()
    }
    (tmp_path / "x.safetensors").write_bytes(content)
    with safe_open(tmp_path / "x.safetensors", framework="pt") as opened:
        assert opened.metadata() == texts
    assert with_sorted_texts(save(tensors)) == save(tensors)
