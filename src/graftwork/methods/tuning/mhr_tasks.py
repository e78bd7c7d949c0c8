"""Multi-head adapter routing over several tasks: the inventory of modules and each task's routing learn together; see
:mod:`graftwork.methods.tuning.mhr`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

from graftwork.core.input_spec import InputSpecs
from graftwork.core.records import TaskSpec
from graftwork.interfaces.backbone import Backbone
from graftwork.methods.tuning.lora import select_layers
from graftwork.methods.tuning.mhr import check_numbers, routed_delta
from graftwork.nn.foldable import put_module
from graftwork.nn.routed_low_rank import RoutedLowRank
from graftwork.nn.switched_model import SwitchedModel
from graftwork.nn.weight_delta import WeightDelta

__all__ = ["MultiHeadRouting"]


class MultiHeadRouting(SwitchedModel):
    """Several tasks on one frozen backbone: an inventory of low-rank modules in each layer learns with each task's routing.

    Args:
        tasks: The tasks.
        make_backbone: Returns the pretrained backbone.
        inputs: The suite's inputs.
        skills: Modules in the inventory, at least 1.
        r: Rank of each.
        heads: Slices of the weights that are routed apart; 1 is Poly. It divides inputs and outputs of every chosen layer.
        lora_alpha: Numerator of the scaling ``lora_alpha / r``.
        target_modules: Which layers; see :func:`~graftwork.methods.tuning.lora.select_layers`.
        share_routing: One routing for all layers.
        head_hidden: Hidden width of the tasks' output layers; see :class:`.SwitchedModel`.

    Raises:
        ConfigError: If a number is out of range, or a layer cannot be cut into so many slices.
    """

    def __init__(
        self,
        tasks: Sequence[TaskSpec],
        make_backbone: Callable[[], Backbone],
        *,
        inputs: InputSpecs,
        skills: int = 8,
        r: int = 4,
        heads: int = 4,
        lora_alpha: float = 16.0,
        target_modules: str | Sequence[str] = "auto",
        share_routing: bool = False,
        head_hidden: int | None = None,
    ) -> None:
        check_numbers(skills, r, heads, lora_alpha)
        super().__init__(tasks, make_backbone(), inputs=inputs, head_hidden=head_hidden)
        routing: nn.Parameter | None = None
        for name in select_layers(self.backbone, target_modules):
            layer = RoutedLowRank(
                self.backbone.get_submodule(name),
                skills=skills,
                rank=r,
                heads=heads,
                scaling=lora_alpha / r,
                tasks=len(self.task_names),
                routing=routing,
            )
            routing = layer.routing if share_routing else None
            put_module(self.backbone, name, layer)
        self._settings = {"skills": skills, "r": r, "heads": heads}

    def routed_layers(self) -> dict[str, RoutedLowRank]:
        """Return the routed layers by name."""
        return {name: layer for name, layer in self.backbone.named_modules() if isinstance(layer, RoutedLowRank)}

    def switch(self, task: int) -> None:
        """Let all layers mix for a task."""
        for layer in self.routed_layers().values():
            layer.task = task

    def delta(self, task: str) -> WeightDelta:
        """Return a task's mixture as a low-rank difference, which folds into the backbone."""
        number = self.number_of(task)
        parts = {f"{name}.weight": layer.part(number) for name, layer in self.routed_layers().items()}
        return routed_delta(self.backbone, parts, {"system": "mhr", "task": task, **self._settings})

    def skill_deltas(self) -> list[WeightDelta]:
        """Return each module of the inventory as a low-rank difference: what :class:`.MHR` begins from."""
        layers = self.routed_layers()
        count = len(next(iter(layers.values())).down)
        return [
            routed_delta(
                self.backbone,
                {f"{name}.weight": layer.skill(number) for name, layer in layers.items()},
                {"system": "mhr", "skill": number, **self._settings},
            )
            for number in range(count)
        ]
