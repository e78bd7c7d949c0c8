"""Whether changes can be merged with each other, without their base."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from graftwork.core.errors import ConfigError, DataError
from graftwork.data.names import short_list
from graftwork.workflows.merge_changes import Change

__all__ = ["check_together", "shapes_of"]

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
    for change in changes:
        own = set(change.delta.shapes)
        tails = {name.partition(".")[2]: name for name in found if name not in own}
        if shared := sorted(own & tails.keys()):
            raise DataError(
                f"{shared[0]!r} of {change.path} may be {tails[shared[0]]!r} of {found[tails[shared[0]]][1]}: their names begin differently. Name the "
                "base with --base, by which names are matched."
            )
    return {name: shape for name, (shape, _) in found.items()}


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
