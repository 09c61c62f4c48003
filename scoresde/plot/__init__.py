"""Pictures of samples, and figures of solves, errors, likelihoods and posteriors.

Every figure is drawn in the Matplotlib axes that are given as ``ax``, or in new ones, without Matplotlib's global
state, and the axes are returned: ``ax.figure`` is the whole, ``ax.figure.savefig("a.pdf")`` writes it in any format.
The colours are those of Okabe and Ito, which colour-blind people can distinguish; lines also differ by their dashes and
points by their shapes, so that they stay apart in print. Matplotlib, and corner for `corner`, come with ``pip install
'scoresde[plot]'``; `image_grid` and `image_animation` need neither.
"""

from ._figures import COLOURS, DENSITY
from .images import image_animation, image_grid, image_table, mean_and_spread
from .measures import bits_histogram, divergence_profile, work_precision
from .posteriors import corner
from .solves import density_evolution, grid_nodes, point_animation, step_sizes, trajectories
from .trust import cause_bars, error_curves

__all__ = [
    "COLOURS",
    "DENSITY",
    "bits_histogram",
    "cause_bars",
    "corner",
    "density_evolution",
    "divergence_profile",
    "error_curves",
    "grid_nodes",
    "image_animation",
    "image_grid",
    "image_table",
    "mean_and_spread",
    "point_animation",
    "step_sizes",
    "trajectories",
    "work_precision",
]
