"""Nothing of the package needs POSIX to be imported, or to lock, write and limit."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_the_package_is_imported_and_used_without_posix_modules(tmp_path: Path) -> None:
    script = Path(__file__).with_name("other_system.py")
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path)], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert " modules, " in done.stdout
