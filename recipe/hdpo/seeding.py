"""Sampling seeds that depend on what is sampled, never on the order in which requests arrive."""

from __future__ import annotations

from hashlib import sha256


def rollout_seed(seed: int, step: int, prompt_id: str, session: int) -> int:
    """Seed of one rollout: 62 bits of SHA-256 over (seed, step, problem, rollout number)."""
    return int(sha256(f"{seed}/{step}/{prompt_id}/{session}".encode()).hexdigest(), 16) % 2**62
