"""The balancers that users name, against formulas written here in NumPy and SciPy from the papers; nothing of torchjd is used on this side.

Losses are linear in one shared parameter, so that the rows of a case are exactly the tasks' gradients; ``.grad`` is what is compared. Where a
library's convention decides (a sum or a mean, a scaling), the comment says which one holds here.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import optimize
from torch import nn

from graftwork.interfaces.balancer import BackwardContext, Balancer
from graftwork.methods.optimization.dwa import DynamicWeightAverage
from graftwork.methods.optimization.torchjd_bridge import jacobian_balancer
from graftwork.methods.optimization.uncertainty import UncertaintyWeighting

pytest.importorskip("torchjd")

Floats = NDArray[np.float64]
MODES = ["parameters", "representation"]


def draw(tasks: int, size: int, seed: int) -> Floats:
    return np.random.default_rng(seed).normal(size=(tasks, size))


def in_conflict(seed: int) -> Floats:
    """Four tasks, two of them against a third."""
    rows = draw(4, 7, seed)
    rows[1] -= 0.9 * rows[0]
    rows[3] -= 0.6 * rows[0]
    return rows


CASES: dict[str, Floats] = {
    "two tasks that agree": np.array([[2.0, 1.0, 0.0], [1.0, 1.5, 0.5]]),
    "two tasks in conflict": np.array([[1.0, 0.2, -0.4, 0.0], [-2.0, 0.5, 0.3, 1.0]]),
    "random": draw(3, 6, 0),
    "five random": draw(5, 9, 1),
    "four in conflict": in_conflict(2),
    "badly scaled": draw(3, 6, 3) * np.array([[0.01], [1.0], [100.0]]),
    "badly scaled in conflict": in_conflict(4) * np.array([[10.0], [0.1], [1.0], [0.02]]),
}
WITH_A_ZERO_ROW = np.vstack([draw(2, 5, 5), np.zeros((1, 5))])

cases = pytest.mark.parametrize("case", list(CASES))


def step(balancer: Balancer, rows: Floats, losses: Sequence[float] | None = None) -> Floats:
    """Return the direction; losses are 1 unless given, because a task with loss 0 and a zero row counts as one without labels."""
    shared = nn.Parameter(torch.zeros(rows.shape[1], dtype=torch.float64))
    representation = shared * 1.0
    values = [1.0] * len(rows) if losses is None else losses
    stacked = torch.stack([torch.from_numpy(row) @ representation + value for row, value in zip(rows, values, strict=True)])
    balancer.backward(stacked, BackwardContext([shared], [[] for _ in rows], representation, 0))
    assert shared.grad is not None
    return shared.grad.numpy().copy()


def supports(size: int) -> list[list[int]]:
    return [list(part) for length in range(size + 1) for part in itertools.combinations(range(size), length)]


# --- PCGrad: Yu et al. 2020, Algorithm 1: g_i - (g_i . g_j) / |g_j|^2 g_j for each g_j in conflict with what is left of g_i; the sum over i.


def pcgrad(rows: Floats, orders: Sequence[Sequence[int]]) -> Floats:
    total = np.zeros(rows.shape[1])
    for task, order in enumerate(orders):
        projected = rows[task].copy()
        for other in order:
            product = projected @ rows[other]
            if other != task and product < 0:
                projected -= product / (rows[other] @ rows[other]) * rows[other]
        total += projected
    return total


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("case", ["two tasks that agree", "two tasks in conflict"])
def test_pcgrad_of_two_tasks_has_no_order(case: str, mode: Any) -> None:
    found = step(jacobian_balancer("PCGrad", mode), CASES[case])
    np.testing.assert_allclose(found, pcgrad(CASES[case], [[0, 1], [1, 0]]), rtol=1e-10)


@pytest.mark.parametrize("seed", [0, 1])
@cases
def test_pcgrad_with_the_permutations_of_a_seed(case: str, seed: int) -> None:
    rows = CASES[case]
    torch.manual_seed(seed)
    orders = [torch.randperm(len(rows)).tolist() for _ in rows]
    torch.manual_seed(seed)
    np.testing.assert_allclose(step(jacobian_balancer("PCGrad"), rows), pcgrad(rows, orders), rtol=1e-7, atol=1e-12)


def test_pcgrad_passes_a_zero_row_over() -> None:
    found = step(jacobian_balancer("PCGrad"), WITH_A_ZERO_ROW)
    np.testing.assert_allclose(found, pcgrad(WITH_A_ZERO_ROW[:2], [[0, 1], [1, 0]]), rtol=1e-10)


# --- MGDA: Sener and Koltun 2018, equation 3: the shortest vector in the convex hull of the gradients.


def shortest_in_hull(rows: Floats) -> Floats:
    """Exact: the shortest point of the affine hull of every subset; the answer is the shortest one whose weights are not negative."""
    best = rows[0]
    for part in supports(len(rows))[1:]:
        base, edges = rows[part[0]], rows[part[1:]] - rows[part[0]]
        along = np.linalg.lstsq(edges.T, -base, rcond=None)[0]
        if (along >= 0).all() and along.sum() <= 1:
            point = base + along @ edges
            best = min(best, point, key=lambda vector: float(vector @ vector))
    return best


@cases
def test_mgda_converges_to_the_shortest_convex_combination(case: str) -> None:
    """torchjd's Frank-Wolfe with many steps and no early stop; rows of very different size leave it slow (0.4 % of the shortest row is left)."""
    expected = shortest_in_hull(CASES[case])
    found = step(jacobian_balancer("MGDA", epsilon=1e-12, max_iters=3000), CASES[case])
    allowed = 1e-2 if case == "badly scaled in conflict" else 1e-8
    np.testing.assert_allclose(found, expected, atol=allowed * np.linalg.norm(CASES[case], axis=1).min())


@pytest.mark.parametrize("mode", MODES)
@cases
def test_mgda_as_it_comes_is_near_the_shortest(case: str, mode: Any) -> None:
    """Defaults: 100 steps, stop at a step of 0.001. The squared length is then above the least one by up to 0.1 % of the shortest row's, and by
    18 % where rows in conflict are of very different size."""
    rows = CASES[case]
    found, expected = step(jacobian_balancer("MGDA", mode), rows), shortest_in_hull(rows)
    excess = found @ found - expected @ expected
    allowed = 0.25 if case == "badly scaled in conflict" else 1e-3
    assert -1e-12 <= excess / (rows * rows).sum(axis=1).min() < allowed


def test_mgda_stands_still_at_a_zero_row() -> None:
    assert not step(jacobian_balancer("MGDA"), WITH_A_ZERO_ROW).any()


# --- CAGrad: Liu et al. 2021, its primal problem: max over d of min_i g_i . d with |d - g_0| <= c |g_0|, g_0 the mean. No rescaling afterwards
# (the official code's mode 0: g_0 + c |g_0| g_w / |g_w|; its default would divide this by 1 + c^2).


def cagrad(rows: Floats, c: float) -> Floats:
    length = np.sqrt((rows * rows).sum())
    basis, coordinates = np.linalg.qr((rows / length).T)
    rows_in_basis = coordinates.T
    mean = rows_in_basis.mean(axis=0)
    radius = c * np.linalg.norm(mean)
    worst = len(mean)  # the last variable is the smallest inner product
    found = optimize.minimize(
        lambda z: -z[worst],
        np.append(mean, (rows_in_basis @ mean).min()),
        jac=lambda z: -np.eye(worst + 1)[worst],
        constraints=[
            {
                "type": "ineq",
                "fun": lambda z: rows_in_basis @ z[:worst] - z[worst],
                "jac": lambda z: np.c_[rows_in_basis, -np.ones(len(rows))],
            },
            {
                "type": "ineq",
                "fun": lambda z: radius**2 - np.sum((z[:worst] - mean) ** 2),
                "jac": lambda z: np.append(-2 * (z[:worst] - mean), 0.0),
            },
        ],
        method="SLSQP",
        options={"ftol": 1e-15, "maxiter": 1000},
    )
    return length * basis @ found.x[:worst]


@pytest.mark.parametrize("c", [0.2, 0.5, 0.9])
@cases
def test_cagrad_is_best_for_the_worst_task_in_its_ball(case: str, c: float) -> None:
    rows = CASES[case]
    found, expected = step(jacobian_balancer("CAGrad", c=c), rows), cagrad(rows, c)
    scale = np.linalg.norm(rows.mean(axis=0))
    np.testing.assert_allclose(found, expected, atol=1e-3 * scale)
    assert np.linalg.norm(found - rows.mean(axis=0)) == pytest.approx(c * scale, rel=1e-6)
    largest = np.linalg.norm(rows, axis=1).max() * scale
    assert (rows @ found).min() == pytest.approx((rows @ expected).min(), abs=1e-4 * largest)


def test_cagrad_goes_on_at_a_zero_row_and_leaves_a_task_without_labels_out() -> None:
    """A zero row makes the worst combination zero, which the paper's formula divides by (torchjd then stands still, the official code takes the
    mean). The paper's problem is none the less solved: the worst progress is 0 at the most, and reached."""
    found = step(jacobian_balancer("CAGrad"), WITH_A_ZERO_ROW)
    mean = WITH_A_ZERO_ROW.mean(axis=0)
    assert np.linalg.norm(found - mean) <= 0.5 * np.linalg.norm(mean) * (1 + 1e-6)
    assert (WITH_A_ZERO_ROW @ found >= 0.0).all()
    np.testing.assert_allclose(found, 2 / 3 * cagrad(WITH_A_ZERO_ROW[:2], 0.5), atol=1e-3)
    found = step(jacobian_balancer("CAGrad"), WITH_A_ZERO_ROW, losses=[1.0, 1.0, 0.0])
    np.testing.assert_allclose(found, cagrad(WITH_A_ZERO_ROW[:2], 0.5), atol=1e-3)


# --- UPGrad: Quinton and Rey 2024, the definition of the aggregator: the mean of the rows, each projected onto the dual cone {v: J v >= 0}.


def upgrad(rows: Floats, regularisation: float = 0.0) -> Floats:
    """Exact, by active sets: weights u + l with l >= 0, (G + r I)(u + l) >= 0 and one of each pair zero. G is divided by its trace."""
    gram = rows @ rows.T
    gram = gram / np.trace(gram) + regularisation * np.eye(len(rows))
    total = np.zeros(rows.shape[1])
    for start in np.eye(len(rows)) / len(rows):
        for part in supports(len(rows)):
            multipliers = np.zeros(len(rows))
            multipliers[part] = np.linalg.lstsq(gram[np.ix_(part, part)], -(gram @ start)[part], rcond=None)[0] if part else 0.0
            slack = gram @ (start + multipliers)
            if (multipliers >= -1e-12).all() and (slack >= -1e-14).all():
                total += (start + multipliers) @ rows
                break
        else:
            raise AssertionError("a projection exists always")
    return total


@pytest.mark.parametrize("mode", MODES)
@cases
def test_upgrad_without_regularisation_is_the_exact_projection(case: str, mode: Any) -> None:
    found, expected = step(jacobian_balancer("UPGrad", mode, reg_eps=0.0), CASES[case]), upgrad(CASES[case])
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9 * np.abs(expected).max())


@cases
def test_upgrad_as_it_comes_solves_the_regularised_problem(case: str) -> None:
    found, expected = step(jacobian_balancer("UPGrad"), CASES[case]), upgrad(CASES[case], 1e-4)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9 * np.abs(expected).max())


@pytest.mark.parametrize("case", [case for case in CASES if "badly" not in case])
def test_regularisation_moves_upgrad_little_where_rows_are_of_one_size(case: str) -> None:
    exact = upgrad(CASES[case])
    assert np.linalg.norm(step(jacobian_balancer("UPGrad"), CASES[case]) - exact) < 0.01 * np.linalg.norm(exact)


def test_regularisation_costs_the_small_row_its_protection() -> None:
    """Rows of very different size: a squared length below 1e-4 of the trace is hidden by the regularisation, and the small task's loss rises."""
    rows = np.array([[100.0, 0.0], [-0.1, 0.1]])
    assert (rows @ upgrad(rows) >= -1e-9).all()
    assert rows[1] @ step(jacobian_balancer("UPGrad"), rows) < -1.0
    assert rows[1] @ step(jacobian_balancer("UPGrad", reg_eps=0.0), rows) >= -1e-9


def test_upgrad_with_a_zero_row() -> None:
    np.testing.assert_allclose(
        step(jacobian_balancer("UPGrad", reg_eps=0.0), WITH_A_ZERO_ROW), upgrad(WITH_A_ZERO_ROW), rtol=1e-8
    )


# --- Nash-MTL: Navon et al. 2022, Claim 3.1: G a = 1 / a, elementwise, a > 0. The library works on G over its Frobenius norm, but its
# constraints hold for G itself, so that a has the paper's size; the direction is then shortened to `max_norm` (1 by default; 0 leaves it).


def nash(rows: Floats) -> Floats:
    """The least of the convex function a G a / 2 - sum(log a), whose gradient is G a - 1 / a; by Newton steps in log a, of rows of length 1."""
    lengths = np.linalg.norm(rows, axis=1)
    gram = (rows / lengths[:, None]) @ (rows / lengths[:, None]).T
    found = optimize.minimize(
        lambda x: 0.5 * np.exp(x) @ gram @ np.exp(x) - x.sum(),
        np.zeros(len(rows)),
        jac=lambda x: np.exp(x) * (gram @ np.exp(x)) - 1.0,
        hess=lambda x: np.outer(np.exp(x), np.exp(x)) * gram + np.diag(np.exp(x) * (gram @ np.exp(x))),
        method="trust-exact",
        options={"gtol": 1e-10},
    )
    weights = np.exp(found.x) / lengths
    np.testing.assert_allclose(weights * (rows @ rows.T @ weights), 1.0, rtol=1e-6)
    return weights


SOLVED_BY_TORCHJD = ["two tasks that agree", "two tasks in conflict", "four in conflict"]


@pytest.mark.parametrize(
    ("case", "solver"), [*((case, "newton") for case in CASES), *((case, "torchjd") for case in SOLVED_BY_TORCHJD)]
)
def test_nash_is_the_bargaining_solution(case: str, solver: str) -> None:
    """torchjd's solver starts at ones. Where their sum makes a task worse it finds no step, with rows of very different size it stops too soon."""
    rows = CASES[case]
    direction = nash(rows) @ rows
    length = float(np.linalg.norm(direction))
    assert length == pytest.approx(math.sqrt(len(rows)), rel=1e-6), "a G a = T"
    np.testing.assert_allclose(step(jacobian_balancer("NashMTL", solver=solver), rows), direction / length, atol=1e-6)
    whole = step(jacobian_balancer("NashMTL", max_norm=0.0, solver=solver), rows)
    np.testing.assert_allclose(whole, direction, atol=1e-6 * length)


@pytest.mark.parametrize("tasks", [2, 3, 5])
def test_nash_of_identical_gradients(tasks: int) -> None:
    """The Gram matrix has rank one; the solution is still unique: equal weights 1 / (sqrt(T) |g|).

    The library's stop test looks at the divided matrix, which ones solve: the direction is right, and so is its length as it comes (`max_norm`).
    """
    rows = np.tile(np.array([[0.3, -0.4, 1.2]]), (tasks, 1))
    np.testing.assert_allclose(nash(rows), 1 / (math.sqrt(tasks) * 1.3), rtol=1e-6)
    for solver in ("torchjd", "newton"):
        np.testing.assert_allclose(step(jacobian_balancer("NashMTL", solver=solver), rows), rows[0] / 1.3, rtol=1e-6)


# --- IMTL-G: Liu et al. 2021 (ICLR), the closed form: a_2..a_T = g_1 U^T (D U^T)^-1 with rows u_1 - u_i in U (unit gradients), g_1 - g_i in D, and
# a_1 = 1 - sum: the direction's projections onto all gradients are equal.


def imtl_g(rows: Floats) -> Floats:
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    differences, turns = rows[0] - rows[1:], units[0] - units[1:]
    others = np.linalg.solve((differences @ turns.T).T, turns @ rows[0])
    return np.append(1.0 - others.sum(), others) @ rows


@pytest.mark.parametrize("mode", MODES)
@cases
def test_imtl_g_in_closed_form(case: str, mode: Any) -> None:
    rows = CASES[case]
    found = step(jacobian_balancer("IMTL-G", mode), rows)
    np.testing.assert_allclose(found, imtl_g(rows), rtol=1e-5, atol=1e-7 * np.abs(found).max())
    projections = rows @ found / np.linalg.norm(rows, axis=1)
    np.testing.assert_allclose(projections, projections[0], rtol=1e-5, atol=1e-9 * np.abs(rows).max())


# --- Aligned-MTL: Senushkin et al. 2023, Algorithm 1: gradients G = U S V^T become s_min U V^T. Their mean here (torchjd); LibMTL takes the sum.


def aligned(rows: Floats, scale: Callable[[Floats], float] = np.min) -> Floats:
    values, vectors = np.linalg.eigh(rows.T @ rows)  # of the [P, P] side: the library decomposes the [T, T] one
    kept = values > 1e-12 * values.max()
    values, vectors = values[kept], vectors[:, kept]
    units = rows @ vectors / np.sqrt(values)  # U
    return math.sqrt(scale(values)) * (units @ vectors.T).mean(axis=0)


@pytest.mark.parametrize("mode", MODES)
@cases
def test_aligned_mtl_by_principal_components(case: str, mode: Any) -> None:
    found, expected = step(jacobian_balancer("AlignedMTL", mode), CASES[case]), aligned(CASES[case])
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6 * np.abs(expected).max())


def test_aligned_mtl_with_a_zero_row_and_with_the_mean_scale() -> None:
    found = step(jacobian_balancer("AlignedMTL"), WITH_A_ZERO_ROW)
    np.testing.assert_allclose(found, aligned(WITH_A_ZERO_ROW), rtol=1e-8)
    mean = step(jacobian_balancer("AlignedMTL", scale_mode="rmse"), CASES["random"])
    np.testing.assert_allclose(mean, aligned(CASES["random"], np.mean), rtol=1e-8)


# --- Dynamic weight average: Liu, Johns and Davison 2019, equation 7, temperature 2.


@pytest.mark.parametrize("case", ["random", "badly scaled"])
def test_dwa_by_its_formula(case: str) -> None:
    rows, balancer = CASES[case], DynamicWeightAverage(temperature=2.0)
    before, last = np.array([2.0, 0.5, 1.0]), np.array([1.0, 0.6, 1.0])
    np.testing.assert_allclose(step(balancer, rows), rows.sum(axis=0), rtol=1e-12)
    balancer.end_epoch(torch.from_numpy(before))
    np.testing.assert_allclose(step(balancer, rows), rows.sum(axis=0), rtol=1e-12)
    balancer.end_epoch(torch.from_numpy(last))
    powers = np.exp(last / before / 2.0)
    np.testing.assert_allclose(step(balancer, rows), (3.0 * powers / powers.sum()) @ rows, rtol=1e-10)
    balancer.end_epoch(torch.from_numpy(before))  # the window moves on: now the ratio is the other way round
    powers = np.exp(before / last / 2.0)
    np.testing.assert_allclose(step(balancer, rows), (3.0 * powers / powers.sum()) @ rows, rtol=1e-10)


# --- Uncertainty weighting: Kendall, Gal and Cipolla 2018, equations 7 (regression) and 10 (classification), s = log sigma^2.


@pytest.mark.parametrize("start", [-1.5, 0.0, 0.7])
def test_uncertainty_weighting_by_its_formula(start: float) -> None:
    rows, losses = CASES["badly scaled"], np.array([2.0, 0.25, 40.0])
    balancer = UncertaintyWeighting(["regression", "classification", "regression"], initial_log_variance=start)
    balancer.log_variance.data = balancer.log_variance.data.double()
    factors = np.array([0.5, 1.0, 0.5])

    def objective(log_variance: Floats) -> float:
        sigma = np.exp(log_variance / 2)
        return float((factors * losses / sigma**2 + np.log(sigma)).sum())

    scalar, weights = balancer.scalarize(torch.from_numpy(losses))
    place = np.full(3, float(np.float32(start)))
    assert scalar.item() == pytest.approx(objective(place), rel=1e-12)
    np.testing.assert_allclose(weights.detach().numpy(), factors / np.exp(place), rtol=1e-12)
    found = step(balancer, rows, losses.tolist())
    np.testing.assert_allclose(found, (factors * np.exp(-place)) @ rows, rtol=1e-12)
    assert balancer.log_variance.grad is not None
    slopes = balancer.log_variance.grad[:3].numpy()
    np.testing.assert_allclose(slopes, 0.5 - factors * np.exp(-place) * losses, rtol=1e-12)
    np.testing.assert_allclose(slopes, optimize.approx_fprime(place, objective, 1e-7), rtol=1e-4, atol=1e-4)
