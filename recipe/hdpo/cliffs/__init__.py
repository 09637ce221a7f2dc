"""The cliff page: every cliff of a run, to read. Made from the files in ``trainer.rollout_data_dir``.

=============  ==============================================================================================
file           what it holds
=============  ==============================================================================================
__main__.py    the command
files.py       a run's files: what became of each prompt by step, verl's rollouts, the kept trajectories
sample.py      which cliffs fit into the page, by chance, in bounded memory
entry.py       one cliff as the page shows it, with the marks of copying
page.py        the page, from page.html, page.css and page.js
=============  ==============================================================================================
"""
