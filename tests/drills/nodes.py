"""Two Ray nodes on one machine, each with an address of its own: what the scripts of several nodes do, without GPUs."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil

from examples.training import ROOT
from tests.drills.training import OUT, START_WITHIN, Run, command, environment, fresh, program

HEAD, OTHER, PORT = "127.0.0.1", "127.0.0.2", 6399
# Every node declares one accelerator, and enough logical CPUs for TransferQueue's actors.
HAS = ["--num-cpus=32", "--num-gpus=1", "--disable-usage-stats", "--block"]
CPU = {
    "RAY_ADDRESS": f"{HEAD}:{PORT}",
    # Ray's head asks for the token that it wrote into ~/.ray; who names an address has to say that it has one.
    "RAY_AUTH_MODE": "token",
    "VERL_PLATFORM": "cpu",
    "VLLM_TARGET_DEVICE": "cpu",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_WAIT_POLICY": "PASSIVE",
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
}
KINDS = ("TaskRunner", "WorkerDict", "vLLMHttpServer", "HDPOAgentLoopWorker")
# Two nodes of one rank and one engine. The cluster has its resources already.
NODES = ["trainer.nnodes=2", "trainer.n_gpus_per_node=1"]
NODES += ["ray_kwargs.ray_init.num_cpus=null", "ray_kwargs.ray_init.num_gpus=null"]


def two_nodes() -> None:
    """Three steps on two nodes; one node is lost; it joins again, and the run goes on from its checkpoint."""
    out = fresh("two_nodes")
    with _node(
        out, "head", "--head", f"--port={PORT}", f"--node-ip-address={HEAD}", "--include-dashboard=false"
    ) as head:
        _check(out, wait=5)
        with _other(out) as lost:
            _check(out)
            with _training(out) as run:
                run.wait(lambda: 3 in run.steps(), START_WITHIN, "third step")
                _say_where({HEAD: head, OTHER: lost})
                print(f"[drill] {OTHER} is lost after steps {run.steps()}")
                _kill_all(lost)
                print(f"[drill] the training ended after {run.wait_for_end():.0f} s")
                run.say("the run cannot go on")
        _check(out, wait=5)
        with _other(out) as other:
            _check(out)
            last = max(run.steps())
            with _training(out) as run:
                run.wait(lambda: max(run.steps()) > last, START_WITHIN, "step after the second start")
                print(f"[drill] steps of both starts: {run.steps()}")
                _say_where({HEAD: head, OTHER: other})


@contextlib.contextmanager
def _node(out: Path, name: str, *arguments: str) -> Iterator[subprocess.Popen]:
    """A Ray node, with all that runs on it in its process group."""
    ray = [sys.executable, "-c", "from ray.scripts.scripts import main; main()", "start", *arguments, *HAS]
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    env = {**os.environ, **CPU, "PYTHONPATH": path}
    with (out / f"{name}.log").open("a") as log:
        node = subprocess.Popen(ray, env=env, stdout=log, stderr=subprocess.STDOUT)
    try:
        yield node
    finally:
        _kill_all(node)


def _other(out: Path) -> contextlib.AbstractContextManager[subprocess.Popen]:
    return _node(out, "other", f"--address={HEAD}:{PORT}", f"--node-ip-address={OTHER}")


def _kill_all(node: subprocess.Popen) -> None:
    """The machine is gone: all its processes at once, without a word."""
    with contextlib.suppress(psutil.NoSuchProcess):
        family = [psutil.Process(node.pid), *psutil.Process(node.pid).children(recursive=True)]
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)
        psutil.wait_procs(family, timeout=30)
    node.wait()


def _training(out: Path) -> contextlib.AbstractContextManager[Run]:
    env = environment(out)
    # Workers have the environment of their node, and of the program that started the run what is passed on by name.
    logger = f"+ray_kwargs.ray_init.runtime_env.env_vars.VERL_FILE_LOGGER_PATH={env['METRICS']}"
    return program(command(*NODES, logger), out, **env, **CPU)


def _check(out: Path, wait: int = 90) -> None:
    """What the scripts of several nodes ask before they start."""
    folders = ["--shared", str(out / "checkpoints"), "--paths", str(OUT / "data" / "train.parquet")]
    question = ["-m", "recipe.hdpo.cluster", "--nodes", "2", "--gpus-per-node", "1", "--wait", str(wait), *folders]
    done = subprocess.run(
        [sys.executable, *question], cwd=ROOT, env={**os.environ, **CPU}, capture_output=True, text=True
    )
    print(f"[drill] the check says ({done.returncode}): {(done.stdout + done.stderr).strip()}")


def _say_where(nodes: dict[str, subprocess.Popen]) -> None:
    """Which processes of the training each node has. The console does not tell: on one machine both nodes report the
    lines of all."""
    for address, node in nodes.items():
        counts: Counter[str] = Counter()
        for process in psutil.Process(node.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                title = " ".join(process.cmdline())
                counts.update(kind for kind in KINDS if title.startswith(f"ray::{kind}"))
        print(f"[drill] {address}: {', '.join(f'{number} {kind}' for kind, number in counts.items())}")
