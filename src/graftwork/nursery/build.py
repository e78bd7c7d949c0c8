"""Building a model of the nursery: train, halve, check, write. A killed build goes on where it was, to the same bytes.

A build's folder holds ``build.json`` (what is built), ``checkpoint/``, ``answers.json`` (of the check) and ``log.jsonl``; in the end
``NAME.safetensors`` (half precision, what it was made from inside) and ``NAME.json`` (the same to read, and the file's hash).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from graftwork.core.errors import ConfigError, GraftworkError
from graftwork.core.files import append_jsonl, cache_folder, hash_bytes, read_json, write_bytes, write_json
from graftwork.core.folders import FolderKind, claim_folder
from graftwork.core.records import Lineage
from graftwork.core.seeds import Seeds
from graftwork.core.version import __version__
from graftwork.interfaces.backbone import Backbone
from graftwork.interfaces.callback import Callback, LoopView
from graftwork.math.fingerprint import state_fingerprint
from graftwork.nn.backbones.shipped import FORMAT, LARGEST_FILE, METADATA_KEY
from graftwork.nursery.check import AnswerBook
from graftwork.nursery.recipe import Lessons, Pretraining, find_recipe
from graftwork.training.checkpoints import has_checkpoint, load_checkpoint, save_checkpoint
from graftwork.training.loop import Loop

__all__ = ["BUILD_FOLDER", "CheckFailedError", "build_model"]

BUILD_FOLDER = FolderKind(marker="build.json", format="graftwork-build-1", noun="a build of a backbone", lock="build.lock")
SAVE_EVERY = 50
"""Steps between checkpoints."""


class CheckFailedError(GraftworkError):
    """A pretrained model is not far enough above the same network from scratch; nothing was written."""


def build_model(
    name: str,
    out: str | Path | None = None,
    *,
    resume: bool = False,
    budget: Mapping[str, int] | None = None,
    cache: str | Path | None = None,
    threads: int = 1,
    recipe: Pretraining | None = None,
    on_progress: Callable[[str, int, int], None] | None = None,
) -> Path:
    """Pretrain a model, check it, and write it.

    Args:
        name: Name of a recipe.
        out: Folder of the build; by default one in the user's cache.
        resume: Go on with the build in ``out``, where there is one.
        budget: Numbers of the recipe's budget to change, for a try.
        cache: Folder of pictures and targets; the user's cache by default.
        threads: Threads of torch; equal numbers give equal bytes on one machine.
        recipe: Taken in place of the one that ``name`` finds.
        on_progress: Called with what is done (``train`` or ``check``), the number of finished steps or questions, and of all.

    Returns:
        The file with the weights; its description lies beside it.

    Raises:
        ConfigError: If there is no such recipe or number, or the folder holds another build, or one and ``resume`` is False.
        CheckFailedError: If the model does not pass its check.
        CheckpointError: If the checkpoint is damaged.
    """
    recipe = find_recipe(name) if recipe is None else recipe
    unknown = sorted(set(budget or {}) - set(recipe.budget))
    if unknown:
        raise ConfigError(f"The budget of {recipe.name} has no {unknown[0]!r}; it has {', '.join(recipe.budget)}.")
    numbers = {**recipe.budget, **(budget or {})}
    folder = Path(out) if out is not None else cache_folder("nursery", "builds", recipe.name)
    claim = claim_folder(folder, BUILD_FOLDER)
    try:
        _begin(folder, recipe, numbers, threads, resume=resume, is_new=claim.is_new)
        with _threads(threads):
            return _built(folder, recipe, numbers, threads, Path(cache) if cache is not None else None, on_progress)
    finally:
        claim.release()


def _begin(folder: Path, recipe: Pretraining, numbers: Mapping[str, int], threads: int, *, resume: bool, is_new: bool) -> None:
    wanted = {
        "format": BUILD_FOLDER.format,
        "name": recipe.name,
        "budget": dict(numbers),
        "seed": recipe.seed,
        "threads": threads,
    }
    if is_new:
        write_json(folder / BUILD_FOLDER.marker, wanted)
        return
    found = read_json(folder / BUILD_FOLDER.marker)
    if found != wanted:
        differing = [key for key in wanted if found.get(key) != wanted[key]]
        raise ConfigError(
            f"{folder} holds another build (its {', '.join(differing)} differ). Choose another folder with --out, or remove it."
        )
    if not resume:
        raise ConfigError(f"{folder} holds a build already. Go on with --resume, or choose another folder with --out.")


def _built(
    folder: Path,
    recipe: Pretraining,
    numbers: Mapping[str, int],
    threads: int,
    cache: Path | None,
    on_progress: Callable[[str, int, int], None] | None,
) -> Path:
    backbone, lessons = _trained(folder, recipe, numbers, cache, on_progress)
    state = halved(backbone.state_dict())
    # What is checked is what will be loaded: the rounded weights.
    backbone.load_state_dict({key: value.float() if value.is_floating_point() else value for key, value in state.items()})
    backbone.eval()
    fingerprint = state_fingerprint(backbone.state_dict())
    started = time.process_time()

    def report(question: str) -> None:
        if on_progress is not None:
            on_progress("check", list(recipe.held_out).index(question), len(recipe.held_out))

    book = AnswerBook(folder / "answers.json", fingerprint, report)
    check = recipe.check(backbone, recipe.build, numbers, book)
    append_jsonl(folder / "log.jsonl", {"check": check.to_json(), "cpu_seconds": round(time.process_time() - started, 1)})
    if not check.is_passed:
        raise CheckFailedError(
            f"{recipe.name} is not written, since it does not pass its check: the mean gain over the same network from scratch is "
            f"{check.to_json()['mean_gain']} points ({recipe.name} needs {check.mean_margin:g}), the gains are "
            f"{check.to_json()['gains']} (each needs {check.least_margin:g})."
        )
    lineage = Lineage(
        made_by=f"graftwork backbones build {__version__}",
        command=f"graftwork backbones build {recipe.name}",
        plan=recipe.name,
        seed=recipe.seed,
        inputs=lessons.inputs,
        bases=lessons.bases,
        licences={source.name: source.credit for source in recipe.sources},
        versions={"graftwork": __version__, "torch": torch.__version__, "numpy": np.__version__, **lessons.versions},
    )
    description = {
        "format": FORMAT,
        "name": recipe.name,
        "modality": recipe.modality,
        "summary": recipe.summary,
        "story": recipe.story,
        "component": recipe.component.to_json(),
        "parameters": sum(parameter.numel() for parameter in backbone.parameters()),
        "width": backbone.feature_shape.width,
        "fingerprint": fingerprint,
        "licence": recipe.licence,
        "learned_from": [source.to_json() for source in recipe.sources],
        "held_out": dict(recipe.held_out),
        "check": check.to_json(),
        "budget": dict(numbers),
        "threads": threads,
        "lineage": lineage.to_json(),
    }
    # One entry: several would be written in an order of chance.
    content = safetensors.torch.save(state, {METADATA_KEY: json.dumps(description, sort_keys=True)})
    if len(content) > LARGEST_FILE:
        raise ConfigError(f"{recipe.name} takes {len(content)} bytes; a model that ships has at most {LARGEST_FILE}.")
    path = folder / f"{recipe.name}.safetensors"
    write_bytes(path, content)
    write_json(path.with_suffix(".json"), {**description, "bytes": len(content), "sha256": hash_bytes(content)})
    return path


def _trained(
    folder: Path,
    recipe: Pretraining,
    numbers: Mapping[str, int],
    cache: Path | None,
    on_progress: Callable[[str, int, int], None] | None,
) -> tuple[Backbone, Lessons]:
    """Return the model after all steps, and what it learned from."""
    seeds = Seeds(recipe.seed).child(f"nursery/{recipe.name}")
    # Before the model is built; the heads of the lessons are drawn after it.
    seeds.set_global("init")
    backbone = recipe.build()
    lessons = recipe.lessons(backbone, numbers, seeds, cache)
    config = recipe.config(numbers)
    losses = _MeanLosses()
    loop = Loop(lessons.step, lessons.source, config=config, seeds=seeds, callbacks=[losses])
    place = folder / "checkpoint"
    if has_checkpoint(place):
        loop.load_state_dict(load_checkpoint(place))
    started = time.process_time()

    def report(step: int) -> None:
        if on_progress is not None:
            on_progress("train", step, config.max_steps)

    while loop.step < config.max_steps:
        loop.train(min(loop.step + SAVE_EVERY, config.max_steps), report)
        save_checkpoint(place, loop.state_dict())
        seconds = round(time.process_time() - started, 1)
        named = dict(zip(lessons.step.loss_names, losses.read(), strict=True))
        append_jsonl(folder / "log.jsonl", {"step": loop.step, "cpu_seconds": seconds, "losses": named})
    model = loop.eval_model()
    assert isinstance(model, Backbone)
    return model, lessons


class _MeanLosses(Callback):
    """Means of the losses since they were read last, for the log."""

    def __init__(self) -> None:
        self._sum: Tensor | None = None
        self._count = 0

    def on_step(self, loop: LoopView, batch: Any, losses: Tensor) -> None:
        self._sum = losses.clone() if self._sum is None else self._sum + losses
        self._count += 1

    def read(self) -> list[float]:
        means = [] if self._sum is None else [round(float(value), 4) for value in self._sum / self._count]
        self._sum, self._count = None, 0
        return means


def halved(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state in half precision; whole numbers stay as they are.

    Raises:
        ConfigError: If a value is too large for half precision.
    """
    half = {name: (value.half() if value.is_floating_point() else value).contiguous() for name, value in state.items()}
    broken = [name for name, value in half.items() if value.is_floating_point() and not torch.isfinite(value).all()]
    if broken:
        raise ConfigError(f"The values of {', '.join(broken[:3])} are too large for half precision.")
    return half


@contextmanager
def _threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
