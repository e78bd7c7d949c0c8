"""A device made of Python: its tensors hold their values on the CPU, and meet no tensor of the CPU in one operation.

Stands in for an accelerator where there is none: what was left on the CPU, or is read without being brought back, fails as it would
there. Whoever imports this registers the device in the process, for good.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import backend_registration
from torch.utils._pytree import tree_leaves, tree_map

__all__ = ["NAME", "Creation"]

NAME = "fake"
_MIXES = ("aten::index", "aten::index_put_")
"""Indices may lie on the CPU for every device."""
_MAKERS = {
    torch.tensor,
    torch.as_tensor,
    torch.zeros,
    torch.ones,
    torch.full,
    torch.empty,
    torch.arange,
    torch.eye,
    torch.linspace,
}


class _Backend(backend_registration._DummyBackendModule):
    state = torch.Generator().manual_seed(0).get_state()

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]

    def get_rng_state(self, device: object = None) -> Tensor:
        return self.state.clone()

    def set_rng_state(self, state: Tensor, device: object = None) -> None:
        self.state = state.clone()


backend_registration._setup_privateuseone_for_python_backend(NAME, _Backend())


class _FakeTensor(Tensor):
    raw: Tensor

    @staticmethod
    def __new__(cls, raw: Tensor) -> _FakeTensor:
        made: _FakeTensor = Tensor._make_wrapper_subclass(
            cls, raw.size(), strides=raw.stride(), dtype=raw.dtype, device=torch.device(NAME, 0), requires_grad=False
        )
        made.raw = raw
        return made

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return _run(func, args, kwargs or {})


def _is_here(device: Any) -> bool:
    return device is not None and torch.device(device).type == NAME


def _raw(value: Any) -> Any:
    return value.raw if isinstance(value, _FakeTensor) else value


def _run(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    name, options = func._schema.name, dict(kwargs)
    if name == "aten::_to_copy":
        device = options.pop("device", None)
        copied = func(_raw(args[0]), **options, device="cpu")
        stays = device is None and isinstance(args[0], _FakeTensor)
        return _FakeTensor(copied) if stays or _is_here(device) else copied
    if name == "aten::copy_":
        _raw(args[0]).copy_(_raw(args[1]))
        return args[0]
    if name == "aten::_local_scalar_dense":
        return func(_raw(args[0]))
    held = [value for value in tree_leaves((args, options)) if isinstance(value, Tensor)]
    strange = [tuple(value.shape) for value in held if not isinstance(value, _FakeTensor) and value.dim() > 0]
    if strange and name not in _MIXES:
        raise RuntimeError(f"{name} got tensors of this device and of the CPU: {strange}")
    goes_away = options.get("device") is not None and not _is_here(options["device"])
    if options.get("device") is not None:
        options["device"] = "cpu"
    found = func(*tree_map(_raw, args), **tree_map(_raw, options))

    def given_back(value: Any) -> Any:
        if not isinstance(value, Tensor) or goes_away:
            return value
        # What was written in place is the argument itself.
        own = [one for one in held if isinstance(one, _FakeTensor) and one.raw is value]
        return own[0] if own else _FakeTensor(value)

    return tree_map(given_back, found)


_LIBRARY = torch.library.Library("_", "IMPL")
_LIBRARY.fallback(lambda func, *args, **kwargs: _run(func, args, kwargs), "PrivateUse1")


class Creation(TorchFunctionMode):
    """While it is entered, new tensors of the device are made on the CPU and moved: torch's own way is closed to such devices."""

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        options = dict(kwargs or {})
        is_fake = bool(args) and isinstance(args[0], _FakeTensor)
        if is_fake and func is Tensor.tolist:
            return args[0].raw.tolist()
        if is_fake and func in (Tensor.data_ptr, Tensor.untyped_storage):
            return func(args[0].raw)
        if is_fake and func is Tensor.new_tensor:
            return torch.tensor(*args[1:], **{"dtype": args[0].dtype, **options}).to(NAME)
        if func in _MAKERS and _is_here(options.get("device")):
            return func(*args, **{**options, "device": "cpu"}).to(NAME)
        return func(*args, **options)
