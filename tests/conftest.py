"""Settings for all tests: no network, one thread, fixed random seeds, a private cache, long tests first."""

from __future__ import annotations

import gc
import os
import random
import sys
from collections.abc import Generator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"

settings.register_profile("graftwork", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("graftwork")

_WHOLE_RUNS = Path(__file__).parent / "workflows"


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect quickly, and spare the garbage collector what collected tests are made of: millions of objects that live to the end.

    Bytecode is written meanwhile, where containers forbid it too: each of the processes that tests start would compile the package
    again. What tests write and import is not kept: they change modules within a second, which bytecode does not notice.
    """
    forbidden, sys.dont_write_bytecode = sys.dont_write_bytecode, False
    gc.disable()
    try:
        return (yield)
    finally:
        sys.dont_write_bytecode = forbidden
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest first, in whole files, so that none of them is left over for one worker while the others have ended."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: 0 if _WHOLE_RUNS in item.path.parents else 1 if item.path in slow else 2)


@pytest.fixture(autouse=True)
def _reset_seeds() -> None:
    random.seed(0)
    np.random.seed(0)


@pytest.fixture(scope="session", autouse=True)
def _private_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    if "GRAFTWORK_CACHE" not in os.environ:
        os.environ["GRAFTWORK_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def repository() -> Path:
    """The checkout that the tests run in."""
    return Path(__file__).resolve().parents[1]
