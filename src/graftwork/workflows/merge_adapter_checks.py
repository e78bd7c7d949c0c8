"""Whether changes can be merged with each other, without their base."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from graftwork.core.errors import ConfigError, DataError
from graftwork.data.names import short_list
from graftwork.workflows.merge_changes import Change

__all__ = ["check_prefixes", "check_rescalings", "check_shapes_known", "check_together", "shapes_of"]

Shape = tuple[int, ...]


def shapes_of(changes: Sequence[Change]) -> dict[str, Shape]:
    """Return the shape of every tensor that a change has.

    Raises:
        DataError: If shapes differ, or names differ by a prefix.
    """
    found: dict[str, tuple[Shape, Path]] = {}
    for change in changes:
        for name, shape in change.delta.shapes.items():
            known, path = found.setdefault(name, (tuple(shape), change.path))
            if known != tuple(shape):
                raise DataError(
                    f"{name!r} is {list(known)} in {path} and {list(shape)} in {change.path}. Merge changes of one base."
                )
    check_prefixes([(change.path, change.delta.shapes) for change in changes])
    return {name: shape for name, (shape, _) in found.items()}


def check_prefixes(names: Sequence[tuple[Path, Iterable[str]]]) -> None:
    """Refuse changes whose names of tensors differ by a prefix: they would be taken for different ones.

    Args:
        names: Where each change is, and what its tensors are called.

    Raises:
        DataError: Naming the first pair.
    """
    owners: dict[str, Path] = {}
    for path, listed in names:
        for name in listed:
            owners.setdefault(name, path)
    for path, listed in names:
        own = set(listed)
        tails = {name.partition(".")[2]: name for name in owners if name not in own}
        if shared := sorted(own & tails.keys()):
            raise DataError(
                f"{shared[0]!r} of {path} may be {tails[shared[0]]!r} of {owners[tails[shared[0]]]}: their names begin differently. Name the "
                "base with --base, by which names are matched."
            )


def check_rescalings(changes: Sequence[Change], names: Collection[str]) -> None:
    """Refuse rescalings of tensors that are merged as values: without the base they have none.

    Args:
        changes: What is merged.
        names: The tensors.

    Raises:
        DataError: Naming the first change, and its tensors.
    """
    from graftwork.nn.delta_parts import Rescaled

    for change in changes:
        found = [name for name in names if isinstance(change.delta.parts.get(name), Rescaled)]
        if found:
            raise DataError(
                f"{change.path} rescales (IA3) {short_list(found, 3)}, which is no change without the base, but in a mean or sum of "
                "rescalings of the same dimensions. Name it with --base."
            )


def check_shapes_known(changes: Sequence[Change]) -> None:
    """Refuse IA3 folders among changes that are merged tensor by tensor.

    Raises:
        ConfigError: Naming the first.
    """
    for change in changes:
        if change.scales:
            raise ConfigError(
                f"{change.path} holds factors of layers (IA3) without their shapes. Without --base it is merged with other IA3 by averaging or "
                "task-arithmetic, into a folder; otherwise name the base with --base."
            )


def check_together(changes: Sequence[Change]) -> None:
    """Refuse changes that cannot be merged with each other alone.

    Raises:
        DataError: If one depends on its base, or they belong to different bases.
    """
    from graftwork.nn.delta_base import check_same_base
    from graftwork.nn.delta_parts import Decomposed

    for change in changes:
        decomposed = [name for name, part in change.delta.parts.items() if isinstance(part, Decomposed)]
        if decomposed or change.saved:
            what = (
                f"weight-decomposed changes (DoRA) of {short_list(decomposed, 3)}"
                if decomposed
                else (f"whole layers in the place of the base's ({short_list(change.saved, 3)})")
            )
            raise DataError(f"{change.path} holds {what}, which are no change without their base. Name it with --base.")
    try:
        for change in changes[1:]:
            check_same_base(changes[0].delta, change.delta)
    except ConfigError as error:
        raise DataError(f"{short_list([change.path for change in changes])}: {error}") from error
