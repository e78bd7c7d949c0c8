"""Where `rank` computes features: what is asked for, what is there, and the same scores."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils import backend_registration

from graftwork.cli.main import main


@pytest.mark.skipif(
    not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"),
    reason="this torch has no devices made of Python",
)
def test_features_elsewhere_have_the_bits_of_the_cpu(tmp_path: Path) -> None:
    script = Path(__file__).with_name("elsewhere.py")
    own = {**os.environ, "GRAFTWORK_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path)], capture_output=True, text=True, timeout=300, check=False, env=own
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("more", [[], ["--data", "tasks"]])
def test_a_device_that_is_not_there_is_refused_before_the_data_is_read(
    more: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["rank", "no-such-table.csv", "--targets", "a", "--device", "cuda", *more]) == 2
    said = capsys.readouterr().err
    assert "cuda is not available on this machine" in said
    assert "Or use" in said


def test_the_table_of_known_results_stays_on_the_cpu(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rank", "--transfer-table", "small", "--device", "cuda"]) == 2
    assert "leave --device cuda out" in capsys.readouterr().err
