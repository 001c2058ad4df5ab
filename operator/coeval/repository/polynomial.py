"""Irreducible polynomials over GF(2). restic's chunker wants one in every config."""

from __future__ import annotations

import secrets

DEGREE = 53


def random_irreducible() -> int:
    """Choose a random irreducible polynomial of degree 53, bits as coefficients."""
    while True:
        candidate = secrets.randbits(DEGREE + 1) | 1 << DEGREE | 1
        if is_irreducible(candidate):
            return candidate


def is_irreducible(f: int) -> bool:
    """Tell whether f has no factor, by Ben-Or: gcd(x^(2^i) - x, f) = 1 for every i up to half the degree."""
    power = 2
    for _ in range((f.bit_length() - 1) // 2):
        power = _mod(_square(power), f)
        if _gcd(f, power ^ 2) != 1:
            return False
    return True


def _square(a: int) -> int:
    # Squaring over GF(2) spreads the bits: no cross terms remain.
    return int("0".join(bin(a)[2:]), 2)


def _mod(a: int, f: int) -> int:
    degree = f.bit_length()
    while a.bit_length() >= degree:
        a ^= f << (a.bit_length() - degree)
    return a


def _gcd(a: int, b: int) -> int:
    while b:
        a, b = b, _mod(a, b)
    return a
