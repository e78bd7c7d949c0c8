"""Many tuned models of one backbone behind a server: the backbone once, and batches with rows of all of them. torch is imported
when the models are loaded."""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, overload

from graftwork.core.errors import ConfigError, FileFormatError
from graftwork.core.input_spec import InputSpec
from graftwork.core.optional import require
from graftwork.data.encoders import Encoder
from graftwork.data.encoders.joint import encoder_of_inputs
from graftwork.serving.asking import Ask
from graftwork.serving.batching import Batcher, PartRunner
from graftwork.serving.controls import Configuration
from graftwork.serving.delta_folders import DeltaFolder
from graftwork.serving.kept_plans import model_date
from graftwork.serving.limits import ServeLimits
from graftwork.serving.readers import reader_of
from graftwork.serving.served_model import ServedModel
from graftwork.serving.service import Service
from graftwork.serving.session import check_threads
from graftwork.tasks.thresholds import with_thresholds

if TYPE_CHECKING:
    from graftwork.training.tuned_folder import TunedFolder

__all__ = ["DeltaEngine", "DeltaModel"]

_LANE = "deltas"
"""All models share one queue: that is what batches of all of them are made from."""


class _ModelRows(Sequence[Any]):
    """Rows of a request, and what is asked of which model."""

    __slots__ = ("model", "rows", "tasks")

    def __init__(self, model: DeltaModel, tasks: tuple[str, ...], rows: Sequence[Any]) -> None:
        self.model, self.tasks, self.rows = model, tasks, rows

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> _ModelRows: ...
    def __getitem__(self, index: int | slice) -> Any:
        # Large requests are cut into parts, which are still rows of that model.
        return _ModelRows(self.model, self.tasks, self.rows[index]) if isinstance(index, slice) else self.rows[index]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.rows)


class DeltaModel(ServedModel):
    """One of the models.

    Args:
        engine: Serves it.
        name: By which it is asked.
        found: What its folder says.
        source: Where it is.
        encoder: Of its rows.
    """

    def __init__(self, engine: DeltaEngine, name: str, found: TunedFolder, source: DeltaFolder, encoder: Encoder) -> None:
        thresholds = found.config.get("thresholds") or {}
        if found.config.get("corrections"):
            raise ConfigError(
                f"{found.folder} corrects its probabilities, which is done in its run's model.onnx. Serve that run alone."
            )
        self.name, self.plan, self.kind = name, found.plan.name, found.spec.kind
        self.created = model_date(source.run, "") if source.run is not None else ""
        try:
            self.specs = {task.name: with_thresholds(task, thresholds.get(task.name)) for task in found.tasks}
        except ConfigError as error:
            raise FileFormatError(
                f"{found.folder / 'config.json'} is damaged: thresholds: {error!s:.300}. Tune again."
            ) from error
        self.reader = reader_of(encoder, {found.spec.kind: found.spec}, engine.limits)
        self.limits, self.batcher, self.threads, self.metrics = engine.limits, engine.batcher, engine.threads, engine.metrics

    def lane(self, ask: Ask, configuration: Configuration | None) -> Hashable:
        """Return the lane of all models."""
        return _LANE

    def queued(self, ask: Ask, rows: Sequence[Any]) -> Sequence[Any]:
        """Return the rows with the model's name on them."""
        return _ModelRows(self, ask.tasks, rows)


class DeltaEngine(Service):
    """Answers requests with tuned models that share a backbone.

    Args:
        folders: Where the models are.
        backbone: Name of the backbone; empty takes the one that the first model names.
        limits: Of requests and batches.
        threads: Threads of torch; None leaves them.
        device: ``auto`` (an accelerator if there is one), ``cpu``, ``cuda`` or ``mps``.

    Raises:
        ConfigError: If a model was tuned from another backbone (the message says what differs), or has no encoder (it was tuned on
            ready arrays), or the device is not there.
        FileFormatError: If a folder is damaged, or no tuned model.
        MissingDependencyError: If torch is not installed.
    """

    def __init__(
        self,
        folders: Sequence[DeltaFolder],
        *,
        backbone: str = "",
        limits: ServeLimits | None = None,
        threads: int | None = None,
        device: str = "auto",
    ) -> None:
        # Here and not above: a server of an exported run starts without torch.
        require("torch", extra="train", purpose="Serving tuned models of one backbone")
        from graftwork.training.devices import chosen_device
        from graftwork.training.tuned_group import TunedGroup

        limits = limits or ServeLimits()
        check_threads(threads)
        if threads is not None:
            import torch

            torch.set_num_threads(threads)
        self._group = TunedGroup(backbone, chosen_device(device))
        batcher = Batcher(
            lambda _: self._runner(),
            by_part=True,
            max_batch=limits.max_batch,
            max_wait=limits.max_wait_ms / 1000,
            on_batch=lambda _, rows, seconds: self.metrics.count_batch("all", rows, seconds),
        )
        super().__init__(limits, batcher, {})
        self._models: dict[str, DeltaModel] = {}
        self._encoders: dict[tuple[str, str], list[tuple[Mapping[str, Any], Encoder]]] = {}
        for folder in folders:
            self._load(folder)

    @property
    def title(self) -> str:  # type: ignore[override] # known once the first model is loaded
        """Name of the backbone."""
        return self._group.backbone

    @property
    def models(self) -> Mapping[str, ServedModel]:
        """The models by name."""
        return self._models

    @property
    def only_model(self) -> None:
        """None: each is asked by its name, also if there is one."""
        return None

    def own_pass(self, name: str) -> str:
        """Return why the rows of a model run in a pass of their own; empty if they share that of the others."""
        return self._group.own_pass(name)

    def warm_up(self) -> None:
        """Run a row of every kind of model, through the queue."""
        seen: set[tuple[str, str]] = set()
        for model in self._models.values():
            if (model.plan, model.kind) not in seen:
                seen.add((model.plan, model.kind))
                for future in self.batcher.submit(_LANE, _ModelRows(model, model.tasks, model.reader.blank())):
                    future.result()

    def _load(self, folder: DeltaFolder) -> None:
        from graftwork.training.tuned_folder import TunedFolder

        found = TunedFolder.read(folder.path)
        encoder = self._encoder(found.spec, folder)
        self._group.add(folder.name, found)
        self._models[folder.name] = DeltaModel(self, folder.name, found, folder, encoder)

    def _encoder(self, spec: InputSpec, folder: DeltaFolder) -> Encoder:
        """Return the encoder of a model's rows; models with equal ones share it, since tokenizers are large."""
        if not spec.encoder:
            raise ConfigError(f"{folder.path} was tuned on ready arrays, so it has no encoder for rows. It cannot be served.")
        # What is small tells most of them apart; only those that agree in it are compared as a whole.
        small = {key: value for key, value in spec.encoder.items() if not isinstance(value, Mapping)}
        alike = self._encoders.setdefault((spec.kind, json.dumps(small, sort_keys=True)), [])
        for state, encoder in alike:
            if state == spec.encoder:
                return encoder
        alike.append((spec.encoder, encoder_of_inputs({spec.kind: spec})))
        return alike[-1][1]

    def _runner(self) -> PartRunner:
        from graftwork.training.tuned_group import AskedRows

        def run(parts: Sequence[Sequence[Any]]) -> list[dict[str, Any]]:
            asked = [
                AskedRows(part.model.name, part.model.reader.encode(part.rows), part.tasks)
                for part in parts
                if isinstance(part, _ModelRows)
            ]
            return self._group.predict(asked)

        return run
