"""Optimisers and their parameter groups."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from graftwork.core.errors import CheckpointError, ConfigError
from graftwork.interfaces.backbone import Backbone
from graftwork.nn.plain_optimizers import plain_optimizer
from graftwork.training.config import LoopConfig

__all__ = ["build_optimizer", "load_optimizer_state", "optimizer_state"]


def build_optimizer(
    model: nn.Module, extra: Sequence[nn.Parameter], config: LoopConfig, modules: Sequence[nn.Module] = ()
) -> torch.optim.Optimizer:
    """Return the optimiser over what learns.

    Groups: inside or outside of backbones (``backbone_lr_scale``), matrices and kernels or the rest (``weight_decay``), and
    ``extra`` parameters of balancers and objectives, which never decay. Each group's ``base_lr`` is what schedules scale.

    Args:
        model: The model.
        extra: Parameters outside of modules; none of them may lie in the model.
        config: Settings.
        modules: Modules beside the model (an objective's discriminator, say), grouped like the model's parts. What they share
            with it counts once.

    Raises:
        ConfigError: If nothing learns.
    """
    whole = nn.ModuleList([model, *modules])
    inside = {id(parameter) for module in whole.modules() if isinstance(module, Backbone) for parameter in module.parameters()}
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}  # few groups: each one costs a call per step
    for parameter in whole.parameters():
        if parameter.requires_grad:
            scale = config.backbone_lr_scale if id(parameter) in inside else 1.0
            # Matrices, kernels and embeddings decay; scales and biases have one dimension.
            groups.setdefault((config.learning_rate * scale, parameter.ndim > 1), []).append(parameter)
    described: list[dict[str, Any]] = []
    for (rate, decays), parameters in groups.items():
        described.append(
            {"params": parameters, "lr": rate, "base_lr": rate, "weight_decay": config.weight_decay if decays else 0.0}
        )
    if extra:
        described.append(
            {"params": list(extra), "lr": config.learning_rate, "base_lr": config.learning_rate, "weight_decay": 0.0}
        )
    if not described:
        raise ConfigError(
            "Nothing learns: every parameter of the model is frozen. Choose another tuning method or unfreeze the heads."
        )
    if config.optimizer == "sgd":
        # torch refuses Nesterov's rule without momentum.
        return plain_optimizer(torch.optim.SGD)(
            described, lr=config.learning_rate, momentum=config.momentum, nesterov=config.momentum > 0, fused=True
        )
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    return plain_optimizer(kind)(described, lr=config.learning_rate, fused=True)


def optimizer_state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return the moments of every parameter by its number, for checkpoints; groups and rates follow from the settings."""
    state = optimizer.state_dict()["state"]
    return {str(number): {key: value for key, value in moments.items() if value is not None} for number, moments in state.items()}


def load_optimizer_state(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Restore :func:`optimizer_state`.

    Raises:
        CheckpointError: If the state is of other parameters.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for number, moments in state.items():
        # Adam's step counter is a scalar and says nothing of the shape.
        shapes = {tuple(value.shape) for value in moments.values() if isinstance(value, Tensor) and value.ndim > 0}
        if int(number) >= len(parameters) or not shapes <= {tuple(parameters[int(number)].shape)}:
            raise CheckpointError("The optimiser's state belongs to another model. Start the run again without --resume.")
    whole = optimizer.state_dict()
    whole["state"] = {
        # Copies: torch would take the tensors themselves and go on writing into them.
        int(number): {key: value.clone() if isinstance(value, Tensor) else value for key, value in moments.items()}
        for number, moments in state.items()
    }
    optimizer.load_state_dict(whole)
