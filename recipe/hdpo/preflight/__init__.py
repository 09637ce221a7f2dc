"""Preflight: is HDPO for this model and this data? Answered by samples, before any training and without Ray.

The plain rollouts are an evaluation of the model, and each source of privileged text is one more evaluation of the same
problems, with the privileged prompt in the place of the plain one. So the folders are evaluate's own, and what is there
is not drawn again::

    OUT/plain, OUT/solution, OUT/answer, OUT/prefix_0.5     meta.json, samples.jsonl
    OUT/preflight.json, OUT/preflight.html                  made from them each time

=============  =====================================================================================  ======
file           what it holds                                                                          layer
=============  =====================================================================================  ======
__main__.py    the command                                                                            all
arguments.py   its command line                                                                       pure
sources.py     the problems with their privileged prompts, and those that have none                   pure
drawing.py     every folder, with one engine                                                          vllm
rollouts.py    graded rollouts by problem: cliffs over K, solve rates, lengths                        pure
leaks.py       signs of copying, in privileged rollouts and in plain ones                             pure
cost.py        what either schedule would cost                                                        pure
left_out.py    what is not part of the figures, counted and named                                     pure
numbers.py     all of them, as preflight.json                                                         pure
verdict.py     the plain verdict, and its thresholds                                                  pure
advice.py      the settings that follow                                                               pure
figures.py     vector plots                                                                           pure
page.py        preflight.html, from page.html                                                         pure
=============  =====================================================================================  ======
"""
