"""Text that may be written to a log or a terminal."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txservices.utils.printable import LINES_MAX, TEXT_MAX, in_one_line, indented, printable

TABLE = {
    "plain, é, 漢字 and 🐇\tstay\nas they are": "plain, é, 漢字 and 🐇\tstay\nas they are",
    "\x1b[2Jgone": "\\x1b[2Jgone",
    "over\rwritten": "over\\rwritten",
    "\x00\x07\x7f\x9b": "\\x00\\x07\\x7f\\x9b",
    "other\x0bends\x0cof\x85lines\u2028and\u2029more": "other\\x0bends\\x0cof\\x85lines\\u2028and\\u2029more",
    "turned \u202eround\u2066": "turned \\u202eround\\u2066",
    "a lone \ud800 surrogate": "a lone \\ud800 surrogate",
}


class Printable(SynchronousTestCase):
    """``printable`` and its neighbours."""

    def test_table(self) -> None:
        """Characters that do something to a terminal or a file are written as Python writes them."""
        for text, expected in TABLE.items():
            self.assertEqual(printable(text), expected)

    @given(st.text(st.characters()))
    def test_any_text(self, text: str) -> None:
        """Any text can be written as UTF-8, has no line ends but newlines, and in one line has none."""
        shown = printable(text)
        shown.encode()
        self.assertEqual(shown.splitlines(), shown.removesuffix("\n").split("\n") if shown else [])
        self.assertLessEqual(len(in_one_line(text).splitlines()), 1)
        for line in indented(shown).split("\n")[1:]:
            self.assertTrue(line.startswith("\t"))

    def test_long_text(self) -> None:
        """The beginning and the end of a long text are kept, and it says how much is left out."""
        shown = printable("a" * TEXT_MAX + "b" * TEXT_MAX)
        self.assertLess(len(shown), TEXT_MAX + 100)
        self.assertRegex(shown, f"^a+… {TEXT_MAX:,} characters left out …b+$")
        self.assertEqual(printable("a" * TEXT_MAX), "a" * TEXT_MAX)

    def test_many_lines(self) -> None:
        """The same of lines, as a RecursionError has them."""
        lines = [str(n) for n in range(LINES_MAX + 1900)]
        shown = printable("\n".join(lines)).split("\n")
        self.assertEqual(shown[: LINES_MAX // 2], lines[: LINES_MAX // 2])
        self.assertEqual(shown[LINES_MAX // 2], "… 1,900 lines left out …")
        self.assertEqual(shown[LINES_MAX // 2 + 1 :], lines[-LINES_MAX // 2 :])
        self.assertEqual(printable("\n".join(lines[:LINES_MAX])), "\n".join(lines[:LINES_MAX]))
