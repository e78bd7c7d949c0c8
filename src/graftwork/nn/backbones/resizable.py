"""Backbones whose working resolution can be chosen: fewer pixels make every step of tuning cheaper."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import nn

__all__ = ["Resizable", "set_working_size"]


class Resizable(ABC):
    """Mixed into image backbones that resize pictures in their own graph."""

    size: int
    """Working resolution in pixels."""

    @abstractmethod
    def set_working_size(self, size: int) -> None:
        """Change the working resolution.

        Raises:
            ConfigError: If the weights do not allow this size.
        """


def set_working_size(model: nn.Module, size: int | None) -> None:
    """Set the working resolution of ``model`` if it has one; text and other backbones stay as they are, and so do all for
    None."""
    if size is not None and isinstance(model, Resizable):
        model.set_working_size(size)
