"""A reward for a random model: one response in six is "correct", by its checksum."""

import zlib


def compute_score(data_source, solution_str, ground_truth, extra_info=None, **_):
    """1.0 for every sixth checksum."""
    return float(zlib.crc32(solution_str.encode()) % 6 == 0)
