r"""Tools to measure solvers, for those who write one.

- `estimate_order`, `weak_order`, `strong_order`: the orders of a solver on problems with exact answers, and
  `work_precision`: its error for a number of evaluations.
- `check_solver`: the contract that every method of this package keeps, for a solver of your own.
- `check_score_fn`: what solvers rely on in a score function.
- The building blocks: exact flow maps (`mixture_flow_map`), exact distributions of a scheme on Gaussian data
  (`probe`, `affine_law`), distances on one Brownian path (`strong_error`), expectations on mixtures (`expectations`),
  orders of convergence (`converge`, `order`).
"""

from .contract import CHECKS, check_score_fn, check_solver
from .exact import (
    AREA_WEIGHTS,
    AffineMap,
    Convergence,
    Draw,
    Run,
    Weight,
    affine_law,
    coarsen,
    converge,
    gaussian_state,
    mixture_flow_map,
    order,
    probe,
    slopes,
    strong_error,
)
from .kolmogorov import OBSERVABLES, expectations, expectations_of_law
from .measure import estimate_order, strong_order, weak_order, work_precision
from .run import end_of

__all__ = [
    "AREA_WEIGHTS",
    "CHECKS",
    "OBSERVABLES",
    "AffineMap",
    "Convergence",
    "Draw",
    "Run",
    "Weight",
    "affine_law",
    "check_score_fn",
    "check_solver",
    "coarsen",
    "converge",
    "end_of",
    "estimate_order",
    "expectations",
    "expectations_of_law",
    "gaussian_state",
    "mixture_flow_map",
    "order",
    "probe",
    "slopes",
    "strong_error",
    "strong_order",
    "weak_order",
    "work_precision",
]
