"""Where randomness comes from. A solver draws only from the `Noise` that it receives.

Four sources share one interface:

- `BatchNoise`: one generator for the whole batch (``seed=``, ``generator=``, or torch's global one);
- `SampleNoise`: one stream per sample (``seeds=``), so that sample i depends on seed i alone;
- `CallableNoise`: a function ``(k, like) -> tensor`` that gives the k-th draw, to probe or replay a solve;
- `BrownianPath`: a path that gives the same increments whatever the grid (``noise=BrownianPath(...)``).

Adaptive methods of the SDE draw from a path, so that a rejected step does not bias the noise: `path_on` makes one, a
`FollowedPath`, of the first two.
"""

from .brownian import BrownianPath
from .followed import FollowedPath, path_on
from .sources import BatchNoise, CallableNoise, Noise, SampleNoise, Seed, check_seed, resolve

__all__ = [
    "BatchNoise",
    "BrownianPath",
    "CallableNoise",
    "FollowedPath",
    "Noise",
    "SampleNoise",
    "Seed",
    "check_seed",
    "path_on",
    "resolve",
]
