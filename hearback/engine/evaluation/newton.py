"""Newton's method for smooth convex functions of a few variables, which may have a lower bound.

What an ensemble fits has tens of variables and tens of thousands of rows: a Hessian costs little
more than a gradient, and a handful of steps reach machine precision. Each step minimises the
function's quadratic model over the allowed points, a non-negative least squares problem (Lawson &
Hanson 1974, chapter 23), so that a variable at its bound is there exactly. Kim, Carbonetto,
Stephens & Anitescu (2020, "A Fast Algorithm for Maximum Likelihood Estimation of Mixture
Proportions Using Sequential Quadratic Programming", arXiv 1806.01412) do so for mixtures.
"""

from collections.abc import Callable

import numpy as np
from scipy.linalg import cholesky, solve_triangular
from scipy.optimize import nnls

MAX_STEPS = 200
MAX_HALVINGS = 60
TOLERANCE = 1e-8  # of the gradient, where the bounds allow a step along it
_ARMIJO = 1e-4
_RIDGE = 1e-12  # of the Hessian's mean diagonal: models that are copies make it singular
_ROUNDING = 1e-14  # how much two values of about one that should be equal may differ
_BLOCK = 8192  # rows at a time: their products stay in the processor's cache

Hessian = Callable[[], np.ndarray]
Convex = Callable[[np.ndarray], tuple[float, np.ndarray, Hessian]]


def minimise(function: Convex, start: np.ndarray, at_least: float | None = None) -> np.ndarray:
    """Return the point, (variables,), where a convex `function` is least.

    `function` maps a point to its value, its gradient, (variables,), and a function that returns
    its Hessian there, (variables, variables), called where a step is needed. No variable goes below
    `at_least`, and `start` is not below it either. Raises ArithmeticError where it finds none.
    """
    point = start
    value, gradient, hessian = function(point)
    for _ in range(MAX_STEPS):
        if _far(point, gradient, at_least) < TOLERANCE:
            return point
        step = _newton_step(point, gradient, hessian(), at_least)
        slope = float(gradient @ step)
        for halvings in range(MAX_HALVINGS):
            share = 0.5**halvings
            candidate = point + share * step
            if at_least is not None:  # rounding must not lead below it
                candidate = np.maximum(candidate, at_least)
            new = function(candidate)
            if new[0] <= value + _ARMIJO * share * slope + _ROUNDING:
                break
        else:
            break
        point, (value, gradient, hessian) = candidate, new
    raise ArithmeticError(f"no minimum found: the gradient is {gradient} at {point}")


def scaled_gram(features: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Return the products of the features, (features, rows), their rows scaled by `scale`, (rows,).

    That is the sum over rows of scale² f fᵀ, (features, features): most of a Hessian of ours.
    """
    n_features, n_rows = features.shape
    products = np.zeros((n_features, n_features))
    buffer = np.empty((n_features, min(_BLOCK, n_rows)))
    for start in range(0, n_rows, _BLOCK):
        block = features[:, start : start + _BLOCK]
        scaled = buffer[:, : block.shape[1]]
        np.multiply(block, scale[start : start + _BLOCK], out=scaled)
        products += scaled @ scaled.T
    return products


def _far(point: np.ndarray, gradient: np.ndarray, at_least: float | None) -> float:
    """Return the largest slope along which a variable may go down."""
    if at_least is None:
        return float(np.abs(gradient).max())
    # At the bound a positive slope leads nowhere.
    return float(np.abs(np.where(point > at_least, gradient, np.minimum(gradient, 0))).max())


def _newton_step(
    point: np.ndarray, gradient: np.ndarray, hessian: np.ndarray, at_least: float | None
) -> np.ndarray:
    """Return the step to the least value of the quadratic model, the bound kept."""
    ridge = _RIDGE * np.trace(hessian) / len(point) + np.finfo(float).tiny
    root = cholesky(hessian + ridge * np.eye(len(point)), check_finite=False)  # upper
    if at_least is None:
        half = solve_triangular(root, -gradient, trans="T", check_finite=False)
        return solve_triangular(root, half, check_finite=False)
    # With y = point + step - at_least, the model is ½ |root y - target|² and a constant.
    room = point - at_least
    target = root @ room - solve_triangular(root, gradient, trans="T", check_finite=False)
    return nnls(root, target)[0] - room
