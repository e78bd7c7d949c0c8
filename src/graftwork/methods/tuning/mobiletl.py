"""MobileTL: the last inverted residual blocks of a network learn, with a backward pass that needs few of their activations.

Paper: Chiang et al., "MobileTL: On-device Transfer Learning with Inverted Residual Blocks", AAAI 2023,
https://arxiv.org/abs/2212.03246.

In a tuned block all convolutions learn, and the last norm with its statistics. Its inner norms keep statistics and scales, and their
shifts learn, so that they hold nothing; derivatives of activations are taken for steps, of which a bit a value is held
(:mod:`graftwork.nn.lean_backward`). What is before the blocks runs without gradients; frozen layers behind them hold nothing but masks.

Departures: blocks are found by their structure in any network; squeeze-and-excitation learns with the exact backward pass; the paper
does not say where the step of hard-swish is, here it is at 0. The step of ReLU6 is its derivative.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from graftwork.core.errors import ConfigError
from graftwork.methods.tuning.selected import SelectedTuning
from graftwork.nn.backbones.resizable import set_working_size
from graftwork.nn.freeze import fix_mode, is_batch_norm
from graftwork.nn.lean_backward import make_exact, make_lean

__all__ = ["MobileTL", "inverted_residuals"]


class MobileTL(SelectedTuning):
    """The last blocks learn; everything else is frozen, statistics of BatchNorm included.

    Args:
        blocks: Number of inverted residual blocks that learn, counted from the output, at least 1; at most all are taken.
        exact: Whether inner norms learn in full and the backward pass is exact: tuning of the same blocks as usual.
        working_size: Working resolution in pixels of an image backbone that resizes; None leaves it. Others ignore it.

    Raises:
        ConfigError: If there is no block to tune by number, or, on :meth:`attach`, in the model.

    Example:
        >>> from graftwork.nn.backbones.lite_stages import LiteStages
        >>> model = LiteStages(2, norms=True)
        >>> MobileTL(blocks=1).attach(model)
        >>> sorted({name.split(".conv")[0].split(".norm")[0] for name, item in model.named_parameters() if item.requires_grad})
        ['stages.1.1.depthwise', 'stages.1.1.expand', 'stages.1.1.project']
    """

    def __init__(self, *, blocks: int = 3, exact: bool = False, working_size: int | None = None) -> None:
        super().__init__()
        if blocks < 1:
            raise ConfigError(f"`blocks` must be at least 1; got {blocks!r}.")
        self.blocks, self.exact, self.working_size = blocks, exact, working_size

    def attach(self, model: nn.Module) -> None:
        """Let the last blocks learn, and hold less for their backward pass; set the working size."""
        super().attach(model)
        moving = {norm for block in self._tuned(model) for norm in self._moving(model, block)}
        for name, module in list(model.named_modules()):
            if is_batch_norm(module) and name not in moving:
                fix_mode(module)
        if not self.exact:
            make_lean(model, "masks")
        set_working_size(model, self.working_size)

    def choose(self, model: nn.Module) -> Sequence[str]:
        """Return the parameters of the last blocks, but for scales of inner norms."""
        names: list[str] = []
        for block in self._tuned(model):
            norms = set(_norms(model, block)) - set(self._moving(model, block))
            names += [
                name
                for name, _ in model.named_parameters()
                if name.startswith(f"{block}." if block else "")
                and not (name.rpartition(".")[0] in norms and name.endswith("weight"))
            ]
        return names

    def fold(self) -> None:
        """Give the model its plain classes back; what was learned is in plain weights already."""
        if self._model is not None:
            make_exact(self._model)
        super().fold()

    def _tuned(self, model: nn.Module) -> list[str]:
        found = inverted_residuals(model)
        if not found:
            raise ConfigError(
                f"MobileTL tunes inverted residual blocks (a convolution for each channel, then one of 1x1, with BatchNorm); "
                f"{type(model).__name__} has none. Choose a MobileNet, an EfficientNet or conv-mini, or tune with bn-only."
            )
        return found[-self.blocks :]

    def _moving(self, model: nn.Module, block: str) -> list[str]:
        """Return the norms of a block that follow the data."""
        norms = _norms(model, block)
        return norms if self.exact else norms[-1:]


def inverted_residuals(model: nn.Module) -> list[str]:
    """Return the names of the inverted residual blocks, in the order of definition: modules that hold a convolution for each channel, a
    1x1 convolution after it and two BatchNorm layers or more, and no smaller module that does."""
    found = [name for name, module in model.named_modules() if _is_block(module)]
    return [name for name in found if not any(other.startswith(f"{name}." if name else "") and other != name for other in found)]


def _is_block(module: nn.Module) -> bool:
    convolutions = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d)]
    depthwise = [index for index, layer in enumerate(convolutions) if layer.groups == layer.in_channels > 1]
    pointwise = [index for index, layer in enumerate(convolutions) if layer.groups == 1 and set(layer.kernel_size) == {1}]
    norms = sum(is_batch_norm(layer) for layer in module.modules())
    return bool(depthwise) and bool(pointwise) and max(pointwise) > min(depthwise) and norms >= 2


def _norms(model: nn.Module, block: str) -> list[str]:
    prefix = f"{block}." if block else ""
    return [f"{prefix}{name}" for name, layer in model.get_submodule(block).named_modules() if is_batch_norm(layer)]
