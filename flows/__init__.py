"""Prefect: runs the stages of dvc.yaml one by one, on a schedule, with retries and a page to look at."""

import os

# With analytics_enabled in prefect.toml: no usage data leaves this machine. Read when Prefect is imported.
os.environ.setdefault("DO_NOT_TRACK", "1")
