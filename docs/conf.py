"""How Sphinx builds the guide: `make docs`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.ext.napoleon import Config, GoogleDocstring
from sphinx.util.inspect import signature, stringify_signature

import txservices
from txservices.extensions import Extension

project = html_title = "txservices"
version = release = txservices.__version__
copyright = "the authors of txservices"

extensions = ["myst_parser", "sphinx.ext.autodoc"]
html_theme = "furo"
html_show_sphinx = html_copy_source = False
myst_heading_anchors = 3

autodoc_default_options = {"members": True}
autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False  # `setup`, `start`, `stop` and `kill` are explained once, in `Extension`

SECTIONS = Config(napoleon_use_ivar=True)  # attributes in a list: as entries of their own many would come twice
LOADED = re.compile(r'<(?:script|img|iframe|source|link)\b[^>]*\b(?:src|href)="(?:https?:)?//[^"]*"')


def show_docstring(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Show what our docstrings indent as it stands: it is code, or a table in columns. Then read their sections."""
    if what == "function" and hasattr(thing, "__self__"):
        entrypoint = thing.__self__
        lines[:] = [f"The decorator of :class:`~{entrypoint.__module__}.{entrypoint.__qualname__}`.", "", *lines]
    inside = False
    done: list[str] = []
    for line in lines:
        indented = line.startswith("    ")
        if indented and not inside and done and not done[-1]:
            done += ["::", ""]
        inside = indented or (inside and not line)
        done.append(line)
    # napoleon as an extension would take the words before a colon in a property's first line for its type
    lines[:] = GoogleDocstring(done, SECTIONS, app, "" if what == "property" else what, name, thing, options).lines()


def show_arguments(app: Sphinx, what: str, name: str, thing: Any, *others: Any) -> tuple[str, str] | None:
    """Show the arguments of an extension, or of its decorator, which `Extension.__new__` and `decorator` hide.

    A proxy has none that anybody has to give.
    """
    if name.startswith("txservices.proxies.") and name.endswith(("Proxy", "Reply")):
        return "", ""
    if what == "class" and getattr(thing, "_is_protocol", False):
        return "", ""
    made = getattr(thing, "__self__", thing)
    if what not in ("class", "function") or not isinstance(made, type) or not issubclass(made, Extension):
        return None
    if made.__init__ is object.__init__:
        return "()", ""
    arguments = signature(made.__init__, bound_method=True)
    return stringify_signature(arguments, show_return_annotation=False, unqualified_typehints=True), ""


def check_offline(app: Sphinx, error: Exception | None) -> None:
    """Fail if a page loads anything from the internet."""
    pages = Path(app.outdir).rglob("*.html")
    found = [f"{page.name}: {match}" for page in pages for match in LOADED.findall(page.read_text(encoding="utf-8"))]
    if found and error is None:
        raise ExtensionError("these pages load something from the internet:\n" + "\n".join(found))


def setup(app: Sphinx) -> None:
    app.connect("autodoc-process-docstring", show_docstring)
    app.connect("autodoc-process-signature", show_arguments)
    app.connect("build-finished", check_offline)
