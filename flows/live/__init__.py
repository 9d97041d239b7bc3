"""A live project: data arrive, periods close, and every update is a version of Git and DVC."""
