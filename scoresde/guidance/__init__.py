r"""Guidance: score functions made from score functions, for any solver.

By Bayes' rule :math:`\nabla\log p(x_t|y) = \nabla\log p(x_t) + \nabla\log p(y|x_t)`, so a conditional distribution
needs nothing but another score. Every function here takes score functions and returns one: they compose, no solver
depends on them, and solvers that use estimates receive estimates, with :math:`x = \alpha\hat x +
\sigma\hat\varepsilon`.

======================== ===========================================================================
`classifier_guidance`    :math:`s + w\,\nabla\log p(y|x_t)`; `NoisyClassifier` is one for all processes
`classifier_free`        :math:`u + w(c - u)`: w = 1 is the conditional c, 0 the unconditional u
`autoguidance`           the same, with a weaker network in place of u
`likelihood_guidance`    :math:`s + w\,\nabla_{x_t}\log p(y|\hat x(x_t))`
`conditional`            a score function with its labels bound
`product`                :math:`b + \sum_i w_i(s_i - b)`: all of several concepts
`negation`               :math:`b + w(b - s)`: the absence of a concept
`mixture`                :math:`\sum_i r_i s_i`: one of several; needs densities
`temperature`            a distribution made narrower or wider
`tall`                   the posterior of many observations, from those of single ones
======================== ===========================================================================

With :math:`w \neq 1` the guided score at time t is that of the tilted distribution :math:`p_t(x)\,p(y|x_t)^w`, but
these distributions are not diffusions of the one at t = 0: neither the probability flow nor the reverse SDE of the
guided score ends in :math:`p_0(x)\,p(y|x)^w`, and the two end differently. Langevin moves, which use one level only,
do, and so do the particles of `scoresde.sample_tilted`.
"""

from .classifier import classifier_guidance
from .combination import autoguidance, classifier_free, negation, product
from .conditional import conditional
from .likelihood import likelihood_guidance
from .mixture import mixture
from .noisy import NoisyClassifier
from .tall import tall
from .temperature import temperature

__all__ = [
    "NoisyClassifier",
    "autoguidance",
    "classifier_free",
    "classifier_guidance",
    "conditional",
    "likelihood_guidance",
    "mixture",
    "negation",
    "product",
    "tall",
    "temperature",
]
