"""Whether a text, or the error that it ends with, is of Python 2. Pure."""

from __future__ import annotations

import re

WHAT_TO_DO = "it is Python 2: move it to Python 3 first, as 2to3 or modernize do"

# Statements that Python 3 can't read
STATEMENT = re.compile(r"^\s*(print [^(=]|exec [^(=]|raise \w+, |except [\w., ()]+, ?\w+:)", re.MULTILINE)
# What else it can't read, to be looked for in the line of the error alone: in a comment it means nothing
SPELLING = re.compile(r"<>|`|\b0\d+\b|\b(0x[\da-f]+|\d+)L\b|\bur['\"]|\bprint\s*>>")
TABS = "inconsistent use of tabs"  # Python 2 takes a tab for eight spaces

# Modules and names that went with it, except for those that somebody's own module may bear
MODULE = re.compile(
    "(__builtin__|BaseHTTPServer|ConfigParser|Cookie|HTMLParser|Queue|SocketServer|StringIO|Tkinter|UserDict|cPickle"
    "|cStringIO|cookielib|copy_reg|httplib|urllib2|urlparse|xmlrpclib)([.]|$)"
)
BUILTIN = re.compile("(basestring|execfile|long|raw_input|unichr|unicode|xrange)$")
MOVED = re.compile(
    "cannot import name '(izip|izip_longest|imap|ifilter|urlencode|quote|unquote|urlopen|maketrans|letters)'"
    " from '(itertools|urllib|string)'"
)


def can_be_python_2(text: str, error: BaseException) -> bool:
    """Whether a module that can't be read for this error is written for Python 2."""
    line = getattr(error, "text", None) or ""
    return TABS in str(error) or bool(STATEMENT.search(text) or SPELLING.search(line))


def needs_python_2(error: BaseException) -> bool:
    """Whether a module asks for something that Python 3 has not."""
    if isinstance(error, ModuleNotFoundError):
        return is_of_python_2(error.name or "")
    if isinstance(error, ImportError):
        return MOVED.match(str(error)) is not None
    return isinstance(error, NameError) and BUILTIN.match(error.name or "") is not None


def is_of_python_2(module: str) -> bool:
    """Whether Python 3 has no such module, and Python 2 has."""
    return MODULE.match(module) is not None
