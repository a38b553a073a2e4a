"""A Sphinx extension for the API reference: attributes that share a line in a docstring stay one entry.

Napoleon reads ``value, low, high : float`` under *Attributes* as one strange name; numpydoc allows it.
"""

from __future__ import annotations

import re
from typing import Any

_SEVERAL = re.compile(r"^(\s*)(\w+(?:, \w+)+)( : .*)?$")


def join_names(lines: list[str]) -> None:
    """Write ``value, low : float`` as ``value/low : float`` in the *Attributes* section of a docstring, in place."""
    inside = False
    for i, line in enumerate(lines):
        if i + 1 < len(lines) and lines[i + 1].strip() and set(lines[i + 1].strip()) == {"-"}:
            inside = line.strip() == "Attributes"
        elif inside and (match := _SEVERAL.match(line)):
            lines[i] = match[1] + match[2].replace(", ", "/") + (match[3] or "")


def setup(app: Any) -> dict[str, bool]:
    """Connect with Sphinx, before napoleon (which has priority 500)."""
    app.connect("autodoc-process-docstring", lambda app, what, name, obj, options, lines: join_names(lines), priority=100)
    return {"parallel_read_safe": True}
