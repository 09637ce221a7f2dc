"""Which cliffs a page holds: those that come first in an order by chance, as many as fit."""

from __future__ import annotations

import heapq
from hashlib import sha256


class BoundedSample:
    """Texts within a budget of bytes. Each cliff has a place in an order that depends on its id alone; the sample is
    the beginning of that order, whatever the order of arrival, and never more than the budget lies in memory. A text
    that is larger than the budget is left out.

    Args:
        budget: bytes of UTF-8.
    """

    def __init__(self, budget: int) -> None:
        self.budget, self.used, self.seen = budget, 0, 0
        # Last of the order first: (negative place, number of arrival, text).
        self._heap: list[tuple[int, int, str]] = []
        self._limit: int | None = None

    def add(self, uid: str, text: str) -> None:
        """One cliff."""
        self.seen += 1
        size = len(text.encode())
        if size > self.budget:
            return
        place = int.from_bytes(sha256(uid.encode()).digest()[:8], "big")
        if self._limit is not None and place >= self._limit:
            return
        heapq.heappush(self._heap, (-place, self.seen, text))
        self.used += size
        while self.used > self.budget:
            last, _, dropped = heapq.heappop(self._heap)
            self.used -= len(dropped.encode())
            self._limit = -last

    def texts(self) -> list[str]:
        """What is in the sample, in the order of arrival."""
        return [text for _, _, text in sorted(self._heap, key=lambda item: item[1])]
