"""The rival methods, one file each: settings, source, and the whole algorithm.

Base, plain retrieval and one fresh adapter a period (OPPU) need no code of their own: suites/compare.yaml
writes them down as combinations of what SPRInG is made of. docs/methods.md lists all arms.
"""
