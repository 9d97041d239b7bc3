"""The rival methods, one file each: settings, source, and the whole algorithm.

Base, plain retrieval and one fresh adapter a period (OPPU) need no code of their own: they are combinations of
what SPRInG is made of, written down in suites/compare.yaml. docs/methods.md lists all arms.
"""
