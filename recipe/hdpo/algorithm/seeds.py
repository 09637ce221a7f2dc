"""Sampling seeds that depend on what is sampled, never on the order in which requests arrive."""

from __future__ import annotations

from hashlib import sha256


def derived_seed(*parts: object) -> int:
    """62 bits of SHA-256 over the parts, such as (seed, step, problem, rollout number)."""
    return int(sha256("/".join(map(str, parts)).encode()).hexdigest(), 16) % 2**62
