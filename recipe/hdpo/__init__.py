"""Hybrid Distillation Policy Optimization (HDPO, arXiv 2603.23871) as an extension of verl.

One prompt, in the order of the algorithm:

    rollouts -> cliff? -> privileged prompt -> privileged rollouts -> keep R = 1
             -> teacher top-k -> student JSD_k -> L_GRPO + lambda * L_JSD -> metrics

==================  ==============================================================================  =====
step                file                                                                            layer
==================  ==============================================================================  =====
knobs, refusals     config/__init__.py, config/checks.py, config/hdpo/default.yaml                  pure
cliff?              cliff.py         K rewards of one prompt -> is the prompt a cliff               pure
privileged prompt   privileged.py    problem and solution -> chat messages, by a sandboxed template  pure
privileged rollout  rollout.py       the agent-loop worker that re-issues a cliff                   verl
advantage           advantage.py     leave-one-out group advantage                                  pure
teacher, JSD_k      divergence.py    top-k Jensen-Shannon divergence with its own backward          pure
both losses         loss.py          verl's two calls of the engine's loss function                 verl
teacher pass        worker.py        actor worker: teacher top-k, token count over ranks, update    verl
rows of two kinds   rows.py          mini-batches that hold rollouts and privileged rows            verl
one step            trainer.py       the trainer: short overrides of verl's synchronous trainer     verl
metrics             metrics.py       names and formulas of what is logged                           pure
registration        plugin.py        the only module whose import registers anything                verl
==================  ==============================================================================  =====

Importing this package imports nothing else.
"""

__version__ = "0.1.0"
