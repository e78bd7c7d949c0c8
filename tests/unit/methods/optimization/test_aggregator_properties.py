"""Every aggregator: gradients of any common size, any order of tasks, float32 beside float64, torchjd's own numbers, and the
corners.

A method has a property or it has not; which ones it has not is written down here with the reason.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from graftwork.methods.optimization.torchjd_bridge import AGGREGATORS, jacobian_balancer, least_squares_projector

torchjd = pytest.importorskip("torchjd.aggregation")

SETTINGS: dict[str, dict[str, Any]] = {
    "Constant": {"weights": [0.5, 1.0, 2.0, 0.25, 3.0]},
    "Krum": {"n_byzantine": 0, "n_selected": 2},
    "TrimmedMean": {"trim_number": 1},
}
POWERS = {"FairGrad": -1 / 3, "NashMTL": 0.0}
"""Gradients ``c`` times as long give a direction ``c ** power`` times as long; 1 for all others. FairGrad: (1 - alpha) / (1 +
alpha) for alpha 2."""
NOT_SCALED = {"ExcessMTL": "its first step weighs by the gradients' absolute size, as the official code does"}
RANDOM_ORDER = {"GradVac", "PCGrad"}
"""Visit the tasks in random order: reordering changes the answer, unless there are two (PCGrad)."""
NOT_PERMUTED = {
    "Constant": "weights belong to places",
    "PCD": "the first task is the main one",
    "Random": "weights are drawn by place",
    **dict.fromkeys(RANDOM_ORDER, "random order"),
}
OWN_DRAWS = {"GradDrop", "Random"}
"""Draw in the dtype of the gradients: other numbers in float32."""
NO_COMMON_DIRECTION = {"Constant", "ExcessMTL", "GradDrop", "Krum", "PCD", "Random", "TrimmedMean"}
"""Do not look for a direction that helps all, so that opposite gradients need not cancel."""
STANDS_STILL_AT_ZERO = {"MGDA": "the shortest convex combination is the zero row"}

names = pytest.mark.parametrize("name", sorted(AGGREGATORS))


def combine(name: str, rows: Tensor, **settings: Any) -> Tensor:
    """Return the direction of a new aggregator; random methods draw the same numbers every time."""
    chosen = {**SETTINGS.get(name, {}), **settings}
    if name == "Constant":
        chosen["weights"] = chosen["weights"][: len(rows)]
    aggregator = jacobian_balancer(name, **chosen).aggregator  # type: ignore[attr-defined]
    torch.manual_seed(0)
    direction, _ = aggregator.combine_(rows.clone(), torch.ones(len(rows), dtype=torch.bool))
    return direction.clone()


def draw_rows(seed: int, tasks: int = 5, spread: float = 0.0) -> Tensor:
    """Rows of which some are in conflict, of lengths over ``2 * spread`` orders of magnitude, at clear angles."""
    random = np.random.default_rng(seed)
    rows = random.normal(size=(tasks, 9))
    rows[1] -= 0.8 * rows[0]
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    assume(np.linalg.cond(rows) < 20)
    return torch.from_numpy(rows * 10.0 ** random.uniform(-spread, spread, size=(tasks, 1)))


def distance(found: Tensor, expected: Tensor) -> float:
    return float((found.double() - expected).norm() / expected.norm())


@names
@settings(max_examples=12)
@given(seed=st.integers(0, 10_000), power=st.floats(-6.0, 6.0), spread=st.sampled_from([0.0, 1.0]))
def test_the_size_of_all_losses_changes_the_length_only(name: str, seed: int, power: float, spread: float) -> None:
    if name in NOT_SCALED:
        pytest.skip(NOT_SCALED[name])
    rows, factor = draw_rows(seed, spread=spread), 10.0**power
    expected = combine(name, rows) * factor ** POWERS.get(name, 1.0)
    assert distance(combine(name, rows * factor), expected) < 1e-6


@names
@settings(max_examples=12)
@given(seed=st.integers(0, 10_000), order=st.permutations(range(5)), spread=st.sampled_from([0.0, 1.0]))
def test_the_order_of_the_tasks_does_not_matter(name: str, seed: int, order: list[int], spread: float) -> None:
    if name in NOT_PERMUTED:
        pytest.skip(NOT_PERMUTED[name])
    rows = draw_rows(seed, spread=spread)
    assert distance(combine(name, rows[order]), combine(name, rows)) < 1e-6


def test_the_order_of_two_tasks_does_not_matter_to_pcgrad() -> None:
    rows = draw_rows(0, tasks=2)
    assert distance(combine("PCGrad", rows.flip(0)), combine("PCGrad", rows)) < 1e-12


@names
@pytest.mark.parametrize("factor", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("spread", [0.0, 1.0, 2.0])
def test_float32_gives_what_float64_gives(name: str, factor: float, spread: float) -> None:
    """Lengths up to 1e4 apart."""
    if name in OWN_DRAWS:
        pytest.skip("draws other numbers in float32")
    for seed in range(3):
        rows = (draw_rows(seed, spread=spread) * factor).float()
        assert distance(combine(name, rows), combine(name, rows.double())) < 2e-5


THEIRS: dict[str, dict[str, Any]] = {
    "CAGrad": {"c": 0.5, "norm_eps": 1e-8},  # 1e-4, torchjd's default, takes short rows for zero
    "Constant": {"weights": torch.tensor([0.5, 1.0, 2.0, 0.25, 3.0], dtype=torch.float64)},
    "FairGrad": {"alpha": 2.0},
    "GradVac": {"eps": 1e-14},
    "DualProj": {"projector": least_squares_projector(1e-8, 1e-4)},  # torchjd's own needs quadprog
    "NashMTL": {"n_tasks": 5},
    "PCD": {"eps": 0.0},
    "UPGrad": {"projector": least_squares_projector(1e-8, 1e-4)},
}


@names
@pytest.mark.parametrize("spread", [0.0, 0.5])
def test_numbers_are_those_of_torchjd_in_float64(name: str, spread: float) -> None:
    """Rows of lengths around 1, where torchjd is right itself; its constants are made small where they show, see ``THEIRS``."""
    # torchjd's FairGrad stops before the solution; the others agree to rounding, CAGrad and NashMTL to their solvers' tolerance.
    allowed = {"FairGrad": 1e-4, "CAGrad": 1e-5, "NashMTL": 1e-6}.get(name, 1e-9)
    settings = {"solver": "torchjd"} if name == "NashMTL" else {}
    for seed in range(4):
        rows = draw_rows(seed, spread=spread)
        theirs = getattr(torchjd, name)(**{**SETTINGS.get(name, {}), **THEIRS.get(name, {})})
        found = combine(name, rows, **settings)
        torch.manual_seed(0)
        assert distance(found, theirs(rows)) < allowed


@names
def test_nothing_but_zero_gradients_moves_nothing(name: str) -> None:
    for dtype in (torch.float32, torch.float64):
        assert not combine(name, torch.zeros(5, 9, dtype=dtype)).any()


@names
def test_a_task_of_zero_gradient_stops_no_other(name: str) -> None:
    rows = draw_rows(1)
    rows[2] = 0.0
    direction = combine(name, rows)
    assert bool(direction.isfinite().all())
    assert bool(direction.any()) != (name in STANDS_STILL_AT_ZERO)


@names
def test_two_equal_tasks_move_along_their_gradient(name: str) -> None:
    if name in ("Krum", "TrimmedMean"):
        pytest.skip("needs more than two tasks")
    for dtype in (torch.float32, torch.float64):
        gradient = draw_rows(2)[0].to(dtype)
        direction = combine(name, torch.stack([gradient, gradient]))
        assert float(torch.cosine_similarity(direction, gradient, dim=0)) == pytest.approx(1.0, abs=1e-6)


@names
@pytest.mark.parametrize("ratio", [1.0, 0.3])
def test_opposite_gradients(name: str, ratio: float) -> None:
    """No direction helps both. Methods that look for one stay, but for what a regularised problem leaves."""
    if name in ("Krum", "TrimmedMean"):
        pytest.skip("needs more than two tasks")
    for dtype in (torch.float32, torch.float64):
        gradient = draw_rows(3)[0].to(dtype)
        direction = combine(name, torch.stack([gradient, -ratio * gradient]))
        assert bool(direction.isfinite().all())
        if name in NO_COMMON_DIRECTION or (ratio != 1.0 and name in ("AlignedMTL", "CAGrad", "Mean", "Sum")):
            continue  # these follow the longer gradient, as their definitions say
        assert float(direction.norm()) < 0.01


@names
def test_one_task_left_moves_along_its_gradient(name: str) -> None:
    """As when only one task has labels in the batch."""
    if name in ("Krum", "TrimmedMean"):
        pytest.skip("needs more than one task")
    gradient = draw_rows(4)[0]
    direction = combine(name, gradient.unsqueeze(0))
    assert float(torch.cosine_similarity(direction, gradient, dim=0)) == pytest.approx(1.0, abs=1e-9)


@names
@pytest.mark.parametrize("number", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("everywhere", [False, True])
def test_gradients_that_are_not_finite_give_no_finite_direction_and_no_error(name: str, number: float, everywhere: bool) -> None:
    """The loop then says that training diverged, and which task's loss it was."""
    rows = draw_rows(5).float()
    if everywhere:
        rows[2] = number
    else:
        rows[2, 3] = number
    assert not bool(combine(name, rows).isfinite().all())


# --- What went wrong before, with the right values.


def test_cagrad_goes_on_when_one_task_is_nearly_learned() -> None:
    """Gradients 1 and 1e-4 at right angles; torchjd's threshold of 1e-4 for the worst combination gave a direction of 0."""
    rows = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1e-4, 0.0]])
    torch.testing.assert_close(combine("CAGrad", rows), torch.tensor([0.5, 0.25, 0.0]), atol=1e-4, rtol=0.0)
    for length in (1e-5, 1e-6):
        rows[1, 1] = length
        torch.testing.assert_close(combine("CAGrad", rows), torch.tensor([0.5, 0.25, 0.0]), atol=1e-4, rtol=0.0)


@pytest.mark.parametrize("name", ["AlignedMTL", "IMTLG"])
def test_lengths_far_apart_in_float32(name: str) -> None:
    """In float32 the smaller row was taken for a rounding error of the larger: a direction up to 18 times too long."""
    for seed in range(5):
        rows = draw_rows(seed, tasks=3)
        rows[0] *= 1e2
        rows[2] *= 1e-2
        assert distance(combine(name, rows.float()), getattr(torchjd, name)()(rows)) < 1e-4


@pytest.mark.parametrize("length", [1e-3, 1e-5, 1e-8])
@pytest.mark.parametrize("name", ["FairGrad", "NashMTL"])
def test_short_gradients_are_balanced_like_long_ones(name: str, length: float) -> None:
    """The direction is that of the same gradients at length 1; torchjd's solvers stop at a cosine of about 0.65 with it."""
    rows = draw_rows(6, tasks=3)
    expected, found = combine(name, rows), combine(name, (rows * length).float()).double()
    assert float(torch.cosine_similarity(found, expected, dim=0)) == pytest.approx(1.0, abs=1e-6)
    if name == "FairGrad":
        weights = jacobian_balancer(name).aggregator.weights(rows @ rows.T * length**2)  # type: ignore[attr-defined]
        torch.testing.assert_close(rows @ rows.T * length**2 @ weights, weights**-0.5, rtol=1e-5, atol=0.0)


def test_config_of_a_large_network() -> None:
    """torchjd's pseudo-inverse in float32 drops singular values below its tolerance times the number of parameters: 0 from 8.4
    million on."""
    rows = torch.randn(2, 600_000, generator=torch.Generator().manual_seed(0))
    rows[1] = 0.9 * rows[0] + 0.1 * rows[1]
    wanted = [1.0, 1.1]
    found, exact = (combine("ConFIG", each, pref_vector=wanted) for each in (rows, rows.double()))
    assert distance(found, exact) < 1e-5
    cosines = rows.double() @ exact / rows.double().norm(dim=1) / exact.norm()
    assert cosines[1].item() == pytest.approx(1.1 * cosines[0].item(), rel=1e-9)
    assert distance(torchjd.ConFIG(torch.tensor(wanted))(rows), exact) > 0.1, "torchjd is right by now: say so above"
