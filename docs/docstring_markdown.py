"""The docstrings of the reference, as Markdown: an extension of griffe, which reads them for mkdocstrings."""
# pyright: reportMissingImports=false, reportUntypedBaseClass=false

from typing import Any

import griffe

from reference_pages import as_markdown


class DocstringMarkdown(griffe.Extension):
    """Turns every docstring as soon as it was read."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite one docstring."""
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Rewrite that of the package itself, which is no member of anything."""
        self.on_object(obj=pkg)
