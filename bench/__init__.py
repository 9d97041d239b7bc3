"""Measurements of speed and memory; each module is a script."""

from spring.heap import keep_heap

keep_heap()
