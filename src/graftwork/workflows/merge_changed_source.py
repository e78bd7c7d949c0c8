"""A base and a change of it as one model, tensor by tensor; and the zero base over which changes are merged with changes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.bfloat16 import WidenedTensor
from graftwork.core.errors import ConfigError
from graftwork.core.tensor_files import TensorSource, open_tensors
from graftwork.workflows.merge_changes import Change, is_change, open_change
from graftwork.workflows.merge_naming import Naming, check_prints, find_naming, find_prefix

__all__ = ["ChangedTensors", "ZeroTensors", "change_of_base", "open_models"]

Array = NDArray[Any]


class ZeroTensors(TensorSource):
    """A base of zeros.

    Args:
        shapes: Shape of each tensor.
    """

    metadata: Mapping[str, str] = {}

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self._shapes = dict(shapes)

    def __getitem__(self, name: str) -> Array:
        return np.zeros(self._shapes[name], np.float32)

    def lazy(self, name: str) -> Array:
        """Return zeros."""
        return self[name]

    def __contains__(self, name: object) -> bool:
        return name in self._shapes

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)

    def dtype_name(self, name: str) -> str:
        """Return ``"F32"``."""
        return "F32"

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape."""
        return self._shapes[name]

    def release(self, name: str) -> None:
        """Do nothing."""

    def files(self) -> tuple[Path, ...]:
        """Return nothing."""
        return ()


class ChangedTensors(TensorSource):
    """``base + change``, each tensor computed when it is asked for.

    Names and stored types are those of the base; values of changed tensors are float32 or wider and are not rounded to the stored
    type, in which a small change could vanish.

    Args:
        change: The change.
        base: Its base; only its own tensors are read through this source.
        naming: From names in the change to those in the base.
        base_path: Where the base is, for the network that its folder describes.
    """

    metadata: Mapping[str, str] = {}

    def __init__(self, change: Change, base: TensorSource, naming: Naming, base_path: Path = Path()) -> None:
        self.base, self.base_path = base, base_path
        self._files = change.files
        self._delta = change.delta
        self._names = {naming(name): name for name in change.delta.names() if naming(name) in base}
        self._saved = {naming(name): tensor for name, tensor in change.saved.items()}

    def __getitem__(self, name: str) -> Array:
        return np.asarray(self.lazy(name))

    def lazy(self, name: str) -> Array | WidenedTensor:
        """Return the base's values, or those of a changed tensor."""
        if name in self._saved:
            return self._saved[name].float().numpy()
        if name not in self._names:
            return self.base.lazy(name)
        import torch

        from graftwork.nn.delta_parts import change_of, describe_part, read_part

        stored = self.base.lazy(name)
        # A copy: mapped files are read-only, and it is the result as well.
        values = torch.from_numpy(np.array(stored, np.result_type(stored.dtype, np.float32)))
        part = self._delta.parts[self._names[name]]
        # The product of factors in half precision would be rounded before it is added.
        wide = {key: tensor.to(values.dtype) if tensor.is_floating_point() else tensor for key, tensor in part.tensors().items()}
        with torch.no_grad():
            values += change_of(read_part(describe_part(part), wide), values)
        return values.numpy()

    def __contains__(self, name: object) -> bool:
        return name in self.base or name in self._saved

    def __iter__(self) -> Iterator[str]:
        yield from self.base
        yield from (name for name in self._saved if name not in self.base)

    def __len__(self) -> int:
        return len(self.base) + sum(name not in self.base for name in self._saved)

    def dtype_name(self, name: str) -> str:
        """Return the base's stored type."""
        return self.base.dtype_name(name) if name in self.base else "F32"

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape."""
        return tuple(self._saved[name].shape) if name in self._saved else self.base.shape(name)

    def release(self, name: str) -> None:
        """Give the base's pages back."""
        if name in self.base:
            self.base.release(name)

    def files(self) -> tuple[Path, ...]:
        """Return the files of the change; those of the base are its own."""
        return self._files


def open_models(base: str | Path | None, models: Sequence[str | Path]) -> tuple[list[TensorSource], list[str]]:
    """Open the base, if there is one, and the models; changes become models of this base.

    Returns:
        The sources, the base first; and notes.

    Raises:
        ConfigError: If the base is no whole model, or changes are to be merged with models without a base.
        DataError: If something is not there, or a change belongs to another base.
        FileFormatError: If a file is damaged.
    """
    changes = [path for path in models if is_change(path)]
    if base is None:
        if changes:
            raise ConfigError(
                f"{changes[0]} is a change of a base and no whole model, so it cannot be merged with whole models alone. Name the base "
                "with --base; adapters and deltas are merged with each other without one."
            )
        return [open_tensors(path) for path in models], []
    if is_change(base):
        raise ConfigError(f"{base} is a change of a base and no whole model. Give the model that it was tuned from with --base.")
    sources, notes = [open_tensors(base)], list[str]()
    for path in models:
        if path not in changes:
            sources.append(open_tensors(path))
            continue
        changed, said = change_of_base(path, sources[0], base)
        sources.append(changed)
        notes += said
    return sources, notes


def change_of_base(path: str | Path, base: TensorSource, base_path: str | Path) -> tuple[ChangedTensors, list[str]]:
    """Open a change as a model of its base.

    Args:
        path: The change.
        base: The base, opened.
        base_path: Where it is.

    Returns:
        The model, and notes.

    Raises:
        ConfigError: If the change is of a kind that cannot be read.
        DataError: If it belongs to another base.
        FileFormatError: If it is damaged.
    """
    change = _of_base(open_change(path), base)
    prints = change.delta.base_prints
    naming = find_naming({name: tuple(shape) for name, shape in change.delta.shapes.items()}, base, Path(path), prints)
    check_prints(prints, naming, base, Path(path))
    notes = [*change.notes, *([f"{path}: {naming.words()}."] if naming.words() else [])]
    return ChangedTensors(change, base, naming, Path(base_path)), notes


def _of_base(change: Change, base: TensorSource) -> Change:
    """Return a change whose factors of layers, if it has such, are differences of the base's tensors."""
    if not change.scales:
        return change
    import torch

    from graftwork.methods.tuning.peft_ia3 import parts_of_scales
    from graftwork.nn.weight_delta import WeightDelta

    naming = find_prefix([f"{layer}.weight" for layer in change.scales], base, change.path, may_exchange=False)
    names = [f"{layer}.{kind}" for layer in change.scales for kind in ("weight", "bias")]
    shapes = {name: base.shape(naming(name)) for name in names if naming(name) in base}
    parts = parts_of_scales(change.scales, shapes, change.path)
    return replace(
        change, delta=WeightDelta(parts, {name: torch.Size(shapes[name]) for name in parts}, lineage=change.delta.lineage)
    )
