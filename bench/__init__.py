"""Measurements of speed and memory; each module is a script."""

from spring.engine.heap import keep_heap

keep_heap()
