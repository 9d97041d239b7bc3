"""Whether everything is right on a GPU, and how fast it is there: `python -m bench.gpu`.

`models.py` random models and texts; `sides.py` a model with the engine and with PEFT alone; `checks.py` that
both agree, and `beside.py` what else runs on the device; `jobs.py` and `timing.py` how fast they are;
`inside.py` what a decoding step is made of; `pace.py` the time that all may take; `report.py` what is said.
"""
