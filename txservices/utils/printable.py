"""Text from strangers, made fit for a log or a terminal: it forges no line, hides none, and fills no disk."""

from __future__ import annotations

import re

TEXT_MAX = 20_000  # characters of one event of the log, or of its traceback
LINES_MAX = 100  # lines of one event of the log, or of its traceback

# Controls except tab and newline, the ends of lines that only some programs see, marks that turn the direction of
# text, and lone surrogates, which can't be written to a file.
UNSAFE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """The text with unsafe characters escaped as Python writes them, and cut in the middle if it is too long.

    A newline stays: whoever writes the text has its other lines begin with a tab, see ``indented``.
    """
    return UNSAFE.sub(escaped, cut(text))


def escaped(found: re.Match[str]) -> str:
    return ascii(found.group())[1:-1]


def in_one_line(text: str) -> str:
    """The text with every line end and run of white space as one blank, and unsafe characters escaped."""
    return printable(" ".join(text.split()))


def indented(text: str) -> str:
    """The text with a tab before each line but the first, so that no line of it looks like a line of the log."""
    return text.replace("\n", "\n\t")


def cut(text: str) -> str:
    """The beginning and the end of a text that is too long, with a note of how much is left out between them."""
    lines = text.count("\n") + 1
    if lines > LINES_MAX:
        kept = text.split("\n")
        half = LINES_MAX // 2
        text = "\n".join([*kept[:half], f"… {lines - 2 * half:,} lines left out …", *kept[-half:]])
    return shortened(text, TEXT_MAX)


def shortened(text: str, most: int) -> str:
    """The beginning and the end of a text of more than so many characters, with a note of what is left out between."""
    half = most // 2
    return text if len(text) <= most else f"{text[:half]}… {len(text) - 2 * half:,} characters left out …{text[-half:]}"
