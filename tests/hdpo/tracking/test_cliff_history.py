"""Which prompts were cliffs, over steps and checkpoints."""

import json
import math
import random

from recipe.hdpo.algorithm.cliff import GroupRecord
from recipe.hdpo.tracking.cliff_history import CliffHistory


def test_a_cliff_counts_as_solved_once_when_it_is_solved_later() -> None:
    history = CliffHistory()
    cliff = GroupRecord("a", cliff=True, solved=False)
    solved = GroupRecord("a", cliff=False, solved=True)
    lost = GroupRecord("a", cliff=False, solved=False, lost_rollouts=1)
    flows = [history.update([r]) for r in (cliff, lost, solved, solved)]
    assert flows == [(0, 0), (0, 0), (1, 0), (0, 0)]
    assert (history.open_cliffs, history.ever_cliffs, history.solved) == (set(), {"a"}, {"a"})


def test_a_solved_prompt_counts_once_when_it_is_a_cliff_later() -> None:
    history = CliffHistory()
    cliff = GroupRecord("a", cliff=True, solved=False)
    solved = GroupRecord("a", cliff=False, solved=True)
    lost = GroupRecord("a", cliff=False, solved=False, lost_rollouts=1)
    flows = [history.update([r]) for r in (solved, lost, cliff, cliff, solved)]
    assert flows == [(0, 0), (0, 0), (0, 1), (0, 0), (1, 0)]


def test_a_model_that_learns_nothing_has_both_flows_about_equally_often() -> None:
    rng, history = random.Random(0), CliffHistory()
    chances = [rng.betavariate(0.3, 2) for _ in range(4000)]
    flows = []
    for _ in range(3):
        failed = [all(rng.random() >= p for _ in range(8)) for p in chances]
        flows.append(history.update(GroupRecord(str(i), f, not f) for i, f in enumerate(failed)))
    assert flows[0] == (0, 0)
    for solved_now, new_cliffs in flows[1:]:
        assert solved_now > 200 and abs(solved_now - new_cliffs) < 4 * math.sqrt(solved_now + new_cliffs)


def test_history_of_a_checkpoint_without_solved_prompts_is_read() -> None:
    assert CliffHistory.from_state_dict({"open_cliffs": ["a"], "ever_cliffs": ["a", "b"]}).solved == set()


def test_history_survives_a_checkpoint() -> None:
    history = CliffHistory()
    history.update([GroupRecord(p, cliff, not cliff) for p, cliff in (("a", True), ("b", False), ("c", True))])
    history.update([GroupRecord("c", cliff=False, solved=True)])
    state = json.loads(json.dumps(history.state_dict()))
    assert CliffHistory.from_state_dict(state) == history
