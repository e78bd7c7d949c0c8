"""Models that are kept as a change of a base: adapter folders of peft, delta files, and the ``delta`` folders of tune runs.

They are recognised by names and headers alone; torch is imported when one is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftwork.core.errors import ConfigError, FileFormatError
from graftwork.core.files import read_json
from graftwork.core.model_folder import ADAPTER_NAMES, INDEX_NAME, MODEL_NAME, said_of_pickles
from graftwork.core.tensor_header import read_header

if TYPE_CHECKING:
    from torch import Tensor

    from graftwork.methods.tuning.peft_ia3 import Scale
    from graftwork.nn.weight_delta import WeightDelta

__all__ = ["Change", "is_change", "open_change"]

# As nn.delta_file and training.tuned_folder call them; importing those would import torch. A test holds them equal.
DELTA_FORMAT, TUNED_FORMAT = "graftwork-delta-1", "graftwork-tuned-1"
_CONFIG, _WEIGHTS = ADAPTER_NAMES


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """A change of a base, opened."""

    path: Path
    """What the user gave."""
    files: tuple[Path, ...]
    """What is read."""
    delta: WeightDelta
    saved: Mapping[str, Tensor] = field(default_factory=dict)
    """Whole tensors that stand in the place of the base's (``modules_to_save`` of peft)."""
    scales: Mapping[str, Scale] = field(default_factory=dict)
    """Factors by layer of an IA3 folder, which does not say what shapes the layers have; :attr:`delta` is empty then."""
    base_model: str = ""
    """What the adapter's configuration calls its base."""
    notes: tuple[str, ...] = ()

    @property
    def is_adapter(self) -> bool:
        """Whether it is a folder of peft."""
        return self.files[0].name == _WEIGHTS


def is_change(path: str | Path) -> bool:
    """Return whether a path holds a change of a base, or what looks like one, and no whole model.

    Raises:
        FileFormatError: If a file cannot be read.
    """
    path = Path(path)
    if path.is_dir():
        if any((path / name).exists() for name in (_CONFIG, _WEIGHTS, "adapter_model.bin")) or _is_tuned(path):
            return True
        if (path / MODEL_NAME).exists() or (path / INDEX_NAME).exists():
            return False
        found = sorted(path.glob("*.safetensors"))
        return len(found) == 1 and found[0].is_file() and _is_change_file(found[0])
    return path.is_file() and _is_change_file(path)


def open_change(path: str | Path) -> Change:
    """Read a change.

    Raises:
        FileFormatError: If a file is missing, damaged or incomplete.
        ConfigError: If an adapter is of a kind or has a setting that cannot be read, if a delta holds modules, which no merge can
            take, or if it is not clear what a folder holds.
    """
    path = Path(path)
    if not path.is_dir():
        if path.name != _WEIGHTS:
            return _delta(path, path)
        return _adapter(path, path.parent)
    if any((path / name).exists() for name in (_CONFIG, _WEIGHTS, "adapter_model.bin")):
        if (path / MODEL_NAME).exists() or (path / INDEX_NAME).exists():
            raise ConfigError(
                f"{path} holds a model and an adapter of peft. Name the model by its file, or put the adapter into a folder of its own."
            )
        if not (path / _WEIGHTS).exists() and (said := said_of_pickles(path)):
            raise FileFormatError(f"{path} holds no {_WEIGHTS}.{said}")
        return _adapter(path, path)
    if not _is_tuned(path):
        return _delta(path, next(path.glob("*.safetensors")))
    names = read_json(path / "config.json").get("deltas")
    if not isinstance(names, list) or not all(isinstance(name, str) and name == Path(name).name for name in names):
        raise FileFormatError(f"{path / 'config.json'} is damaged: it names no deltas beside it. Tune again.")
    if len(names) != 1:
        raise ConfigError(
            f"{path} has {len(names)} deltas; a merge takes tuned models with one. Where only heads learned there is none to merge."
        )
    heads = "the heads of its tasks are not merged: they belong to one model each."
    return _delta(path, path / names[0], notes=(f"{path}: {heads}",))


def _is_tuned(folder: Path) -> bool:
    if not (folder / "config.json").is_file():
        return False
    config: Any = read_json(folder / "config.json")
    return isinstance(config, dict) and config.get("format") == TUNED_FORMAT


def _is_change_file(file: Path) -> bool:
    header = read_header(file)
    is_adapter = file.name == _WEIGHTS or any(".lora_" in name or name.endswith(".ia3_l") for name in header.entries)
    return is_adapter or header.metadata.get("format") == DELTA_FORMAT


def _adapter(path: Path, folder: Path) -> Change:
    from graftwork.methods.tuning.peft_delta import read_delta
    from graftwork.methods.tuning.peft_ia3 import is_ia3, read_ia3
    from graftwork.methods.tuning.peft_reading import read_config
    from graftwork.nn.weight_delta import WeightDelta

    files = (folder / _WEIGHTS, folder / _CONFIG)
    if is_ia3(folder):
        scales, base_model = read_ia3(folder), str(read_config(folder).get("base_model_name_or_path") or "")
        delta = WeightDelta({}, {}, lineage={"peft": str(folder), "tuner": "IA3"})
        return Change(path=path, files=files, delta=delta, scales=scales, base_model=base_model)
    delta, saved = read_delta(folder)
    return Change(path=path, files=files, delta=delta, saved=saved, base_model=str(delta.lineage.get("base_model") or ""))


def _delta(path: Path, file: Path, notes: tuple[str, ...] = ()) -> Change:
    from graftwork.nn.module_delta import load_delta
    from graftwork.nn.weight_delta import WeightDelta

    if not file.is_file():
        raise FileFormatError(f"{path} names {file.name}, which is not there. Restore it from a copy, or tune again.")
    if read_header(file).metadata.get("format") != DELTA_FORMAT:
        raise FileFormatError(
            f"{file} holds an adapter without the {_CONFIG} that says how it is meant. Give the adapter's whole folder, "
            f"with {_CONFIG} and {_WEIGHTS}."
        )
    delta = load_delta(file)
    if not isinstance(delta, WeightDelta):
        raise ConfigError(
            f"{file} puts modules into its base (adapters, prompts, a side network), which are no change of weights and cannot be "
            "merged. Tune with a method that changes weights, such as lora."
        )
    return Change(path=path, files=(file,), delta=delta, notes=notes)
