"""Hybrid Distillation Policy Optimization (HDPO, arXiv 2603.23871) as an extension of verl.

One prompt, in the order of the algorithm:

    rollouts -> cliff? -> privileged prompt -> privileged rollouts -> keep R = 1
             -> teacher top-k -> student JSD_k -> L_GRPO + lambda * L_JSD -> metrics

The files, in the same order. *Pure* ones import neither verl nor Ray, vLLM or transformers.

- ``config/``: every knob, and the combinations that are refused (knobs: pure)
- ``cliff.py``: K rewards of one prompt -> is the prompt a cliff (pure)
- ``privileged.py``: problem and solution -> chat messages, by a sandboxed template (pure)
- ``rollout.py``, ``privileged_agent.py``: the agent-loop worker that re-issues a cliff
- ``seeding.py``, ``greedy.py``: sampling seeds by rollout (pure); greedy accuracy in validation
- ``advantage.py``: leave-one-out group advantage (pure)
- ``teacher.py``: the teacher pass over kept trajectories
- ``topk.py``, ``divergence_formulas.py``, ``divergence.py``: the teacher's top-k; JSD_k and its relatives (pure)
- ``loss.py``, ``policy_loss.py``: both terms, in verl's two calls of the engine's loss function
- ``rows.py``, ``deal.py``: mini-batches of rollout rows and privileged rows; which rank gets which
- ``worker.py``, ``engine.py``, ``gradients.py``: the actor worker; gradient norms of the two terms
- ``trainer.py``: short overrides of verl's synchronous trainer
- ``metrics.py``: names and formulas of what is logged (pure)
- ``collapse.py``, ``history.py``: the warning of a teacher that collapses; what a checkpoint remembers (pure)
- ``kept_log.py``: the kept trajectories as text (pure)
- ``plugin.py``: the only module whose import registers anything
- ``reward.py``, ``math_answer.py``, ``math_process.py``: the reward, behind time and memory limits
- ``evaluate.py``, ``compare.py``, ``evaluation/``: pass@k, paired comparison, report
- ``cpu/``: what stock verl and vLLM lack on a CPU

Importing this package imports nothing else.
"""

__version__ = "0.1.0"
