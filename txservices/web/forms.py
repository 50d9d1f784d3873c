"""The forms and the JSON of requests, within bounds: a method asks for them, mostly in the reactor. Pure.

A method with ``blocking = True`` asks in a thread, which holds nothing up. It is given ``IN_THREAD`` times as much.
Beyond the bounds the answer is 413.
"""

from __future__ import annotations

import json
from io import BytesIO
from typing import IO, Any

from twisted.python.threadable import isInIOThread
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.formparser import FormDataParser

from txservices.serialization.bounds import HERE_MAX
from txservices.serialization.jsonreader import QUICK_VALUES_MAX, JsonReader, values_at_most
from txservices.web.ours import ours

__all__ = ["FormParser", "Json"]

FIELDS_MAX = 5_000  # fields of an urlencoded form: some 10 ms
ESCAPES_MAX = 100_000  # bytes that are written as %41 in such a form: some 70 ms
PARTS_MAX = 100  # parts of a multipart form: some 25 ms if each is long
PART_HEADS_MAX = 65_536  # bytes of all their headers together: some 10 ms
PART_NEWLINES_MAX = 1_000_000  # newlines where werkzeug looks at each of them: some 20 ms
PART_SEARCHED = 65_536  # bytes at the beginning of each part; there it does so
DIGITS_MAX = 40  # digits of a whole number in a long JSON, as 128 bits have; their time grows with their square
IN_THREAD = 10  # so many times of it in a thread
URLENCODED, MULTIPART = "application/x-www-form-urlencoded", "multipart/form-data"
NEWLINES = (b"", b"\n", b"\r")
BLANK_LINES = (b"\r\n\r\n", b"\n\n", b"\r\r")


def too_large(what: str) -> RequestEntityTooLarge:
    advice = "" if in_thread() else "; a method with blocking = True may read more"
    return ours(RequestEntityTooLarge(f"{what}{advice}"))


def in_thread() -> bool:
    return not isInIOThread()


class FormParser(FormDataParser):
    """werkzeug's parser bounds the length of a form; this one bounds the number of its parts, too."""

    def parse(
        self, stream: IO[bytes], mimetype: str, content_length: int | None, options: dict[str, str] | None = None
    ) -> Any:
        if mimetype == URLENCODED:
            self.max_form_memory_size = None  # werkzeug has it for these forms too, until 3.1.9
        stream = BytesIO(check_form(stream, mimetype, options or {}))
        return super().parse(stream, mimetype, content_length, options)


def check_form(stream: IO[bytes], mimetype: str, options: dict[str, str]) -> bytes:
    """The body of a form. Raises 413 for one that would take long to parse."""
    body = stream.read() if mimetype in (URLENCODED, MULTIPART) else b""
    times = IN_THREAD if in_thread() else 1
    if mimetype == URLENCODED:
        check_fields(body, times)
    elif mimetype == MULTIPART:
        check_parts(body, options.get("boundary", "").encode("ascii", "replace"), times)
    return body


def check_fields(body: bytes, times: int) -> None:
    """Raises 413 for an urlencoded form that would take long to parse."""
    if body.count(b"&") >= FIELDS_MAX * times:
        raise too_large(f"a form of over {FIELDS_MAX * times} fields")
    if body.count(b"%") > ESCAPES_MAX * times:
        raise too_large(f"a form of over {ESCAPES_MAX * times} escaped bytes: send it as multipart/form-data")


def check_parts(body: bytes, boundary: bytes, times: int) -> None:
    """Raises 413 for a multipart form that would take long to parse."""
    mark = b"--" + boundary
    parts = heads = newlines = 0
    at = body.find(mark)
    while at >= 0:
        head = at + len(mark)
        following = body.find(mark, head)
        if body[max(at - 1, 0) : at] in NEWLINES and body[head : head + 2] != b"--":
            parts += 1
            ends = [body.find(blank, head, head + PART_HEADS_MAX * times) for blank in BLANK_LINES]
            heads += min((end for end in ends if end >= 0), default=len(body)) - head
            searched = min(head + PART_SEARCHED, following if following >= 0 else len(body))
            newlines += body.count(b"\n", head, searched) + body.count(b"\r", head, searched)
            if parts > PARTS_MAX * times:
                raise too_large(f"a form of over {PARTS_MAX * times} parts")
            if heads > PART_HEADS_MAX * times:
                raise too_large(f"over {PART_HEADS_MAX * times} bytes of headers in a form")
            if newlines > PART_NEWLINES_MAX * times:
                raise too_large(f"over {PART_NEWLINES_MAX * times} newlines at the beginnings of a form's parts")
        at = following


class Json:
    """Stands in for the module ``json``, for werkzeug.

    Args:
        values_max: how many values a long body may have in a thread.
    """

    def __init__(self, values_max: int) -> None:
        self.values_max = values_max

    def loads(self, body: bytes) -> Any:
        """The value in a text of JSON. ``ValueError`` if it is no JSON, 413 if it has too many values."""
        if len(body) <= HERE_MAX:
            return json.loads(body)
        text = body.decode()
        if in_thread():
            return JsonReader(text, self.values_max).read_all()
        if values_at_most(body) > QUICK_VALUES_MAX:
            raise too_large(f"a JSON of over {QUICK_VALUES_MAX} values")
        return json.loads(text, parse_int=whole_number)


def whole_number(digits: str) -> int:
    if len(digits) > DIGITS_MAX:
        raise too_large(f"a number of over {DIGITS_MAX} digits in a long JSON")
    return int(digits)
