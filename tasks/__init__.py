"""The stages of the experiment, one module each; `python -m tasks.STAGE` runs one.

Beside them the commands experiments, suites and seeds, and what all use: files, tree, tracking. What stages
are made of: cells/ (what is computed, and kept), measures/ (what is read off the answers), reporting/ (how it
is shown).
"""

from spring.engine.heap import collect_seldom, keep_heap

keep_heap()
collect_seldom()
