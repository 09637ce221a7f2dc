"""Training metrics as verl's ``file`` logger writes them: lines ``{"step": int, "data": {metric: value}}``.

verl writes them where ``VERL_FILE_LOGGER_PATH`` says, else to
``$VERL_FILE_LOGGER_ROOT/<project>/<experiment>.jsonl``.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from pathlib import Path

import numpy as np


def read_training_log(path: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Series of every metric.

    Several lines of one step are merged; a later value replaces an earlier one (a resumed run repeats steps).
    Values that are not finite numbers leave a gap.

    Returns:
        metric -> (steps, values), both shape (number of steps with a value,), by ascending step.

    Raises:
        ValueError: no such file, no line in it, or a line that is cut off or of another form.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such file. Pass the file that verl's file logger wrote (trainer.logger=[file]).")
    series: dict[str, dict[int, float]] = defaultdict(dict)
    lines = path.read_bytes().splitlines()
    if not lines:
        raise ValueError(f"{path}: empty. Pass the metrics file of a run that has logged at least one step.")
    for number, line in enumerate(lines, 1):
        try:
            entry = json.loads(line)
            step, data = int(entry["step"]), dict(entry["data"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path}, line {number} of {len(lines)}: cut off, or not a line of verl's file logger "
                f"({error!r}). "
                "Remove the line if the run was killed while writing it."
            ) from error
        for metric, value in data.items():
            if isinstance(value, int | float) and math.isfinite(value):
                series[metric][step] = float(value)
    return {
        metric: (np.array(sorted(points)), np.array([points[step] for step in sorted(points)]))
        for metric, points in series.items()
    }
