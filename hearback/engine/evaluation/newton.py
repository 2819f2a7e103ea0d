"""Newton's method for smooth convex functions of a few variables, with an optional lower bound.

An ensemble's fits have tens of variables and tens of thousands of rows: a Hessian costs little more
than a gradient, and a few steps reach machine precision. Each step minimises the quadratic model
within the bound, a non-negative least squares problem (Lawson & Hanson 1974, chapter 23), so that a
bounded variable reaches its bound exactly. Kim, Carbonetto, Stephens & Anitescu (2020, "A Fast
Algorithm for Maximum Likelihood Estimation of Mixture Proportions Using Sequential Quadratic
Programming", arXiv 1806.01412) do the same for mixtures.
"""

from collections.abc import Callable

import numpy as np
import scipy  # imports its parts as they are used

MAX_STEPS = 200
MAX_HALVINGS = 60
TOLERANCE = 1e-8  # on the projected gradient
_ARMIJO = 1e-4
_RIDGE = 1e-12  # relative to the Hessian's mean diagonal: identical models make it singular
_ROUNDING = 1e-14  # rounding error allowed between values near one
_BLOCK = 8192  # rows per block, so that products stay in the processor's cache

Hessian = Callable[[], np.ndarray]
Convex = Callable[[np.ndarray], tuple[float, np.ndarray, Hessian]]


def minimise(function: Convex, start: np.ndarray, lower_bound: float | None = None) -> np.ndarray:
    """Return the minimiser, (variables,), of a convex `function`.

    `function` maps a point to its value, its gradient, (variables,), and a function that returns
    the Hessian, (variables, variables), which is called only when a step is taken. All variables
    stay at or above `lower_bound`; `start` must do so too. Raises ArithmeticError if the search
    does not converge.
    """
    point = start
    value, gradient, hessian = function(point)
    for _ in range(MAX_STEPS):
        if _projected_gradient_norm(point, gradient, lower_bound) < TOLERANCE:
            return point
        step = _newton_step(point, gradient, hessian(), lower_bound)
        slope = float(gradient @ step)
        for halvings in range(MAX_HALVINGS):
            share = 0.5**halvings
            candidate = point + share * step
            if lower_bound is not None:  # undo rounding below the bound
                candidate = np.maximum(candidate, lower_bound)
            new = function(candidate)
            if new[0] <= value + _ARMIJO * share * slope + _ROUNDING:
                break
        else:
            break
        point, (value, gradient, hessian) = candidate, new
    raise ArithmeticError(f"no minimum found: the gradient is {gradient} at {point}")


def scaled_gram(features: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Return the sum over rows of scale² f fᵀ, (features, features).

    `features` is (features, rows), `scale` (rows,). This is the costly part of the Hessians.
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


def _projected_gradient_norm(
    point: np.ndarray, gradient: np.ndarray, lower_bound: float | None
) -> float:
    """Return the largest gradient entry (absolute), without those that point out of the bound."""
    if lower_bound is None:
        return float(np.abs(gradient).max())
    projected = np.where(point > lower_bound, gradient, np.minimum(gradient, 0))
    return float(np.abs(projected).max())


def _newton_step(
    point: np.ndarray, gradient: np.ndarray, hessian: np.ndarray, lower_bound: float | None
) -> np.ndarray:
    """Return the step to the minimum of the quadratic model within the bound, (variables,)."""
    ridge = _RIDGE * np.trace(hessian) / len(point) + np.finfo(float).tiny
    root = scipy.linalg.cholesky(hessian + ridge * np.eye(len(point)), check_finite=False)  # upper
    if lower_bound is None:
        half = scipy.linalg.solve_triangular(root, -gradient, trans="T", check_finite=False)
        return scipy.linalg.solve_triangular(root, half, check_finite=False)
    # With y = point + step - lower_bound, the model is ½ |root y - target|² plus a constant.
    room = point - lower_bound
    target = root @ room - scipy.linalg.solve_triangular(
        root, gradient, trans="T", check_finite=False
    )
    return scipy.optimize.nnls(root, target)[0] - room
