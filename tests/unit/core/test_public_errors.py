"""Errors that users catch are public names of the package."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import graftwork as gw
from graftwork.core import errors


def test_every_error_of_the_core_is_public_and_one_base_catches_all() -> None:
    found = [name for name, item in vars(errors).items() if inspect.isclass(item) and issubclass(item, Exception)]
    assert "GraftworkError" in found
    for name in found:
        assert name in gw.__all__, name
        assert getattr(gw, name) is getattr(errors, name)
        assert issubclass(getattr(gw, name), gw.GraftworkError)


def test_a_wrong_argument_is_caught_by_the_public_base() -> None:
    with pytest.raises(gw.GraftworkError) as caught:
        gw.load_run("no/such/folder")
    assert isinstance(caught.value, gw.DataError | gw.ConfigError)


def test_errors_cost_no_heavy_import() -> None:
    asked = (
        "import sys, graftwork as gw; gw.ConfigError; print([one for one in ('torch', 'numpy', 'pandas') if one in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"
