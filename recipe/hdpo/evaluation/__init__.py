"""Evaluation: many samples per problem, unbiased estimates, intervals, and one report.

The data flow, file by file (``recipe/hdpo/evaluate.py`` and ``recipe/hdpo/compare.py`` are the commands)::

    parquet -> problems -> checkpoint -> generate -> scoring -> writer -> records -> summary -> comparison -> report

===============  ============================================================================  ======
file             what it holds                                                                 layer
===============  ============================================================================  ======
arguments.py     the command line of evaluate, and what preflight shares of it                 pure
problems.py      rows of verl parquet files, checked, with stable ids                          pure
checkpoint.py    Hugging Face folder or verl checkpoint -> Hugging Face folder                 verl
generate.py      vLLM's offline engine: greedy and seeded samples                              vllm
drawing.py       draws, scores and writes the samples that a folder lacks                      pure
scoring.py       the reward function, and the answer it extracted                              pure
writer.py        one JSON line per sample; resume, refusals                                    pure
records.py       strict reading of what was written                                            pure
passk.py         unbiased pass@k, exact maj@k                                                  pure
intervals.py     bootstrap over problems, seeds and problems                                   pure
pvalues.py       sign-flip test, with the runs' variance where there are several               pure
summary.py       every metric per problem, per group, with its interval                        pure
comparison.py    arms paired by problem id, one or several runs per arm                        pure
validation.py    pass@k of the trainer's validation samples                                    pure
tables.py        plain text tables                                                             pure
training_log.py  reads the metrics file that verl's ``file`` logger writes                     pure
plots.py         PNG figures                                                                   pure
report.py        one self-contained HTML file                                                  pure
===============  ============================================================================  ======

Importing this package imports nothing else.
"""
