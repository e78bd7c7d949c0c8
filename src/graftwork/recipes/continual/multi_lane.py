"""Reproduction of MULTI-LANE.

The paper reports leading rehearsal-free results on incremental VOC and COCO (mAP; figures not read).

Our setting: collages of two to four emoji at 40 x 40 pixels; 20 classes in four experiences of five, labels of an experience's
own classes only, mAP over all 20 at the end. The backbone is a transformer of four blocks (width 64, patches of 8, so 25 of
them) that was pretrained on collages of 30 other emoji, once a seed, and is frozen in all arms but the bound. Each experience
has 300 steps of 32 pictures with a new Adam; the bound has as many steps in all, with all labels at once and the backbone
learning. Lanes have 6 selectors; all prompts stand in the first three blocks, 4 keys and values a picture.

Pilot on seeds 100 and 101, four rates an arm; means of both seeds of the mAP on 300 validation pictures, in percent, at 0.03,
0.1, 0.3 and 1 (the bound: 0.01, 0.03, 0.1 and 0.3, its backbone at a fiftieth of them):

- lanes 54.6, 59.8, 59.0, 58.7; whole lanes 57.7, 63.0, 63.9, 48.3; prompts of experiences 51.1, 51.8, 53.8, 37.8;
- prompts of a pool 44.7, 45.2, 42.2, 25.5; classifier alone 55.4, 57.3, 58.1, 57.5;
- bound 74.5 (seed 100 alone), 79.2, 79.4, 73.4.

Each arm takes its best rate, none of which is the edge of its grid. The bound leaves about 20 points of headroom against a margin
of 4. Earlier looks on seed 100: half as many steps cost lanes a point; ten selectors in place of six gave 60.6 in place of 60.1
and cost a quarter more operations; prompts drawn from [-1, 1] in place of [-0.1, 0.1] cost lanes 2 points on a deeper backbone.
The backbone reached 72.6 on test pictures of its own 30 classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch

from graftwork.claims.experiment import Access, Arm, ArmContext, EqualBudget, Headroom, Inequality, Measurements, Recipe
from graftwork.claims.guards import GuardedSuite
from graftwork.core.records import TaskSpec
from graftwork.data.loader import BatchStream, inputs_to_torch
from graftwork.data.streams import ClassStream, class_groups
from graftwork.data.suites.emoji_collage import emoji_collage
from graftwork.evaluation.forgetting import forgetting
from graftwork.evaluation.metrics import score_task
from graftwork.evaluation.probes import count_parameters, flops_per_sample
from graftwork.interfaces.continual_method import ContinualMethod
from graftwork.interfaces.stream import Experience
from graftwork.methods.continual.class_head import ClassHead
from graftwork.methods.continual.multi_lane import MultiLane
from graftwork.methods.continual.prompt_selection import PromptSelection
from graftwork.methods.optimization.equal_weights import EqualWeights
from graftwork.methods.sharing.shared_trunk import SharedTrunk
from graftwork.nn.backbones.class_token_vit import ClassTokenViT
from graftwork.training.config import LoopConfig
from graftwork.training.continual import learn_stream
from graftwork.training.prediction import predict_rows
from graftwork.training.trainer import TrainConfig, Trainer

__all__ = ["RECIPE", "build_method", "pretrain", "run_arm"]

SIZE, CLASSES, OTHERS, EXPERIENCES = 40, 20, 30, 4
"""Pixels of a picture; classes of the stream, and other ones of the pretraining; experiences."""
STEPS, BATCH = 300, 32
"""Steps of one experience, and rows of each."""
BACKBONE_SCALE = 0.02
"""What the rate of the bound's backbone is of that of its classifier; all other arms freeze the backbone."""
PRETRAINING = {"steps": 1200, "rows": 64, "rate": 2e-3}
TRUNK: Mapping[str, Any] = {"patch": 8, "width": 64, "depth": 4, "num_heads": 4}
PROMPTS: Mapping[str, int] = {"num_prompts": 4, "prompt_blocks": 3}
SELECTORS = 6


def pretrain(context: ArmContext, folder: Path) -> None:
    """Train the backbone on classes that no experience has, and write it to ``backbone.safetensors``."""
    rows = context.choose(full=(8000, 1, 1), smoke=(96, 1, 1))
    suite = emoji_collage(
        num_classes=OTHERS,
        skip=CLASSES,
        num_train=rows[0],
        num_val=rows[1],
        num_test=rows[2],
        size=SIZE,
        objects=(1, 4),
        seed=context.seed,
    )
    visible = context.guard(suite).visible
    context.seeds.set_global("pretraining")
    backbone = ClassTokenViT(SIZE, **TRUNK)
    steps = context.choose(full=int(PRETRAINING["steps"]), smoke=3)
    trainer = Trainer(
        SharedTrunk(visible.tasks, lambda: backbone, inputs=visible.input_specs, head_hidden=0),
        visible.tasks,
        BatchStream(visible, visible.splits["train"], int(PRETRAINING["rows"]), context.seeds.integer("pretraining")),
        balancer=EqualWeights(),
        config=TrainConfig(
            max_steps=steps,
            batch_size=int(PRETRAINING["rows"]),
            learning_rate=PRETRAINING["rate"],
            weight_decay=0.05,
            warmup_steps=100,
        ),
        seeds=context.seeds.child("pretraining"),
        callbacks=[context.budget_callback()],
    )
    trainer.train(steps)
    safetensors.torch.save_file(backbone.state_dict(), folder / "backbone.safetensors")


def build_method(kind: str, tasks: tuple[TaskSpec, ...], backbone: ClassTokenViT) -> ContinualMethod:
    """Return what an arm learns with.

    Args:
        kind: ``lanes``, ``whole``, ``pool``, ``experience``, ``head`` or ``joint``.
        tasks: The stream's tasks.
        backbone: The pretrained backbone.
    """
    if kind in ("lanes", "whole"):
        return MultiLane(tasks, backbone, num_selectors=SELECTORS, summarise=kind == "lanes", **PROMPTS)
    if kind == "pool":  # two of eight prompts of two: as many keys and values a picture as a lane has
        return PromptSelection(tasks, backbone, select="pool", num_prompts=2, pool_size=8, top_k=2, prompt_blocks=3)
    if kind == "experience":
        return PromptSelection(tasks, backbone, select="experience", **PROMPTS)
    return ClassHead(tasks, backbone, tune_backbone=kind == "joint")


def run_arm(arm: Arm, seed: int, context: ArmContext) -> Measurements:
    """Learn the stream once; measure in percent on test pictures of all classes."""
    kind = str(arm.settings["kind"])
    folder = context.once("pretrained", lambda place: pretrain(context, place))
    backbone = ClassTokenViT(SIZE, **TRUNK)
    backbone.load_state_dict(safetensors.torch.load_file(folder / "backbone.safetensors"))
    rows = context.choose(full=(2000, 300, 1000), smoke=(96, 24, 24))
    suite = emoji_collage(num_classes=CLASSES, num_train=rows[0], num_val=rows[1], num_test=rows[2], size=SIZE, seed=seed)
    labels, number = suite.targets["objects"].T, suite.raw["count"]
    context.independence({"objects": number}, {f"class {index}": label for index, label in enumerate(labels[:8])})
    data = context.guard(suite)
    groups = class_groups(CLASSES, 1 if kind == "joint" else EXPERIENCES)
    stream = ClassStream(data.visible, groups)
    context.seeds.set_global("method")
    method = build_method(kind, stream.tasks, backbone)
    history: list[list[float]] = []

    def measure(experience: Experience) -> None:
        history.append(_by_group(method, data, stream, experience.number))
        context.progress((experience.number + 1) / len(stream))

    learn_stream(
        method,
        stream,
        batch_size=BATCH,
        config=LoopConfig(
            max_steps=context.choose(full=STEPS, smoke=2) * EXPERIENCES // len(stream),
            optimizer="adam",
            learning_rate=float(arm.settings["rate"]),
            backbone_lr_scale=BACKBONE_SCALE,
            weight_decay=0.0,
        ),
        seeds=context.seeds.child("stream"),
        callbacks=[context.budget_callback()],
        after=measure,
    )
    asked = data.questions("test")
    scores = data.score("test", predict_rows(method.model, stream.tasks, asked, asked.splits["test"]))["objects"]
    one = inputs_to_torch(suite.inputs, data.rows("train")[:1])
    return {
        "map": 100.0 * scores["mean_average_precision"],
        "f1": 100.0 * scores["f1_macro"],
        "validation": float(np.mean(history[-1])),
        "forgetting": forgetting(history),
        "megaflops": flops_per_sample(method.model, one) / 1e6,
        "parameters": count_parameters(method.model).total,
    }


def _by_group(method: ContinualMethod, data: GuardedSuite, stream: ClassStream, number: int) -> list[float]:
    """Return the mean average precision on validation pictures of each group of classes shown so far, in percent."""
    rows, (task,) = data.visible.splits["val"], stream.tasks
    found = predict_rows(method.model, stream.tasks, data.visible, rows)[task.name]
    target = data.visible.targets[task.name][rows]
    scores = []
    for group in stream.groups[: number + 1]:
        part = TaskSpec(name=task.name, kind="multilabel", size=len(group))
        scores.append(100.0 * score_task(part, target[:, list(group)], found[:, list(group)])["mean_average_precision"])
    return scores


_SEES = Access(source_labels=True)


def _arm(name: str, title: str, kind: str, rate: float) -> Arm:
    return Arm(name, title, _SEES, {"kind": kind, "rate": rate})


ARMS = (
    _arm("lanes", "lanes over summaries (MULTI-LANE)", "lanes", 0.1),
    _arm("whole", "lanes over all patches", "whole", 0.3),
    _arm("pool", "prompts selected from a pool (L2P)", "pool", 0.1),
    _arm("own", "a prompt for each experience, selected (DualPrompt)", "experience", 0.3),
    _arm("head", "classifier alone", "head", 0.3),
    _arm("joint", "all classes at once, backbone learns (bound)", "joint", 0.1),
)

RECIPE = Recipe(
    slug="multi-lane",
    seeds=(0, 1, 2),
    smoke_seeds=(0,),
    arms=ARMS,
    run_arm=run_arm,
    inequalities=(
        *(
            Inequality(f"beats {words}", "lanes.map", f"{name}.map", margin=4.0, min_sign_seeds=3, unit="points")
            for name, words in (("pool", "prompts from a pool"), ("own", "selected prompts of experiences"))
        ),
        Inequality(
            "keeps up with lanes over all patches", "lanes.map", "whole.map", margin=2.0, demand="not worse", unit="points"
        ),
        Inequality(
            "at no more than half their operations",
            "whole.megaflops",
            "lanes.megaflops",
            demand="at least",
            left_factor=0.5,
            min_sign_seeds=3,
            unit="million operations",
        ),
        Inequality("beats the classifier alone", "lanes.map", "head.map", primary=False, unit="points"),
    ),
    headroom=tuple(
        Headroom("joint.map", f"{name}.map", margin=4.0, inequalities=(f"beats {words}",), unit="points")
        for name, words in (("pool", "prompts from a pool"), ("own", "selected prompts of experiences"))
    ),
    equal_budget=(EqualBudget(("steps", "samples", "labels")),),
    minutes=20,
    notes=(
        "Collages of emoji at 40 x 40 pixels and a transformer pretrained on other emoji, in place of photographs and ImageNet.",
        "Operations are those of one picture at a time, all lanes of the last experience included.",
    ),
)
