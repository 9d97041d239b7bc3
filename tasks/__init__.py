"""The stages of the experiment, one module each; `python -m tasks.STAGE` runs one."""
