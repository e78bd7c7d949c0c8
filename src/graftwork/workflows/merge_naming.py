"""How the names in a change stand to those in its base: one prefix more, or one less; and whether it is the base at all."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from graftwork.core.bfloat16 import WidenedTensor
from graftwork.core.errors import DataError
from graftwork.core.tensor_files import TensorSource
from graftwork.data.names import short_list

__all__ = ["Naming", "check_prints", "find_naming", "find_prefix", "stored_print"]

Shape = tuple[int, ...]
_SHOWN = 5
_TORCH_NAMES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8",
    "U8": "uint8", "BOOL": "bool",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Naming:
    """From names in a change to names in the base."""

    removed: str = ""
    """Prefix that only the change has; ends in a dot."""
    added: str = ""
    """Prefix that only the base has; ends in a dot."""

    def __call__(self, name: str) -> str:
        """Return the base's name of a tensor."""
        return self.added + name.removeprefix(self.removed)

    def words(self) -> str:
        """Return what a note says of it; empty if names are equal."""
        said = [f"{self.removed!r} is left out of its names"] if self.removed else []
        return " and ".join([*said, f"{self.added!r} put before its names"] if self.added else said)


def find_naming(shapes: Mapping[str, Shape], base: TensorSource, path: Path, prints: Mapping[str, str]) -> Naming:
    """Find the one prefix with which all tensors of a change are in the base, in their shapes; see :func:`find_prefix`.

    Args:
        shapes: Shape of each tensor that changes.
        base: The base.
        path: Of the change, for messages.
        prints: See :func:`check_prints`.

    Raises:
        DataError: If there is none, or several; or shapes differ. The first tensors are named.
    """
    return _of_equal_shapes(find_prefix(list(shapes), base, path, may_exchange=bool(prints)), shapes, base, path)


def find_prefix(names: list[str], base: TensorSource, path: Path, *, may_exchange: bool) -> Naming:
    """Find the one prefix with which all tensors of a change are in the base.

    Equal names count before all others. A prefix that is exchanged for another one is looked for only if the change says what its
    base was, so that :func:`check_prints` sees a wrong guess: otherwise a change of one tower could go into another.

    Args:
        names: Names of the tensors that change, at least one.
        base: The base.
        path: Of the change, for messages.
        may_exchange: Whether the change says what its base was.

    Raises:
        DataError: If there is none, or several. The first tensors are named.
    """
    for candidates in _candidates(names, base, may_exchange=may_exchange):
        fitting = [naming for naming in candidates if all(naming(name) in base for name in names)]
        if len(fitting) > 1:
            choice = ", ".join(repr(naming(names[0])) for naming in fitting[:_SHOWN])
            raise DataError(
                f"{path}: {names[0]!r} could be any of {choice} of the base. Give the base that it was tuned from, or name "
                "its tensors as the base does."
            )
        if fitting:
            return fitting[0]
    missing = [name for name in names if name not in base]
    raise DataError(
        f"{path} does not fit the base: {len(missing)} of the {len(names)} tensors that it changes are not there, under no one prefix: "
        f"{short_list(missing, _SHOWN)}. Give the base that it was tuned from with --base."
    )


def _candidates(names: list[str], base: TensorSource, *, may_exchange: bool) -> Iterator[list[Naming]]:
    """Yield sets of namings; those of a set are equally near."""
    yield [Naming()]
    split = [name.split(".") for name in names]
    shared = 0
    while all(len(parts) > shared + 1 and parts[shared] == split[0][shared] for parts in split):
        shared += 1
    heads = [".".join(split[0][:count]) + "." for count in range(1, shared + 1)]
    yield [*(Naming(removed=head) for head in heads), *(Naming(added=head) for head in _heads(names[0], base))]
    for head in heads if may_exchange else ():
        yield [Naming(head, other) for other in _heads(names[0].removeprefix(head), base)]


def _heads(name: str, base: TensorSource) -> list[str]:
    return [other.removesuffix(name) for other in base if other.endswith(f".{name}")]


def _of_equal_shapes(naming: Naming, shapes: Mapping[str, Shape], base: TensorSource, path: Path) -> Naming:
    odd = [f"{name!r} is {list(shape)}, the base has {list(base.shape(naming(name)))}" for name, shape in shapes.items()
           if base.shape(naming(name)) != shape]  # fmt: skip
    odd += [
        f"{naming(name)!r} of the base holds {base.dtype_name(naming(name))}"
        for name in shapes
        if not base.is_float(naming(name))
    ]
    if odd:
        more = f"; and {len(odd) - _SHOWN} more" if len(odd) > _SHOWN else ""
        raise DataError(
            f"{path} does not fit the base: {'; '.join(odd[:_SHOWN])}{more}. Give the base that it was tuned from, unquantised, with --base."
        )
    return naming


def check_prints(prints: Mapping[str, str], naming: Naming, base: TensorSource, path: Path) -> None:
    """Refuse a base that is not the one that a change was made for.

    Args:
        prints: Print of each tensor of that base (:func:`graftwork.math.fingerprint.tensor_prints`); what this base does not have
            does not count.
        naming: See :func:`find_naming`.
        base: The base; it is read once.
        path: Of the change, for messages.

    Raises:
        DataError: Naming the first tensors that differ.
    """
    compared, other = 0, []
    for name, expected in prints.items():
        if name.startswith(naming.removed) and naming(name) in base:
            compared += 1
            if stored_print(base, naming(name)) != expected:
                other.append(naming(name))
    if other:
        raise DataError(
            f"{path} was tuned from another base: {len(other)} of {compared} tensors have other values or another type in the base given: "
            f"{short_list(other, _SHOWN)}. Give its own base with --base, or leave it out."
        )


def stored_print(source: TensorSource, name: str) -> str:
    """Return the print of a tensor as it is stored: that of :func:`graftwork.math.fingerprint.tensor_prints`, without torch."""
    values = source.lazy(name)
    stored = np.ascontiguousarray(values.bits if isinstance(values, WidenedTensor) else values)
    known = _TORCH_NAMES.get(source.dtype_name(name), source.dtype_name(name))
    digest = hashlib.blake2b(f"torch.{known}{source.shape(name)}".encode(), digest_size=8)
    digest.update(stored.reshape(-1).view(np.uint8).data)
    source.release(name)
    return digest.hexdigest()
