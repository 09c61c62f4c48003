"""Schedules in fifty decimal digits, written from their definitions with Python's `decimal` alone."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal, localcontext

DIGITS = 60


def _arctan_inverse(n: int) -> Decimal:
    """arctan(1/n) by its series."""
    power = total = Decimal(1) / n
    k, sign = 1, 1
    while power > Decimal(10) ** -(DIGITS + 5):
        power /= n * n
        k, sign = k + 2, -sign
        total += sign * power / k
    return total


def _pi() -> Decimal:
    return 4 * (4 * _arctan_inverse(5) - _arctan_inverse(239))


def _cos(x: Decimal) -> Decimal:
    term = total = Decimal(1)
    k = 0
    while abs(term) > Decimal(10) ** -(DIGITS + 5):
        k += 2
        term *= -x * x / (k * (k - 1))
        total += term
    return total


def _linear_beta(t: Decimal, beta_min: float, beta_max: float) -> Decimal:
    low, high = Decimal(beta_min), Decimal(beta_max)
    return low * t + (high - low) * t * t / 2


def ve(t: Decimal, sigma_min: float, sigma_max: float) -> tuple[Decimal, Decimal]:
    low, high = Decimal(sigma_min), Decimal(sigma_max)
    return Decimal(1), low * ((high / low).ln() * t).exp()


def vp(t: Decimal, beta_min: float, beta_max: float) -> tuple[Decimal, Decimal]:
    b = _linear_beta(t, beta_min, beta_max)
    return (-b / 2).exp(), (1 - (-b).exp()).sqrt()


def sub_vp(t: Decimal, beta_min: float, beta_max: float) -> tuple[Decimal, Decimal]:
    b = _linear_beta(t, beta_min, beta_max)
    return (-b / 2).exp(), 1 - (-b).exp()


def cosine(t: Decimal, s: float) -> tuple[Decimal, Decimal]:
    offset, half_pi = Decimal(s), _pi() / 2
    alpha = _cos((t + offset) / (1 + offset) * half_pi) / _cos(offset / (1 + offset) * half_pi)
    return alpha, (1 - alpha * alpha).sqrt()


def sigmoid(t: Decimal, start: float, end: float, tau: float) -> tuple[Decimal, Decimal]:
    def logistic(u: Decimal) -> Decimal:
        return 1 / (1 + (-u / Decimal(tau)).exp())

    low, high = Decimal(start), Decimal(end)
    with localcontext() as context:  # far from 0 the logistic function differs from 0 or 1 by exp(-|u| / tau) only
        context.prec += int(max(abs(start), abs(end)) / tau)
        first, now, last = logistic(low), logistic(low + (high - low) * t), logistic(high)
        return ((last - now) / (last - first)).sqrt(), ((now - first) / (last - first)).sqrt()


def vdm(t: Decimal, gamma_min: float, gamma_max: float) -> tuple[Decimal, Decimal]:
    low, high = Decimal(gamma_min), Decimal(gamma_max)
    gamma = low + (high - low) * t
    return (1 / (1 + gamma.exp())).sqrt(), (1 / (1 + (-gamma).exp())).sqrt()


def edm(t: Decimal) -> tuple[Decimal, Decimal]:
    return Decimal(1), t


def flow(t: Decimal) -> tuple[Decimal, Decimal]:
    return 1 - t, t


def relative_errors(
    alpha: float, sigma: float, schedule: Callable[..., tuple[Decimal, Decimal]], t: float, *parameters: float
) -> tuple[float, float]:
    """How far two floats are from the schedule at the float t."""
    with localcontext() as context:
        context.prec = DIGITS
        exact = schedule(Decimal(t), *parameters)
        a, s = (float(abs(Decimal(got) - want) / want) for got, want in zip((alpha, sigma), exact, strict=True))
    return a, s
