"""Where tuned models that share a backbone are computed when they are served."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils import backend_registration

from graftwork.core.errors import ConfigError
from graftwork.serving.delta_engine import DeltaEngine
from graftwork.serving.serve import serve


@pytest.mark.slow
@pytest.mark.skipif(
    not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"),
    reason="this torch has no devices made of Python",
)
def test_tuned_models_answer_elsewhere_with_the_bits_of_the_cpu(tmp_path: Path) -> None:
    script = Path(__file__).with_name("tuned_elsewhere.py")
    done = subprocess.run([sys.executable, str(script), str(tmp_path)], capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


def test_the_model_of_one_run_answers_on_the_cpu(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"ONNX Runtime on the CPU; leave the device 'cuda' out"):
        serve(tmp_path, port=0, device="cuda")


def test_a_device_that_is_not_there_is_refused_before_models_are_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="cuda is not available on this machine"):
        DeltaEngine([], device="cuda")
