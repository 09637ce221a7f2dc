"""Hybrid Distillation Policy Optimization (HDPO, arXiv 2603.23871) as an extension of verl.

One prompt, in the order of the algorithm:

    rollouts -> cliff? -> privileged prompt -> privileged rollouts -> keep R = 1
             -> teacher top-k -> student JSD_k -> L_GRPO + lambda * L_JSD -> metrics

A folder says what its files may import. *Pure* ones import neither verl nor Ray, vLLM, TransferQueue or transformers.

- ``algorithm/``: the formulas and records of HDPO (pure: torch, numpy, jinja2)
- ``rollout/``: verl's agent-loop worker, which re-issues a cliff
- ``transfer.py``: what travels through TransferQueue
- ``training/``: trainer, actor worker, teacher pass, loss
- ``tracking/``: what is counted, remembered and logged (pure)
- ``config/``: every knob, and the combinations that are refused
- ``data/``: verl's data rows (pure, with pyarrow)
- ``reward.py``, ``math_answer.py``, ``math_process.py``: the reward, behind time and memory limits
- ``answers/``: when two answers are the same, by type (pure, but for math-verify)
- ``evaluate.py``, ``compare.py``, ``evaluation/``: pass@k, paired comparison, report
- ``cpu/``: what stock verl and vLLM lack on a CPU
- ``plugin.py``: the only module whose import registers anything; ``search_path.py``: where Hydra finds the groups

Importing this package imports nothing else.
"""

__version__ = "0.1.0"
