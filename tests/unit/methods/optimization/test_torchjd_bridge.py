from __future__ import annotations

from typing import Any

import pytest
import torch
import torchjd.aggregation
from balancing_models import TinyModel
from torchjd.autojac import jac_to_grad, mtl_backward

from graftwork.core import optional
from graftwork.core.errors import ConfigError, MissingDependencyError
from graftwork.methods.optimization.jacobian import JacobianBalancer, RepresentationBalancer
from graftwork.methods.optimization.torchjd_bridge import AGGREGATORS, find_aggregator, jacobian_balancer
from graftwork.methods.optimization.torchjd_weights import TorchJDFunction, TorchJDWeights

SETTINGS: dict[str, dict[str, Any]] = {
    "Constant": {"weights": [0.5, 1.0, 2.0]},
    "Krum": {"n_byzantine": 0, "n_selected": 2},
    "TrimmedMean": {"trim_number": 1},
    "GradDrop": {"leak": [0.1, 0.2, 0.3]},
    "NashMTL": {"solver": "torchjd"},
}
SOLVED_HERE = {"AlignedMTL": {}, "ConFIG": {}, "FairGrad": {"alpha": 2.0}, "IMTLG": {}}
"""Their numbers are compared with torchjd's in float64: in float32 torchjd's own are off."""


def torchjd_object(balancer: Any) -> Any:
    wrapped = balancer.aggregator
    assert isinstance(wrapped, TorchJDWeights | TorchJDFunction)
    return wrapped.aggregator if isinstance(wrapped, TorchJDWeights) else wrapped.function


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", sorted(AGGREGATORS))
def test_equals_autojac_number_by_number(name: str, dtype: torch.dtype) -> None:
    """Three steps on one network; torchjd computes Jacobian, direction and ``.grad`` by itself on the other side."""
    settings = {
        key: value if dtype == torch.float32 else torch.tensor(value, dtype=dtype) if isinstance(value, list) else value
        for key, value in SETTINGS.get(name, {}).items()
    }
    model = TinyModel(3, dtype=dtype)
    ours = jacobian_balancer(name, **settings)
    if name in SOLVED_HERE:
        theirs: Any = getattr(torchjd.aggregation, name)(**SOLVED_HERE[name])
    else:
        theirs = torchjd_object(jacobian_balancer(name, **settings))
    if name == "NashMTL":
        theirs.n_tasks = 3
        theirs.reset()
    loose = {"FairGrad": 1e-4}.get(name, 2e-5)
    for step in range(3):
        torch.manual_seed(step)
        found, _ = model.balance(ours)
        model.zero_grad(set_to_none=True)
        losses, representation = model.loss_list()
        torch.manual_seed(step)
        owned = [list(head.parameters()) for head in model.heads]
        mtl_backward(losses, representation, tasks_params=owned, shared_params=model.shared)
        jac_to_grad(model.shared, theirs)
        tolerance = 1e-6 if dtype == torch.float64 and name != "FairGrad" else loose
        torch.testing.assert_close(found, model.gradients(), rtol=tolerance, atol=tolerance)


def test_representation_mode_equals_torchjd_on_the_representation() -> None:
    from torchjd.aggregation import MGDA

    model = TinyModel(3)
    direction = MGDA()(model.representation_jacobian())
    _, representation = model.losses()
    expected = torch.autograd.grad(representation, model.shared, direction.view_as(representation))
    found, _ = model.balance(jacobian_balancer("MGDA", "representation"))
    torch.testing.assert_close(found[: len(model.shared)], list(expected))


@pytest.mark.parametrize("name", ["UPGrad", "DualProj", "CAGrad"])
def test_tiny_gradients_are_balanced_like_large_ones(name: str) -> None:
    """torchjd's own threshold would call these zero: CAGrad would not move at all, UPGrad would average."""
    model = TinyModel(3)
    losses, representation = model.losses()
    balancer = jacobian_balancer(name)
    balancer.backward(losses, model.context(representation))
    large = model.gradients()[0]
    model.zero_grad(set_to_none=True)
    losses, representation = model.loss_list()
    balancer.backward(torch.stack([loss * 1e-6 for loss in losses]), model.context(representation))
    torch.testing.assert_close(model.gradients()[0] * 1e6, large, rtol=1e-5, atol=1e-9)


def test_upgrad_without_regularisation_lowers_no_progress() -> None:
    model = TinyModel(3)
    jacobian = model.jacobian()
    found, _ = model.balance(jacobian_balancer("UPGrad", reg_eps=0.0))
    direction = torch.cat([gradient.flatten() for gradient in found[: len(model.shared)]])
    progress = jacobian @ direction
    assert bool((progress >= -1e-9 * jacobian.norm(dim=1)).all())
    assert bool((jacobian @ jacobian.sum(dim=0) < 0).any()), "the example must have a conflict"


@pytest.mark.parametrize("name", ["MGDA", "UPGrad", "CAGrad", "AlignedMTL", "IMTLG", "PCGrad", "FairGrad"])
def test_absent_task_is_left_out(name: str) -> None:
    model, pair = TinyModel(3), TinyModel(3)
    torch.manual_seed(0)
    found, weights = model.balance(jacobian_balancer(name), absent=[2])
    pair.heads, pair.targets = pair.heads[:2], pair.targets[:2]
    torch.manual_seed(0)
    expected, _ = pair.balance(jacobian_balancer(name))
    torch.testing.assert_close(found[: len(model.shared)], expected[: len(model.shared)])
    assert weights is not None
    assert float(weights[2]) == 0.0
    assert any(bool(gradient.any()) for gradient in found)


def test_nash_keeps_its_last_weights_when_a_task_is_absent() -> None:
    model, balancer = TinyModel(3), jacobian_balancer("NashMTL", solver="torchjd")
    _, first = model.balance(balancer)
    _, second = model.balance(balancer, absent=[1])
    assert first is not None
    assert second is not None
    assert second.tolist() == pytest.approx([float(first[0]), 0.0, float(first[2])])


def test_nash_on_orthogonal_gradients_is_the_bargaining_solution() -> None:
    """For orthogonal rows the solution of ``G a = 1 / a`` is ``a = 1 / |g|``."""
    wrapped = jacobian_balancer("NashMTL", solver="torchjd", max_norm=0.0, optim_niter=100).aggregator  # type: ignore[attr-defined]
    matrix = torch.diag(torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64))
    _, weights = wrapped.combine_(matrix, torch.ones(3, dtype=torch.bool))
    assert (weights / weights[0]).tolist() == pytest.approx([1.0, 0.5, 0.25], rel=0.02)


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("Nash_MTL", "NashMTL"),
        ("Aligned_MTL", "AlignedMTL"),
        ("aligned-mtl", "AlignedMTL"),
        ("IMTL", "IMTLG"),
        ("IMTL-G", "IMTLG"),
        ("upgrad", "UPGrad"),
        ("EW", "Sum"),
        ("RLW", "Random"),
    ],
)
def test_names_and_aliases(given: str, found: str) -> None:
    assert find_aggregator(given) == found


def test_all_aggregators_of_torchjd_are_known() -> None:
    from torchjd import aggregation

    bases = {"Aggregator", "WeightedAggregator", "GramianWeightedAggregator"}
    public = {name for name in aggregation.__all__ if issubclass(getattr(aggregation, name), aggregation.Aggregator)} - bases
    assert set(AGGREGATORS) == public


def test_misspelt_name() -> None:
    with pytest.raises(ConfigError, match=r"no gradient aggregator 'PCGard'. Did you mean PCGrad"):
        jacobian_balancer("PCGard")


def test_wrong_settings() -> None:
    with pytest.raises(ConfigError, match="CAGrad has no setting 'radius'; its settings are c, norm_eps"):
        jacobian_balancer("CAGrad", radius=1.0)
    with pytest.raises(ConfigError, match=r"CAGrad cannot be built with \{'c': -1\}: c must be non-negative"):
        jacobian_balancer("CAGrad", c=-1)
    with pytest.raises(ConfigError, match="TrimmedMean cannot be built with no settings.*trim_number"):
        jacobian_balancer("TrimmedMean")
    with pytest.raises(ConfigError, match="`mode` must be 'parameters' or 'representation'; got 'both'"):
        jacobian_balancer("MGDA", "both")  # type: ignore[arg-type]


def test_modes() -> None:
    assert isinstance(jacobian_balancer("MGDA"), JacobianBalancer)
    assert isinstance(jacobian_balancer("MGDA", "representation"), RepresentationBalancer)


def test_without_torchjd(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}", name="torchjd")

    monkeypatch.setattr(optional.importlib, "import_module", absent)
    with pytest.raises(
        MissingDependencyError, match=r'The aggregator MGDA needs the package "torchjd.aggregation".*graftwork\[balancing\]'
    ):
        jacobian_balancer("MGDA")


def test_a_nash_mtl_that_was_never_called_is_restored() -> None:
    fresh = jacobian_balancer("NashMTL", solver="torchjd")
    fresh.load_state_dict(jacobian_balancer("NashMTL", solver="torchjd").state_dict())
    model = TinyModel(3)
    expected, _ = TinyModel(3).balance(jacobian_balancer("NashMTL", solver="torchjd"))
    for found, wanted in zip(model.balance(fresh)[0], expected, strict=True):
        torch.testing.assert_close(found, wanted)
