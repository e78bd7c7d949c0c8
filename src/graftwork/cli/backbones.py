"""``graftwork backbones``: which trunks a run can start from, whether their weights are whole, and building those that ship again."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from graftwork.cli.shared_flags import add_device_argument, add_json_argument, add_modality_argument, add_out_argument

if TYPE_CHECKING:
    from graftwork.nn.backbones.catalog import BackboneInfo

__all__ = ["HELP", "NAME", "add_arguments", "run"]

NAME = "backbones"
HELP = "list the backbones to start from; with a name, load one and check it; `build NAME` pretrains one that ships"
EXAMPLES = """examples:
  graftwork backbones
  graftwork backbones --modality text
  graftwork backbones minilm                              loads it and checks its weights
  graftwork backbones efficientnet_lite0 --device cuda    and whether it fits into the memory of the GPU
  graftwork backbones build vit-mini --out build/         pretrains one that ships; takes hours
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the verb."""
    parser.epilog = EXAMPLES
    parser.add_argument(
        "name", nargs="?", metavar="NAME", help="load this one: efficientnet_lite0, minilm, timm:resnet18, hf:FOLDER; or `build`"
    )
    parser.add_argument("model", nargs="?", metavar="MODEL", help="after `build`: the backbone to pretrain, check and write")
    add_out_argument(parser, "with `build`: folder of the build", "one in the user's cache")
    parser.add_argument("--resume", action="store_true", help="go on with a stopped run: with `build`, the one in that folder")
    add_modality_argument(parser, "backbones")
    add_device_argument(parser, "the backbone NAME is moved, to see whether it fits", default="cpu")
    add_json_argument(parser, "the backbones")


def run(arguments: argparse.Namespace) -> int:
    """List all backbones, load one and report on it, or build one that ships."""
    if arguments.name == "build":
        return _build(arguments)
    if arguments.model or arguments.out or arguments.resume:
        from graftwork.core.errors import ConfigError

        raise ConfigError("A second name, --out and --resume belong to: graftwork backbones build NAME.")
    from graftwork.cli.tables import paragraph, terminal_width
    from graftwork.nn.backbones.catalog import list_backbones

    if arguments.name:
        report = _inspect(arguments.name, arguments.device)
        print(
            json.dumps(report, indent=2) if arguments.json else "\n".join(f"{key:<12} {value}" for key, value in report.items())
        )
        return 0
    found = list_backbones(arguments.modality)
    if arguments.json:
        import dataclasses

        print(json.dumps([dataclasses.asdict(info) for info in found], indent=2))
        return 0
    print(_table(found))
    missing = [info for info in found if not info.available]
    for info in missing:
        print(f"\n{info.name} is not installed: {info.install}")
    learned = [info for info in found if info.learned_from]
    if learned:
        print("\nThese ship with graftwork and need no download:")
    for info in learned:
        print(paragraph(f"{info.name}, {info.licence}, learned from {info.learned_from}", width=terminal_width(), indent=0))
    print("\n`graftwork backbones NAME` loads one and checks its weights.")
    return 0


def _build(arguments: argparse.Namespace) -> int:
    from graftwork.core.errors import ConfigError
    from graftwork.nursery.recipe import recipe_names

    if not arguments.model:
        raise ConfigError(f"Name the backbone to build: graftwork backbones build NAME; there are {', '.join(recipe_names())}.")
    from graftwork.nursery.build import build_model

    def report(stage: str, done: int, total: int) -> None:
        if stage == "check" or done % 50 == 0 or done == total:
            print(f"{stage} {done} of {total}", file=sys.stderr, flush=True)

    path = build_model(arguments.model, arguments.out, resume=arguments.resume, on_progress=report)
    description = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    if arguments.json:
        print(json.dumps({"file": str(path), **description}, indent=2))
        return 0
    check = description["check"]
    for question, accuracy in check["pretrained"].items():
        print(
            f"{question:<12} {accuracy:5.1f} % by a linear model on its features; untrained {check['untrained'][question]:.1f} %, "
            f"trained from nothing {check['scratch'][question]:.1f} %"
        )
    print(f"{path} ({description['bytes']:,} bytes) with {path.with_suffix('.json').name}")
    return 0


def _table(found: list[BackboneInfo]) -> str:
    from graftwork.cli.tables import format_table, terminal_width

    width = terminal_width()
    rows = [
        [
            info.name,
            info.modality,
            "ready" if info.available else "missing",
            f"{info.parameters / 1e6:.1f} M" if info.parameters else "",
            info.licence,
            info.summary,
        ]
        for info in found
    ]
    header = ["name", "data", "state", "size", "licence", "what it is"]
    if width < 110:  # narrow terminals do without the licence
        header, rows = [*header[:4], header[5]], [[*row[:4], row[5]] for row in rows]
    return format_table(header, rows, width=width, stretch=len(header) - 1, right=(3,), wrap=True)


def _inspect(name: str, device: str) -> dict[str, Any]:
    """Load a backbone by name; loading a pretrained one proves that its weights are there and fit."""
    from graftwork.core.errors import ConfigError
    from graftwork.nn.backbones.catalog import build_backbone, modality_of
    from graftwork.nn.backbones.untrained import UNTRAINED
    from graftwork.training.devices import chosen_device

    if name == "scratch":
        raise ConfigError("The backbone 'scratch' is sized by the data and drawn anew in every run; there is nothing to load.")
    # First: a device that is not there is said before anything is loaded.
    place = chosen_device(device)
    modality = modality_of(name)
    backbone = build_backbone(name)
    shape = backbone.feature_shape
    report = {
        "name": name,
        "data": modality,
        "parameters": sum(parameter.numel() for parameter in backbone.parameters()),
        "features": f"{shape.layout}, {shape.width} wide",
        "device": place,
    }
    # Their fingerprint would be that of weights nobody will meet again.
    if name in UNTRAINED:
        written = json.dumps(UNTRAINED[name].component.to_json())
        return {**report, "weights": "new in every run", "in a plan": f"source: scratch, backbone: {written}"}
    fingerprint = backbone.fingerprint()
    backbone.to(place)
    return {**report, "fingerprint": fingerprint, "weights": "loaded"}
