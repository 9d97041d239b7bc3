"""Files of a data set: a folder here, or the Hugging Face hub, whose cache is reused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from spring.data.rows import SourceError


def locate(id: str, *, key: str, revision: str | None, patterns: Sequence[str]) -> tuple[Path, str | None]:
    """The folder, and the commit that the hub gave; None for a folder of one's own.

    Of the hub only files that fit `patterns` are fetched. Where it does not answer, what it gave before is
    read. Raises SourceError, which names the parameter `key`.
    """
    if Path(id).is_dir():
        return Path(id), None
    from httpx2 import HTTPError
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        folder = snapshot_download(id, repo_type="dataset", revision=revision, allow_patterns=[*patterns])
    except (HFValidationError, HTTPError, OSError) as error:  # the last: the hub's own errors
        said = " ".join(str(error).split())
        raise SourceError(
            f"{key} is {id!r}: neither a folder (seen from {Path.cwd()}) nor a data set that the hub gives "
            f"({said}). Check name and connection, log in with `hf auth login` if it asks for that, or fetch "
            f"it elsewhere, `hf download {id} --repo-type dataset --local-dir FOLDER`, and set {key}=FOLDER"
        ) from None
    return Path(folder), Path(folder).name
