"""HDPO itself, in pure functions and records: these files import torch, numpy, jinja2 and the standard library.

Read them in the order of the paper: :mod:`~recipe.hdpo.algorithm.cliff`,
:mod:`~recipe.hdpo.algorithm.privileged_prompt`, :mod:`~recipe.hdpo.algorithm.advantage`,
:mod:`~recipe.hdpo.algorithm.teacher_topk`, :mod:`~recipe.hdpo.algorithm.divergence_formulas`,
:mod:`~recipe.hdpo.algorithm.divergence`. The whole loss in one place, by definition, is
:mod:`~recipe.hdpo.algorithm.reference`; :mod:`~recipe.hdpo.algorithm.seeds` makes sampling seeds.
"""
