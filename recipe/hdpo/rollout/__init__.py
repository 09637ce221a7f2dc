"""Rollouts: verl's agent-loop worker, which re-issues a cliff with its privileged prompt. Imports verl and Ray."""
