"""Trailers of commit messages: the lines for programs behind the text, by an explicit list.

Git itself takes any `Word: text` at the end for a trailer, also "Note: ..." and a web address. Here only
those lines are cut that say what these say:

- who did what: KEY-by with a key of `_DEEDS`, and any KEY-by that ends in <an address>; Cc with an address
- what it belongs to: Fixes, Closes, Link, Bug and the like, if a number, a hash or a web address follows
- what programs write: Change-Id, git-svn-id, (cherry picked from commit ...)
"""

from __future__ import annotations

import re

_DEEDS = (
    "Signed-off|Co-?authored|Co-?developed|Co-?committed|Reviewed|Acked|Nacked|Tested|Reported|Suggested|Requested|"
    "Helped|Mentored|Approved|Submitted|Committed|Authored|Noticed|Spotted|Debugged|Diagnosed|Analyzed|Inspired|"
    "Improved|Explained|Proposed|Sponsored|Verified|Merged|Original-patch|Based-on-patch|Based-on-a-patch|"
    "Reported-and-tested|Reviewed-and-tested|Tested-and-reported|Assisted|Generated"
)
_LINKS = (
    "Fixes|Closes|Resolves|Refs|References|See|See-also|Bug|Issue|Related|Part-of|Link|Links|URL|Reviewed-on|PR-URL|"
    "Message-Id|Differential Revision|Github-Pull|Change-Url"
)
_TARGET = r"(?:<?https?://\S+|<\S+@\S+>|[\w./-]*[#!]\d+|[A-Z][A-Z0-9]*-\d+|\d+|[0-9a-f]{7,64})"
_TRAILER = re.compile(
    rf"(?:{_DEEDS})-by:\s*\S.*"
    r"|[a-z][\w-]*-by:\s.*<\S+@\S+>\s*"
    r"|cc:\s.*\S+@\S+.*"
    rf"|(?:{_LINKS}):\s+{_TARGET}(?:[,;\s]+(?:and\s+)?{_TARGET})*(?:\s+[\(\[\"].*)?\s*"
    r"|change-id:\s+I?[0-9a-f]+\s*"
    r"|git-svn-id:\s.*"
    r"|\(cherry[ -]picked from commit [0-9a-f]{7,}.*\)\s*",
    re.I,
)
# Wherever it stands: squashed messages have them amid the text
_SIGNED = re.compile(
    r"^(?:[a-z][\w-]*-by:\s.*<\S+@\S+>|change-id:\s+I[0-9a-f]{8,})[ \t]*(?:\n|\Z)", re.I | re.M
)


def cut_trailers(body: str) -> str:
    """The body without the trailers at its end and without signatures amid the text."""
    lines = _SIGNED.sub("", body).rstrip().split("\n")
    while lines:
        # a line that begins with a blank goes on with the one before
        start = len(lines) - 1
        while start > 0 and lines[start][:1] in (" ", "\t") and lines[start].strip():
            start -= 1
        blank = start == len(lines) - 1 and not lines[start].strip()
        folded = " ".join([lines[start], *(line.strip() for line in lines[start + 1 :])])
        if not blank and not _TRAILER.fullmatch(folded):
            break
        del lines[start:]
    return "\n".join(lines).strip()
