"""Docstrings of the package for mkdocstrings: they have reStructuredText's roles and literal blocks, not Markdown's."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

_ROLE = re.compile(r":(?:attr|class|data|func|meth|mod):`~?([^`]+)`")
_LITERAL = re.compile(r"::$", re.MULTILINE)


class Roles(Extension):
    """Writes ``:func:`name``` as ``name``, and the ``::`` before an example as a colon."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Change the docstring of what was read."""
        if obj.docstring:
            obj.docstring.value = _LITERAL.sub(":", _ROLE.sub(r"`\1`", obj.docstring.value))
