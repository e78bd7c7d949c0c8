from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from small_runs import small_learner, small_suite

from graftwork.core.errors import FileFormatError
from graftwork.training.model_loading import load_model


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    small_learner(small_suite(), folder / "cache").export(folder)
    return folder


def copy(source: Path, target: Path) -> Path:
    for name in ("config.json", "model.safetensors"):
        (target / name).write_bytes((source / name).read_bytes())
    return target


def test_weights_that_do_not_fit_are_refused(exported: Path, tmp_path: Path) -> None:
    folder = copy(exported, tmp_path)
    (folder / "model.safetensors").write_bytes(b"")
    with pytest.raises(FileFormatError, match=r"model.safetensors does not fit its config.json.* Export the model again"):
        load_model(folder)
    (folder / "model.safetensors").write_bytes((exported / "model.safetensors").read_bytes())
    config = json.loads((folder / "config.json").read_text())
    config["input_specs"]["table"]["sizes"]["num_numeric"] = 9
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(FileFormatError, match="does not fit its config.json"):
        load_model(folder)


@pytest.mark.parametrize("content", ["[]", '{"format": "other"}'])
def test_another_format_is_refused(exported: Path, tmp_path: Path, content: str) -> None:
    folder = copy(exported, tmp_path)
    (folder / "config.json").write_text(content)
    with pytest.raises(FileFormatError, match="expected 'graftwork-model-1'"):
        load_model(folder)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *((key, ...) for key in ("tasks", "plan", "backbone", "stored_features")),
        *((key, value) for key in ("tasks", "plan", "backbone", "stored_features") for value in (None, 3, [{}])),
        ("tasks", [{"name": "a", "kind": "regression", "size": "x"}]), ("tasks", []), ("plan", {}), ("input_specs", 3), ("input_specs", {"table": 3}),
    ],
)  # fmt: skip
def test_a_damaged_description_is_named_with_file_key_and_remedy(exported: Path, tmp_path: Path, key: str, value: Any) -> None:
    folder = copy(exported, tmp_path)
    config = json.loads((folder / "config.json").read_text())
    if value is ...:
        del config[key]
    else:
        config[key] = value
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(FileFormatError, match=r"(?s)config\.json is damaged: .*Export the model again\.") as caught:
        load_model(folder)
    if value is ... or value in (None, 3):
        assert key in str(caught.value)


def test_weights_hold_no_pickle_and_carry_their_format(exported: Path) -> None:
    header = (exported / "model.safetensors").read_bytes()[8:60]
    assert header.startswith(b'{"__metadata__"')
