"""The stages of the experiment, one module each; `python -m tasks.STAGE` runs one."""

from spring.heap import keep_heap

keep_heap()
