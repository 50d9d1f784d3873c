"""What `txservices parked` prints: parking queues, messages and results, in words or as JSON.

No control character of a message reaches a terminal.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from txservices.amqp.entities import Message
from txservices.retry import marks
from txservices.retry.parked import Summary, Tally
from txservices.utils.printable import in_one_line, printable

KINDS_SHOWN = 10  # reasons that are told, those of most messages first


def as_object(summary: Summary) -> dict[str, Any]:
    return {
        "queue": summary.queue,
        "messages": summary.count,
        "read": summary.read,
        "since": summary.since or None,
        "reasons": dict(summary.reasons),
    }


def in_words(summary: Summary) -> str:
    name = in_one_line(summary.queue)
    if not summary.count:
        return f"{name}: empty"
    since = f" since {in_one_line(summary.since)}" if summary.since else ""
    of_first = f"; of the first {summary.read:,}" if summary.read < summary.count else ""
    return f"{name}: {messages(summary.count)}{since}{of_first}: {counted(summary.reasons)}"


def counted(reasons: Counter[str]) -> str:
    told = [f"{in_one_line(reason)} {count:,}" for reason, count in reasons.most_common(KINDS_SHOWN)]
    more = len(reasons) - len(told)
    return ", ".join([*told, *([f"{more} more reasons"] if more else [])])


def messages(count: int) -> str:
    return f"{count:,} message{'' if count == 1 else 's'}"


def result(where: str, tally: Tally, done: str, as_json: bool) -> str:
    """The outcome of a command: what was done, and what stays, with its reason."""
    if as_json:
        of = "file" if done == "imported" else "queue"
        counts = {of: where, "messages": tally.there, "selected": tally.selected, done: tally.done}
        return json.dumps({**counts, "unreadable": tally.unreadable, "stayed": dict(tally.stayed)})
    lines = [f"{done} {tally.done:,} of {messages(tally.there)} in {where}"]
    what = "are not imported" if done == "imported" else "stay parked"
    lines += [f"{count:,} {what}: {reason}" for reason, count in tally.stayed.most_common(KINDS_SHOWN)]
    if tally.unreadable:
        lines.append(f"{tally.unreadable:,} stay parked: they can't be read here")
    return "\n".join(map(in_one_line, lines))


def brief(message: Message) -> str:
    """A message in a line."""
    why = marks.Why.of(message)
    tried = f"{why.reason} after {why.attempts} attempt{'' if why.attempts == 1 else 's'}"
    error = f": {why.error}" if why.error else ""
    return in_one_line(f"{message.properties.get('message_id') or '-'}  {why.at or '-'}  {tried}{error}")


def whole(message: Message) -> str:
    """All that is known of a message."""
    properties = {name: value for name, value in message.properties.items() if name != "headers"}
    headers = dict(message.headers)
    traceback = headers.pop(marks.TRACEBACK, None)
    lines = [in_one_line(f"{name}: {in_text(value)}") for name, value in {**properties, **headers}.items()]
    if isinstance(traceback, str):
        lines += ["traceback:", *indented(traceback)]
    try:
        text = message.body.decode()
    except UnicodeDecodeError:
        lines.append(f"body: {message.size:,} bytes that are no text (--json has them)")
    else:
        lines += [f"body: {message.size:,} bytes", *indented(text)]
    return "\n".join([*lines, ""])


def in_text(value: Any) -> str:
    """A value of a header: tables and lists, as of ``x-death``, as JSON with their times in words."""
    return json.dumps(value, default=str, ensure_ascii=False) if isinstance(value, (dict, list)) else str(value)


def indented(text: str) -> list[str]:
    return [f"    {line}" for line in printable(text).splitlines()]
