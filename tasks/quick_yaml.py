"""YAML by libyaml where PyYAML was built with it: plain values, in a tenth of the time.

For files that have been checked: it takes some that PyYAML itself refuses (tasks/tree.py says why in words).
"""

from __future__ import annotations

from typing import Any

import yaml

LOADER: type = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
DUMPER: type = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


def read_yaml(text: str) -> Any:
    """The values of a text. Raises `yaml.YAMLError`."""
    return yaml.load(text, Loader=LOADER)


def write_yaml(value: Any) -> str:
    """The text of plain values."""
    return str(yaml.dump(value, Dumper=DUMPER))
