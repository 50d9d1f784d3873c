"""From a file's text to a report. Pure.

text -> ast -> Names -> Values, rules -> findings, edits
"""

from __future__ import annotations

import ast
import warnings

from txservices.migration.checking import python2
from txservices.migration.checking.edits import Rewriting
from txservices.migration.checking.findings import Finding, Group, Report
from txservices.migration.checking.names import Names
from txservices.migration.checking.rules import rules
from txservices.migration.checking.values import Values


def read(path: str, text: str) -> Report:
    """What is to be said of one module."""
    report = Report(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the code that is read
            tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = getattr(error, "lineno", None) or 1
        why = python2.WHAT_TO_DO if python2.can_be_python_2(text, error) else f"it can't be read: {error}"
        report.findings.append(Finding(line, Group.CANNOT, "syntax", why))
        return report
    names = Names(tree)
    if not any(each.partition(".")[0] in ("nameko", "eventlet", "gevent") or "nameko" in each for each in names.lines):
        return report
    values = Values(names)
    rewriting = Rewriting(text, names, values)
    found = {*rules(names, is_test(path)), *rewriting.findings()}
    report.findings = sorted(found)
    report.edits = rewriting.edits()
    return report


def is_test(path: str) -> bool:
    """Whether a file has tests in it, by its name."""
    name = path.replace("\\", "/").rpartition("/")[2]
    return name.startswith("test_") or name.endswith("_test.py") or name == "conftest.py"


def serves_http(text: str) -> bool:
    """Whether a module has entrypoints for HTTP."""
    return "nameko.web" in text
