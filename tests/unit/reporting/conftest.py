"""Makes the result builder available to the tests of this folder."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


def _load_builder() -> Callable[..., dict[str, Any]]:
    spec = importlib.util.spec_from_file_location("graftwork_result_builder", Path(__file__).with_name("result_builder.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.build_result


@pytest.fixture(scope="session")
def build_result() -> Callable[..., dict[str, Any]]:
    return _load_builder()
