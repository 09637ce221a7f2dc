"""HDPO itself, in pure functions and records: these files import torch, numpy, jinja2 and the standard library.

Read them in the order of the paper: :mod:`~recipe.hdpo.algorithm.cliff`,
:mod:`~recipe.hdpo.algorithm.message_template`, :mod:`~recipe.hdpo.algorithm.privileged_prompt`,
:mod:`~recipe.hdpo.algorithm.advantage`,
:mod:`~recipe.hdpo.algorithm.teacher_topk`, :mod:`~recipe.hdpo.algorithm.divergence_formulas`,
:mod:`~recipe.hdpo.algorithm.divergence`. The last one walks the logits by :mod:`~recipe.hdpo.algorithm.softmax_rows`,
on CUDA with :mod:`~recipe.hdpo.algorithm.softmax_kernels`. The whole loss in one place, by definition, is
:mod:`~recipe.hdpo.algorithm.reference`; :mod:`~recipe.hdpo.algorithm.seeds` makes sampling seeds.

Shape suffixes of tensors, in every folder:

- ``N``: tokens of a packed micro-batch; ``M``: positions whose distributions are compared; ``C``: those of one chunk;
  ``D``: those of one block of chunks
- ``K``: the teacher's top-k; ``V``: the vocabulary
- ``B``: sequences; ``T``: tokens of one sequence; ``G``: rollouts of one prompt, its group
"""
