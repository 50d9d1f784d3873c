"""Errors of werkzeug's that are raised here, and not by a service. Pure.

werkzeug's own errors and those of a method (``abort(404)``) are answered by werkzeug's page, as in nameko. Ours are a
line of text, whether they come before the method, while it reads, or from what it asks for. Both are problem details
if ``WEB_PROBLEM_DETAILS`` says so: see ``problems``.
"""

from __future__ import annotations

from typing import TypeVar

from werkzeug.exceptions import HTTPException

Error = TypeVar("Error", bound=HTTPException)


def ours(error: Error) -> Error:
    """Have an error answered by a line of text."""
    error.is_ours = True  # type: ignore[attr-defined]  # a subclass would have another name, which clients may be told
    return error


def is_ours(error: HTTPException) -> bool:
    return getattr(error, "is_ours", False)
