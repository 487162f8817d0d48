"""`semi-med compare`: several methods, numbers of labels and seeds as independent jobs, and one report of them all.

A comparison is a folder. `plan` freezes what decides its runs in `compare.json`; `stages` says what each job
trains and whether that is done; `job` runs one job; `local` runs many on this machine; `collect` makes the report of
what is there.
"""
