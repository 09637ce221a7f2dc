"""The worker processes are real here; `work_*` replace the comparison and are imported by the worker by name."""

import multiprocessing
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from recipe.hdpo import math_process
from recipe.hdpo.math_process import Unscored, is_equal


def work_exit(answer, truth, in_text):
    os._exit(3)


def work_pid(answer, truth, in_text):
    return os.getpid()


def work_hang(answer, truth, in_text):
    while True:
        pass


def work_allocate(answer, truth, in_text):
    return len(bytearray(math_process.MEMORY_LIMIT_BYTES + 1))


@pytest.fixture(scope="module", autouse=True)
def stop_the_workers_at_the_end():
    yield
    math_process.stop()


@pytest.mark.parametrize(
    ("answer", "truth", "equal"),
    [
        (r"\frac{1}{2}", "0.5", True),
        (r"x+1", r"1+x", True),
        ("2", r"\sqrt{4}", True),
        (r"\frac{1}{3}", r"0.5", False),
        ("no number here", "18", False),
        ("18", "", False),
    ],
)
def test_answers_are_equal_as_mathematics(answer, truth, equal):
    assert is_equal(answer, truth) is equal


@pytest.mark.parametrize(
    ("text", "truth", "found"),
    [("the answer is $18$", "18", True), ("no number here", "18", False), ("it is 10^{-19}", "10^{-20}", False)],
)
def test_in_free_text_the_last_formula_or_number_is_the_answer(text, truth, found):
    assert is_equal(text, truth, in_text=True) is found


def test_a_ground_truth_that_cannot_be_read_is_unscored():
    with pytest.raises(Unscored, match=r"ground truth '\\\\frac\{1' can't be read"):
        is_equal(r"\frac{1}{2}", r"\frac{1")


def test_a_comparison_over_the_time_limit_is_unscored_and_the_next_one_works(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(math_process, "TIME_LIMIT_S", 0.5)
        patch.setattr(math_process, "_compare", work_hang)
        with pytest.raises(Unscored, match="time limit"):
            is_equal("a", "b")
    assert is_equal(r"\sqrt{12}", r"2\sqrt{3}")


def test_a_power_that_no_machine_can_hold_is_given_up(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(math_process, "TIME_LIMIT_S", 1.0)
        try:
            assert is_equal("9^{9^{9^{9}}}", r"18\pi") is False
        except Unscored as reason:
            assert "limit" in str(reason)
    assert is_equal(r"\sqrt{12}", r"2\sqrt{3}")


def test_a_worker_that_dies_is_unscored_and_the_next_comparison_gets_another(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(math_process, "_compare", work_exit)
        with pytest.raises(Unscored, match="exit code 3"):
            is_equal("a", "b")
    assert is_equal(r"\sqrt{12}", r"2\sqrt{3}")


def test_an_allocation_over_the_memory_limit_fails_and_the_next_comparison_works(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(math_process, "_compare", work_allocate)
        with pytest.raises(MemoryError):
            is_equal("a", "b")
    assert is_equal(r"\sqrt{12}", r"2\sqrt{3}")


def test_workers_that_something_else_killed_are_replaced(monkeypatch):
    assert not is_equal(r"\sqrt{12}", r"3\sqrt{3}")
    workers = [child for child in multiprocessing.active_children() if child.name.startswith("pebble")]
    assert workers
    for worker in workers:
        worker.kill()
        worker.join()
    assert is_equal(r"\sqrt{12}", r"2\sqrt{3}")


def test_workers_that_cannot_start_are_an_error_and_not_a_score(tmp_path):
    script = tmp_path / "no_guard.py"
    script.write_text("from recipe.hdpo.math_process import is_equal\nprint('score', is_equal('1/2', '0.5'))\n")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, env=environment)
    assert done.returncode == 1 and "score" not in done.stdout
    # Python's resource tracker may add a warning of its own after it.
    lines = done.stderr.splitlines()
    assert any(line.startswith("RuntimeError: the processes that compare answers cannot") for line in lines)


def test_comparisons_run_in_other_processes_that_the_threads_share(monkeypatch):
    monkeypatch.setattr(math_process, "_compare", work_pid)
    pids = []
    threads = [threading.Thread(target=lambda: pids.append(is_equal("a", "b"))) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(pids) == 16
    assert os.getpid() not in pids
    assert len(set(pids)) <= math_process.MAX_WORKERS


def test_a_stopped_pool_starts_again():
    math_process.stop()
    math_process.stop()
    assert is_equal(r"\sqrt{12}", r"2\sqrt{3}")


def test_without_math_verify_no_score_is_made_up(monkeypatch):
    math_process.stop()
    monkeypatch.setattr(math_process.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RuntimeError, match="pip install math-verify"):
        is_equal("1", "2")
