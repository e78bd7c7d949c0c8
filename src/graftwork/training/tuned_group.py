"""Many tuned models of one backbone: the backbone once, a delta and heads each, and batches with rows of all of them.

The features of a batch come from one forward pass, in which each row is computed with the delta of its model
(:class:`graftwork.nn.rowwise.deltas.RowwiseDeltas`); each model's heads read the rows that are its own.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from graftwork.core.errors import ConfigError, FileFormatError, GraftworkError
from graftwork.core.nearest import did_you_mean
from graftwork.core.records import TaskSpec
from graftwork.interfaces.backbone import Backbone
from graftwork.interfaces.shared_model import SharedModel
from graftwork.nn.backbones.catalog import build_backbone
from graftwork.nn.backbones.named_by_folder import check_named_by_folder
from graftwork.nn.backbones.resizable import Resizable
from graftwork.nn.rowwise.deltas import RowwiseDeltas
from graftwork.tasks.decode import decode_output
from graftwork.training.assembly import FEATURES
from graftwork.training.mixed_inputs import RAGGED, Arrays, example_inputs, joined_inputs
from graftwork.training.tuned_folder import CONFIG_FILE, TunedFolder

__all__ = ["AskedRows", "TunedGroup"]


@dataclass(frozen=True, slots=True)
class AskedRows:
    """Rows of one model."""

    name: str
    """Of the model."""
    inputs: Arrays
    """Encoded rows, as the model's own encoder makes them."""
    tasks: tuple[str, ...]
    """What to predict; what is not asked is not computed."""


@dataclass(frozen=True, slots=True)
class _Member:
    tasks: tuple[TaskSpec, ...]
    heads: SharedModel
    delta: str | None
    """Its name among the deltas; None if nothing of the backbone learned."""
    size: int | None
    pad: int


class TunedGroup:
    """Tuned models that share one backbone.

    Args:
        backbone: Name of the backbone; empty takes the one that the first model names, if it is neither a folder elsewhere nor a model
            that a hub would have to be asked for. Where the models name a folder, this says where it is; whether it is the same is
            known by its fingerprint.
        device: Where features and heads are computed: ``cpu``, ``cuda`` or ``mps``.

    Example:
        >>> group = TunedGroup()
        >>> group.add("reviews", "runs/tune-reviews/delta")  # doctest: +SKIP
        >>> group.add("mails", "runs/tune-mails/delta")  # doctest: +SKIP
        >>> group.predict([AskedRows("reviews", one, ("stars",)), AskedRows("mails", two, ("urgent",))])  # doctest: +SKIP
    """

    def __init__(self, backbone: str = "", device: str = "cpu") -> None:
        self._device = device
        self._name, self._is_given = backbone, bool(backbone)
        self._deltas: RowwiseDeltas | None = None
        self._trunk: Backbone | None = None
        self._layout: tuple[Any, ...] = ()
        self._size: int | None = None
        self._members: dict[str, _Member] = {}

    def __len__(self) -> int:
        return len(self._members)

    @property
    def backbone(self) -> str:
        """Name of the backbone that all share; empty before the first model."""
        return self._name

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the models, in the order in which they were added."""
        return tuple(self._members)

    def own_pass(self, name: str) -> str:
        """Return why the rows of a model run in a pass of their own; empty if they share that of the others."""
        member = self._member(name)
        return "" if member.delta is None or self._deltas is None else self._deltas.own_pass(member.delta)

    def add(self, name: str, folder: str | Path | TunedFolder) -> TunedFolder:
        """Load the delta and the heads of a model; the first one builds the backbone.

        Args:
            name: By which it is asked.
            folder: The folder ``delta`` of a tune run, or what was read of it.

        Returns:
            What the folder says.

        Raises:
            ConfigError: If the name is taken, or the model was tuned from another backbone; the message says what differs.
            FileFormatError: If the folder is damaged, or no tuned model.
            ComponentError: If it names a component of a package that is not allowed.
        """
        if name in self._members:
            raise ConfigError(f"There is a model called {name!r} already. Give each one a name of its own.")
        found = folder if isinstance(folder, TunedFolder) else TunedFolder.read(folder)
        delta = found.delta()
        if self._trunk is None:
            self._build(found)
        assert self._trunk is not None
        assert self._deltas is not None
        if self._layout != _layout(found):
            raise ConfigError(
                f"{found.folder} cannot share a backbone with the models before it: {_layout_words(self._layout)} there, "
                f"{_layout_words(_layout(found))} here. Serve it alone."
            )
        if delta is None and not self._is_given and found.backbone != self._name:
            # No delta, no fingerprint: then the name has to do.
            raise ConfigError(
                f"{found.folder} reads features of the backbone {found.backbone!r}, the models before it those of "
                f"{self._name!r}. Serve it alone."
            )
        heads = found.heads(self._trunk.feature_shape).to(self._device)
        if delta is not None:
            try:
                self._deltas.add(name, delta)
            except ConfigError as error:
                raise ConfigError(
                    f"{found.folder} was not tuned from the backbone {self._name!r} that the other models share: {error}"
                ) from error
        size = found.working_size if isinstance(self._trunk, Resizable) else None
        pad = int(found.spec.encoder.get("pad_id", 0))
        self._members[name] = _Member(found.tasks, heads, None if delta is None else name, size or self._size, pad)
        return found

    @torch.no_grad()
    def predict(self, asked: Sequence[AskedRows]) -> list[dict[str, NDArray[Any]]]:
        """Return ``{task: array}`` for each part, laid out as :meth:`graftwork.interfaces.learner.Learner.predict` says.

        Parts whose inputs have one shape run together, texts of any length among them; pictures of other sizes, or other working
        sizes of the backbone, take a pass each.

        Raises:
            ConfigError: If a model is unknown.
        """
        passes: dict[Hashable, list[int]] = {}
        for number, part in enumerate(asked):
            member = self._member(part.name)
            shapes = tuple(
                (name, "ragged" if name in RAGGED else array.shape[1:], str(array.dtype)) for name, array in part.inputs.items()
            )
            passes.setdefault((member.size, shapes), []).append(number)
        found: list[dict[str, NDArray[Any]]] = [{} for _ in asked]
        for numbers in passes.values():
            features = dict(zip(numbers, self._features([asked[number] for number in numbers]), strict=True))
            alike: dict[tuple[str, tuple[str, ...]], list[int]] = {}
            for number in numbers:
                alike.setdefault((asked[number].name, asked[number].tasks), []).append(number)
            for (name, tasks), same in alike.items():
                # The heads of a model run once for all that is asked of it.
                answers = self._answers(self._member(name), tasks, torch.cat([features[number] for number in same]))
                ends = np.cumsum([len(features[number]) for number in same])[:-1]
                for task, values in answers.items():
                    for number, own in zip(same, np.split(values, ends), strict=True):
                        found[number][task] = own
        return found

    def _features(self, parts: Sequence[AskedRows]) -> list[Tensor]:
        assert self._deltas is not None
        members = [self._member(part.name) for part in parts]
        size = members[0].size
        if isinstance(self._trunk, Resizable) and size is not None and self._trunk.size != size:
            self._trunk.set_working_size(size)
        inputs = self._placed(joined_inputs([part.inputs for part in parts], [member.pad for member in members]))
        counts = [len(next(iter(part.inputs.values()))) for part in parts]
        names = [member.delta for member, count in zip(members, counts, strict=True) for _ in range(count)]
        return list(self._deltas(inputs, names).split(counts))

    def _placed(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: tensor.to(self._device) for name, tensor in inputs.items()}

    def _answers(self, member: _Member, tasks: tuple[str, ...], features: Tensor) -> dict[str, NDArray[Any]]:
        outputs = member.heads({FEATURES: features}, tasks)
        return {task.name: decode_output(task, outputs[task.name].cpu()).numpy() for task in member.tasks if task.name in tasks}

    def _build(self, first: TunedFolder) -> None:
        if not self._is_given:
            check_named_by_folder(
                first.backbone, first.folder, remedy="If it is yours, name it: --base {name} (`backbone` in Python)."
            )
        trunk = build_backbone(
            self._name or first.backbone, first.spec, dense=first.is_dense, local_only=not self._is_given
        ).requires_grad_(False)
        trunk.to(self._device)
        self._name = self._name or first.backbone
        self._trunk, self._layout = trunk, _layout(first)
        self._size = trunk.size if isinstance(trunk, Resizable) else None
        try:
            example = self._placed(example_inputs(first))
            self._deltas = RowwiseDeltas(trunk, example)
            with torch.no_grad():
                trunk(example)
        except (RuntimeError, LookupError, ValueError, TypeError) as error:
            if isinstance(error, GraftworkError):
                raise
            raise FileFormatError(
                f"{first.folder / CONFIG_FILE} is damaged: the backbone {self._name!r:.80} cannot read rows as its inputs describe them "
                f"({type(error).__name__}: {error!s:.200}). Tune again."
            ) from error

    def _member(self, name: str) -> _Member:
        if name not in self._members:
            known = list(self._members)
            raise ConfigError(
                f"There is no model called {name!r}.{did_you_mean(name, known)} Loaded are: {', '.join(known[:20])}."
            )
        return self._members[name]


def _layout(found: TunedFolder) -> tuple[Any, ...]:
    """Return what a backbone is built by, besides its name."""
    # Pictures and texts of any size pass through one backbone; a backbone of series is built for a number of channels.
    sizes = {} if found.spec.kind in ("image", "text") else dict(found.spec.sizes)
    return found.spec.kind, found.is_dense, sizes


def _layout_words(layout: tuple[Any, ...]) -> str:
    kind, is_dense, sizes = layout
    return f"{kind} inputs{f' of sizes {sizes}' if sizes else ''}, {'predictions for each position' if is_dense else 'one prediction a row'}"
