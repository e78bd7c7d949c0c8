"""Reproduction of training BatchNorm and only BatchNorm.

The paper reports (abstract read, further figures remembered) 82 % on CIFAR-10 for ResNet-866 of which only BatchNorm learns,
about 69 to 70 % for ResNet-110, far less for as many randomly chosen weights, and about a third of all scales near zero, against
few percent when everything learns.

Our setting: generated letters of 20 classes, 12x12 pixels (3000 to learn, 500 that only count dead units, 2000 to test); residual
networks of 8, 16 and 32 channels, depths 8, 14 and 26; scales drawn from U(0, 1), the output layer random and frozen. SGD with
Nesterov momentum 0.9, cosine schedule, 800 steps of 32 pictures, pictures shifted by a pixel at most, coupled weight decay of
everything that learns, set so that what has no other gradient shrinks by as much as in the paper, in all arms alike. All arms of
a depth begin with equal weights. The control trains two weights a filter, as many numbers as BatchNorm has; they are parameters
of their own, so that neither decay nor momentum can move another weight. One arm is the plan of the card. About 4 minutes on 2
idle cores.

Pilot: six or seven learning rates an arm of the primary claims on seed 100 and the best two or more of them again on seed 101
(two numbers); `RATES` holds those with the highest mean, none of them at an edge. Validation accuracy in percent:

- BatchNorm at 0.003, 0.01, 0.03, 0.1, 0.3, 1: depth 8 45.2/34.4, 49.2/49.2, 38.5, 33.3, 31.0, 35.1/37.8 (3: 32.2); depth 14
  63.8/63.6, 69.6/71.4, 60.0/63.7, 54.3/55.1, 51.1, 47.4; depth 26 90.0/80.8, 83.3/81.0, 82.3/82.0, 86.5/83.3, 77.0, 70.7
  (0.001: 75.5/77.2);
- random weights at 0.1, 0.3, 1, 3, 5, 10: depth 8 13.4, 18.2, 24.3, 30.9/25.2, 27.8/29.7, 22.7 (0.03: 7.6); depth 14 27.3,
  32.2, 34.0, 51.9/47.9, 35.1/50.5, 34.4; depth 26 27.2, 36.0, 58.6/47.7, 51.7/43.6, 27.6, 53.9 (2: 48.0/55.9);
- on seed 100, at 0.03, 0.1, 0.3: everything at depth 26 99.8, 99.8, 99.9, with 7.7, 8.7 and 12.5 % of its scales below 0.01
  (9.7 % at 0.1 on seed 101). Accuracy cannot tell them apart, and 0.1 has the lowest loss; at 0.3 three times its share would be
  more than the 30 to 32 % of BatchNorm alone. Output layer 16.0, 25.1, 25.9 (1: 20.7); BatchNorm and output layer 80.9, 92.0,
  88.0 (0.01: 45.4).

A first pilot stopped at 0.1 or 0.3 for BatchNorm, where it beats random weights by 2 to 4 points at depths 8 and 14: low rates,
whose decay is as much stronger, suit it far better.

Found on the way, seed 100: with the paper's decay of 1e-4 for 500 steps BatchNorm alone ends with 2.0 % of its scales below 0.01,
as many as it began with, whatever it learns; with the paper's shrinkage it ends with 28.8 % (16x16 pixels) or 30.4 % (12x12), and
a network that learns everything with 7.5 and 10.1 % at rates of 0.1 and 0.3 (accuracies 99.9 and 100). 500 steps of 64 at 16x16
pixels were too few: twice as many raised BatchNorm from 75.3 to 88.4 at depth 26 and from 29.4 to 41.1 at depth 8. With 12x12
pixels and batches of 32 the same time gives more steps: at depth 26 BatchNorm has 86.5 and 87.4 after 800 and 1000 steps at a
rate of 0.1. Before that letters with noise of 0.15 and a stray stroke were too hard (BatchNorm alone 17.0, random weights 10.5).
Margins are those of the card, set before.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from graftwork.claims.experiment import Access, Arm, ArmContext, EqualBudget, Inequality, Measurements, Recipe
from graftwork.claims.guards import GuardedSuite
from graftwork.claims.plan_arms import card_plan
from graftwork.data.loader import BatchStream
from graftwork.data.suites.glyphs import glyphs
from graftwork.interfaces.shared_model import SharedModel
from graftwork.interfaces.transform import GradientContext, GradientTransform
from graftwork.methods.optimization.equal_weights import EqualWeights
from graftwork.methods.sharing.shared_trunk import SharedTrunk
from graftwork.methods.tuning.bn_only import BatchNormOnly, draw_scales_, small_scale_share, zero_small_scales_
from graftwork.methods.tuning.random_weights import RandomWeights
from graftwork.nn.backbones.cifar_resnet import BasicBlock, CifarResNet
from graftwork.training.prediction import predict_rows
from graftwork.training.trainer import TrainConfig, Trainer

__all__ = ["RECIPE"]

CHANNELS = (8, 16, 32)
STEPS, BATCH = 800, 32
PLAN_STEPS = 100
MOMENTUM = 0.9
SHRINKAGE = 3.3
"""Weight decay of everything that learns, scales and shifts included, as the exponent by which a parameter without any other
gradient has shrunk at the end: sum over steps of rate * decay / (1 - momentum). The paper's schedule (80 epochs of 391 steps at a
rate of 0.1, 40 at 0.01, 40 at 0.001, decay 1e-4) makes it 3.3. Kept in place of the decay, because fewer steps at 1e-4 would
leave every scale about where it began, and arms with other rates would shrink by other factors."""
RATES: dict[str, float] = {
    "norms-8": 0.01,
    "norms-14": 0.01,
    "norms-26": 0.003,
    "random-8": 5.0,
    "random-14": 3.0,
    "random-26": 1.0,
    "all-26": 0.1,
    "head-14": 0.3,
    "norms-head-14": 0.1,
}
"""Highest learning rate of each arm; see the pilot above."""
WORLD: dict[str, Any] = {"size": 12, "noise": 0.05, "jitter": 0.7, "clutter": 0}
"""How hard the letters are: in the pilot norms and random weights sit neither at the ceiling nor at chance; training everything
does."""
LABELS = Access(source_labels=True)


class DecayEverything(GradientTransform):
    """Coupled weight decay of all parameters that learn; the loop's own decay spares norms."""

    def __init__(self, decay: float) -> None:
        self.decay = decay

    def apply(self, context: GradientContext) -> None:
        """Add ``decay * parameter`` to every gradient."""
        for parameter in context.learned:
            if parameter.grad is not None:
                parameter.grad.add_(parameter.detach(), alpha=self.decay)


def build_model(learns: str, depth: int, data: GuardedSuite, context: ArmContext, *, scales: str = "uniform") -> SharedTrunk:
    """Return the network with all weights random and only some that learn; equal weights for all arms of one depth.

    Args:
        learns: ``norms``, ``random``, ``all``, ``head`` or ``norms+head``.
        depth: Depth of the network.
        data: The data.
        context: The arm; its stream ``init`` is drawn from.
        scales: ``uniform`` draws the scales from [0, 1), ``one`` leaves them at 1.
    """
    context.seeds.set_global("init")
    suite = data.visible
    backbone = CifarResNet(depth, channels=CHANNELS)
    model = SharedTrunk(suite.tasks, lambda: backbone, inputs=suite.input_specs, head_hidden=0)
    for module in model.heads.modules():
        if isinstance(module, nn.Linear):  # large enough for a frozen head to tell classes apart, as in the paper's code
            nn.init.kaiming_normal_(module.weight)
    if scales == "uniform":
        draw_scales_(model)
    if learns == "random":
        RandomWeights(per_filter=2).attach(model)
    elif learns.startswith("norms"):
        BatchNormOnly().attach(model)
    elif learns == "head":
        model.requires_grad_(False)
    # `norms+head` and `head`: the output layer learns on top of whatever was frozen above.
    if learns.endswith("head"):
        model.heads.requires_grad_(True)
    return model


def decay_of(rate: float, steps: int) -> float:
    """Return the weight decay whose shrinkage over a cosine schedule from ``rate`` to 0 is that of the paper."""
    return SHRINKAGE * (1.0 - MOMENTUM) / (0.5 * rate * steps)


def train(learns: str, depth: int, rate: float, data: GuardedSuite, context: ArmContext, steps: int, scales: str) -> Trainer:
    """Train one network: SGD with momentum, cosine schedule, small shifts of the pictures."""
    trainer = Trainer(
        build_model(learns, depth, data, context, scales=scales),
        data.visible.tasks,
        BatchStream(data.visible, data.visible.splits["train"], BATCH, context.seeds.integer("batches")),
        balancer=EqualWeights(),
        transforms=[DecayEverything(decay_of(rate, steps))],
        config=TrainConfig(
            max_steps=steps,
            batch_size=BATCH,
            optimizer="sgd",
            momentum=MOMENTUM,
            weight_decay=0.0,
            learning_rate=rate,
            schedule="cosine",
            grad_clip=5.0,
            augment="shift",
        ),
        seeds=context.seeds,
        callbacks=[context.budget_callback()],
    )
    trainer.train(steps)
    return trainer


def run_arm(arm: Arm, seed: int, context: ArmContext) -> Measurements:
    """Train once; measure accuracies in percent, and scales and units that are switched off."""
    sizes = context.choose(full=(3000, 500, 2000), smoke=(192, 64, 64))
    suite = glyphs(num_train=sizes[0], num_val=sizes[1], num_test=sizes[2], seed=seed, **WORLD)
    data = context.guard(suite)
    if arm.settings["learns"] == "plan":
        steps = context.choose(full=PLAN_STEPS, smoke=2)
        learner = context.train(card_plan("bn-only"), data, steps=steps, backbone="efficientnet_lite0")
        return {"accuracy": 100.0 * data.score("test", context.predict(learner, data))["letter"]["accuracy"]}
    depth, rate, scales = int(arm.settings["depth"]), float(arm.settings["rate"]), str(arm.settings["scales"])
    steps = context.choose(full=STEPS, smoke=3)
    model = train(str(arm.settings["learns"]), depth, rate, data, context, steps, scales).eval_model()
    # A copy: the untouched model is measured as well.
    thinned = copy.deepcopy(model)
    zero_small_scales_(thinned)
    return {
        "accuracy": accuracy(model, data, "test"),
        "validation": accuracy(model, data, "val"),
        "train": accuracy(model, data, "train"),
        "thinned": accuracy(thinned, data, "test"),
        "small_share": 100.0 * small_scale_share(model),
        "dead_share": 100.0 * dead_share(model, data),
        "learned": sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad),
    }


def accuracy(model: SharedModel, data: GuardedSuite, split: str) -> float:
    """Return the accuracy on a split, in percent."""
    # Test labels stay behind the guard; other splits are visible anyway.
    source = data.questions(split) if split == "test" else data.visible
    outputs = predict_rows(model, data.visible.tasks, source, source.splits[split])
    return 100.0 * data.score(split, outputs)["letter"]["accuracy"]


@torch.no_grad()
def dead_share(model: SharedModel, data: GuardedSuite) -> float:
    """Return the share of units (channel and place) after the first norm of all blocks that are zero for every validation
    picture."""
    highest: dict[int, Tensor] = {}

    def watch(module: nn.Module, inputs: object, output: Tensor) -> None:
        del inputs
        # [B, C, H, W] -> [C, H, W]: the highest value of every unit
        most = output.amax(dim=0)
        highest[id(module)] = torch.maximum(highest[id(module)], most) if id(module) in highest else most

    hooks = [block.norm1.register_forward_hook(watch) for block in model.modules() if isinstance(block, BasicBlock)]
    predict_rows(model, data.visible.tasks, data.visible, data.visible.splits["val"])
    for hook in hooks:
        hook.remove()
    return float(torch.cat([(most <= 0).float().flatten() for most in highest.values()]).mean())


def _arm(name: str, title: str, learns: str, depth: int, scales: str = "uniform") -> Arm:
    # Arms without a rate of their own take that of BatchNorm at their depth.
    rate = RATES.get(name, RATES[f"norms-{depth}"])
    return Arm(name, title, access=LABELS, settings={"learns": learns, "depth": depth, "rate": rate, "scales": scales})


DEPTHS = (8, 14, 26)
SCRATCH = (
    *(_arm(f"norms-{depth}", f"BatchNorm only, depth {depth}", "norms", depth) for depth in DEPTHS),
    *(_arm(f"random-{depth}", f"two random weights a channel, depth {depth}", "random", depth) for depth in DEPTHS),
    _arm("all-26", "all parameters, depth 26", "all", 26),
    _arm("head-14", "output layer only, BatchNorm as drawn, depth 14", "head", 14),
    _arm("norms-head-14", "BatchNorm and output layer, depth 14", "norms+head", 14),
    _arm("ones-14", "BatchNorm only from scales of 1, depth 14", "norms", 14, "one"),
)
PLAN = Arm("plan", "the plan of fit: BatchNorm of a pretrained network, heads learn", access=LABELS, settings={"learns": "plan"})

RECIPE = Recipe(
    slug="bn-only",
    arms=(*SCRATCH, PLAN),
    seeds=(0, 1, 2, 3, 4),
    smoke_seeds=(0,),
    run_arm=run_arm,
    inequalities=(
        Inequality("depth 26 beats 14", "norms-26.accuracy", "norms-14.accuracy", unit="points"),
        Inequality("depth 14 beats 8", "norms-14.accuracy", "norms-8.accuracy", unit="points"),
        *(
            Inequality(
                f"depth {depth}: BatchNorm beats as many random weights",
                f"norms-{depth}.accuracy",
                f"random-{depth}.accuracy",
                margin=10.0,
                unit="points",
            )
            for depth in DEPTHS
        ),
        Inequality(
            "scales near zero: three times those of full training",
            "norms-26.small_share",
            "all-26.small_share",
            right_factor=3.0,
            unit="points",
        ),
        Inequality("BatchNorm beats the output layer", "norms-14.accuracy", "head-14.accuracy", primary=False, unit="points"),
        Inequality("headroom: everything beats BatchNorm", "all-26.accuracy", "norms-26.accuracy", primary=False, unit="points"),
        Inequality(
            "scales below 0.01 do no work",
            "norms-26.thinned",
            "norms-26.accuracy",
            margin=1.0,
            demand="not worse",
            primary=False,
            unit="points",
        ),
        Inequality(
            "scales from [0, 1) end near zero more often than scales from 1",
            "norms-14.small_share",
            "ones-14.small_share",
            primary=False,
            unit="points",
        ),
    ),
    # Not the plan: it starts from a pretrained network and takes its own number of steps.
    equal_budget=(EqualBudget(("steps", "samples", "labels"), arms=tuple(arm.name for arm in SCRATCH)),),
    minutes=4,
    notes=(
        "Generated letters of 20 classes stand for CIFAR-10; networks of 8, 16 and 32 channels, depths 8, 14 and 26.",
        "Each arm has a learning rate of its own, from a pilot on other seeds; weight decay makes an unused scale shrink "
        "as far as in the paper, in all arms alike.",
        "Five seeds in place of three: the shares of scales near zero were close to a factor of three in the pilot.",
    ),
)
