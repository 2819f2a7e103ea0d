"""Newton's method finds known minima, inside and at bounds, and fails without one."""

import numpy as np
import pytest

from hearback.engine.evaluation.newton import Hessian, minimise, scaled_gram


def bowl(matrix: np.ndarray, centre: np.ndarray, lower_bound: float | None = None) -> np.ndarray:
    """Minimise ½ (x - centre)ᵀ matrix (x - centre)."""

    def function(point: np.ndarray) -> tuple[float, np.ndarray, Hessian]:
        off = point - centre
        return float(off @ matrix @ off) / 2, matrix @ off, lambda: matrix

    return minimise(function, np.full(len(centre), 5.0), lower_bound)


@pytest.mark.parametrize("seed", range(5))
def test_a_minimum_without_bounds_is_the_centre(seed: int) -> None:
    rng = np.random.default_rng(seed)
    root, centre = rng.normal(size=(9, 4)), rng.normal(size=4)
    np.testing.assert_allclose(bowl(root.T @ root, centre), centre, atol=1e-6)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("lower_bound", [0.0, -0.5])
def test_a_bounded_variable_is_exactly_at_its_bound_with_a_gradient_that_points_out(
    seed: int, lower_bound: float
) -> None:
    rng = np.random.default_rng(seed)
    root, centre = rng.normal(size=(9, 6)), rng.normal(lower_bound, 1, size=6)
    matrix = root.T @ root
    point = bowl(matrix, centre, lower_bound)
    gradient = matrix @ (point - centre)
    at_bound = point == lower_bound
    assert 0 < at_bound.sum() < 6
    assert (point >= lower_bound).all()
    assert (gradient[at_bound] >= -1e-7).all()
    np.testing.assert_allclose(gradient[~at_bound], 0, atol=1e-7)


@pytest.mark.parametrize("lower_bound", [None, 0.0])
def test_flat_directions_are_allowed(lower_bound: float | None) -> None:
    matrix = np.ones((3, 3))
    assert bowl(matrix, np.array([1.0, 0.0, 1.0]), lower_bound).sum() == pytest.approx(2, abs=1e-6)
    flat = bowl(np.zeros((2, 2)), np.ones(2), lower_bound)
    np.testing.assert_array_equal(flat, [5, 5])


def softplus(point: np.ndarray) -> tuple[float, np.ndarray, Hessian]:
    """Return log(2 cosh(x)), on which full Newton steps from afar diverge."""
    slope = np.tanh(point)
    return float(np.logaddexp(point, -point).sum()), slope, lambda: np.diag(1 - slope**2)


def test_long_steps_are_shortened() -> None:
    np.testing.assert_allclose(minimise(softplus, np.array([3.0, -2.0])), 0, atol=1e-7)
    np.testing.assert_array_equal(minimise(softplus, np.array([3.0, 2.0]), 1.0), [1, 1])


def test_a_function_without_a_minimum_is_an_error() -> None:
    def falling(point: np.ndarray) -> tuple[float, np.ndarray, Hessian]:
        return float(-point.sum()), -np.ones(2), lambda: np.eye(2)

    with pytest.raises(ArithmeticError, match="no minimum"):
        minimise(falling, np.zeros(2))


@pytest.mark.parametrize("n_rows", [1, 8191, 8192, 20000])
def test_the_scaled_gram_matrix(n_rows: int) -> None:
    rng = np.random.default_rng(0)
    features, scale = rng.normal(size=(3, n_rows)), rng.normal(size=n_rows)
    expected = (features * scale) @ (features * scale).T
    np.testing.assert_allclose(scaled_gram(features, scale), expected, rtol=1e-10, atol=1e-9)
