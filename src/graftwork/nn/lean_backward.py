"""Modules whose forward pass stays as it is and whose backward pass holds less: in training, functions that they call are exchanged
for lean ones.

Functions are exchanged, not layers, so that it works for any ``nn.Module`` (blocks of timm and of transformers call functions inside
themselves). A module's class is exchanged for a subclass that differs in ``forward`` alone, as :mod:`graftwork.nn.freeze` does for
modes: names, weights and copies stay as they are. In evaluation, without gradients and while a graph is traced nothing changes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from graftwork.core.errors import ConfigError
from graftwork.nn.lean_activations import (
    CURVES,
    MASKS,
    STEPS,
    coded_activation,
    coded_input_activation,
    masked_activation,
    packed_dropout,
)
from graftwork.nn.lean_layers import coded_attention, coded_softmax, frozen_convolution
from graftwork.nn.lean_norms import coded_layer_norm, shift_only_norm

__all__ = ["LeanFunctions", "LeanKind", "make_exact", "make_lean"]

LeanKind = Literal["codes", "input-codes", "masks"]
"""``codes`` holds derivatives, normalised values and probabilities in 4 bits (S2A); ``input-codes`` inputs of activations in place of
their derivatives, for comparison; ``masks`` takes derivatives of activations for steps, in 1 bit (MobileTL). All hold nothing of
BatchNorm with frozen statistics and scale and of convolutions with frozen weights, and 1 bit a value of dropout."""
Lean = Callable[..., Any]


def _activations(functions: Mapping[Callable[..., Tensor], Any], lean: Lean) -> dict[Callable[..., Any], Lean]:
    return {function: functools.partial(lean, function) for function in functions}


@functools.cache
def _table(kind: LeanKind) -> dict[Callable[..., Any], Lean]:
    table: dict[Callable[..., Any], Lean] = {
        F.batch_norm: shift_only_norm,
        F.conv2d: frozen_convolution,
        F.dropout: packed_dropout,
    }
    if kind == "masks":
        return {**table, **_activations(STEPS, masked_activation)}
    table |= dict.fromkeys((F.softmax, torch.softmax, Tensor.softmax), coded_softmax)
    table |= {F.layer_norm: coded_layer_norm, F.scaled_dot_product_attention: coded_attention}
    coded = {"codes": coded_activation, "input-codes": coded_input_activation}[kind]
    return {**table, **_activations({**MASKS, **CURVES}, coded)}


class LeanFunctions(TorchFunctionMode):
    """While it is entered, functions through which a gradient passes are the lean ones.

    What is called inside another function of torch (``nn.MultiheadAttention``) is not seen. A lean function that cannot do what is
    asked leaves it to the exact one.

    Args:
        kind: Which lean functions.

    Example:
        >>> x = torch.ones(1, requires_grad=True)
        >>> with LeanFunctions("masks"):
        ...     F.hardswish(x).backward()
        >>> x.grad.item()  # exact: 5 / 6
        1.0
    """

    def __init__(self, kind: LeanKind) -> None:
        super().__init__()
        self._functions = _table(kind)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        lean = self._functions.get(func)
        if lean is not None and args and torch.is_grad_enabled() and _learns((*args, *(kwargs or {}).values())):
            answer = lean(*args, **(kwargs or {}))
            if answer is not NotImplemented:
                return answer
        return func(*args, **(kwargs or {}))


def _learns(arguments: tuple[Any, ...]) -> bool:
    """Whether a gradient passes through a function: into its input, or into what else it takes."""
    return any(isinstance(item, Tensor) and item.requires_grad for item in arguments)


class _Lean:
    """Mixed in before a module's own class."""

    lean_kind: LeanKind

    def forward(self, *arguments: Any, **keywords: Any) -> Any:
        module: Any = self
        plain = super().forward  # type: ignore[misc]
        if not module.training or not torch.is_grad_enabled() or torch.compiler.is_compiling():
            return plain(*arguments, **keywords)
        with LeanFunctions(self.lean_kind):
            return plain(*arguments, **keywords)


# Cached, so that a class has one such subclass a kind and copies of a model share it.
@functools.cache
def _lean_class(cls: type[nn.Module], kind: LeanKind) -> type[nn.Module]:
    facts = {"__module__": cls.__module__, "__doc__": cls.__doc__, "exact_class": cls, "lean_kind": kind}
    return type(cls.__name__, (_Lean, cls), facts)


def make_lean(module: nn.Module, kind: LeanKind) -> None:
    """Let a module hold less for the backward pass, in place.

    Raises:
        ConfigError: If it is lean already.
    """
    if isinstance(module, _Lean):
        raise ConfigError(f"This {type(module).__name__} holds less for its backward pass already. Call make_exact first.")
    # Classes are hashable; mypy reads Module.__hash__.
    module.__class__ = _lean_class(type(module), kind)  # type: ignore[arg-type, assignment]


def make_exact(module: nn.Module) -> None:
    """Undo :func:`make_lean`; a module that is not lean stays as it is. Classes that were exchanged since then (fixed modes) must have
    been exchanged back.

    Raises:
        ConfigError: If the module's own class is not the one that :func:`make_lean` gave it.
    """
    if not isinstance(module, _Lean):
        return
    if "exact_class" not in vars(type(module)):
        raise ConfigError(f"The class of this {type(module).__name__} was exchanged since. Release its mode first.")
    module.__class__ = type(module).exact_class  # type: ignore[attr-defined]
