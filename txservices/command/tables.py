"""What the fleet's commands print: tables, numbers with their units, and lines of what happens. Pure.

Names and errors come from other processes. No control character of them reaches a terminal.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any

from attrs import define, field

from txservices.monitoring.answers import (
    Answer,
    Counts,
    Failed,
    Happened,
    Method,
    Process,
    Service,
    Tailed,
    key_of,
)
from txservices.monitoring.counters import merged
from txservices.utils.printable import in_one_line, printable

HEADINGS = ("SERVICE", "INSTANCES", "METHODS", "CALLS/S", "P50", "P99", "ERRORS/S", "SINCE")
NOT_KNOWN = "-"
NAME_SHOWN = 60  # characters of a service's name in the table: one long name would make all its lines too long
MILLISECOND = 0.001  # seconds


@define
class Group:
    """A service with all its instances.

    Attributes:
        described: the service as each of them describes it.
    """

    name: str
    processes: list[Process] = field(factory=list)
    described: list[Service] = field(factory=list)
    counts: list[Counts] = field(factory=list)

    @property
    def methods(self) -> dict[tuple[str, str, str], Method]:
        """The methods of all versions, each once."""
        return {key_of(each): each for each in self.entrypoints}

    @property
    def entrypoints(self) -> list[Method]:
        """The methods of all instances."""
        return [method for service in self.described for method in service["methods"]]

    @property
    def together(self) -> Counts:
        return merged(self.counts)


def grouped(answers: Iterable[Answer]) -> list[Group]:
    """The services that processes have answered for, by their names."""
    groups: dict[str, Group] = {}
    for answer in answers:
        for name in answer["process"]["services"]:
            groups.setdefault(name, Group(name)).processes.append(answer["process"])
        for service in answer.get("services", ()):
            groups.setdefault(service["service"], Group(service["service"])).described.append(service)
        for counts in answer.get("methods", ()):
            groups.setdefault(counts["service"], Group(counts["service"])).counts.append(counts)
    return [groups[name] for name in sorted(groups)]


def table_of(groups: Iterable[Group]) -> list[str]:
    """The lines of the table of services."""
    return aligned([HEADINGS, *map(row_of, groups)])


def row_of(group: Group) -> tuple[str, ...]:
    counts = group.together
    numbers = str(len(group.processes)), str(len(group.methods)), rate(counts["rate"])
    times = seconds(counts["p50"]), seconds(counts["p99"])
    began = max((each["since"] for each in group.processes), default=None)
    since = NOT_KNOWN if began is None else date_and_time(began)
    name = group.name if len(group.name) <= NAME_SHOWN else f"{group.name[:NAME_SHOWN]}…"
    return name, *numbers, *times, rate(counts["error_rate"]), since


def as_object(group: Group) -> dict[str, Any]:
    """A service for ``--json``."""
    counts = group.together
    return {
        "service": group.name,
        "instances": len(group.processes),
        "methods": len(group.methods),
        "rate": counts["rate"],
        "p50": counts["p50"],
        "p99": counts["p99"],
        "error_rate": counts["error_rate"],
        "count": counts["count"],
        "errors": counts["errors"],
        "processes": group.processes,
    }


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows with the first column to the left, and the others to the right."""
    safe = [[in_one_line(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*safe, strict=True)]
    return [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in safe
    ]


def described(group: Group, answers: Sequence[Answer]) -> list[str]:
    """All that is known of a service."""
    lines = [f"{group.name}: {counted(len(group.processes), 'instance')}"]
    if group.described and group.described[0]["doc"]:
        lines += [f"    {line}" for line in printable(group.described[0]["doc"]).splitlines()]
    lines += ["", "Instances"]
    of_process = {
        answer["process"]["id"]: service
        for answer in answers
        for service in answer.get("services", ())
        if service["service"] == group.name
    }
    for process in group.processes:
        service = of_process.get(process["id"])
        lines.append(f"  {instance_of(process, service)}")
        if service is not None:
            lines += [f"    not ready: {in_one_line(reason)}" for reason in service.get("not_ready", "").splitlines()]
    lines += ["", "Methods", *methods_of(group, answers)]
    events = sorted({event for service in group.described for event in service["events"]})
    if events:
        lines += ["", f"Tells the events {', '.join(events)}"]
    lines += edges_of(group, answers)
    return [printable(line) for line in lines]


def instance_of(process: Process, service: Service | None) -> str:
    since = date_and_time(process["since"])
    others = " in all its services" if len(process["services"]) > 1 else ""
    line = f"{whereabouts(process)}, since {since}, {counted(process['failed'], 'failure')}{others}"
    if service is not None:
        running = f"{service['running']} of {service['max_workers']} workers run, {service['waiting']} wait"
        version = f", version {service['version']}" if service["version"] else ""
        line = f"{line}, {service['state']}, {running}{version}"
    return in_one_line(line)


def methods_of(group: Group, answers: Sequence[Answer]) -> list[str]:
    counts: dict[tuple[str, str], list[Counts]] = {}
    for answer in answers:
        for each in answer.get("methods", ()):
            if each["service"] == group.name:
                counts.setdefault((each["method"], each["entrypoint"]), []).append(each)
    lines = []
    for method in group.methods.values():
        together = merged(counts.get((method["method"], method["entrypoint"]), []))
        on = f" on {method['on']}" if method["on"] else ""
        lines.append(in_one_line(f"{method['method']}{method['signature']}  [{method['entrypoint']}{on}]"))
        of_method = [each for each in group.entrypoints if key_of(each) == key_of(method)]
        lines.append(f"    {in_numbers(together)}{workers_of(of_method)}")
        lines += [f"    {line}" for line in printable(method["doc"]).splitlines()]
    return [f"  {line}" for line in lines]


def workers_of(methods: Sequence[Method]) -> str:
    """How many workers of a method run and wait, in all instances together. Nothing if there is none."""
    running, waiting = sum(each.get("running", 0) for each in methods), sum(each.get("waiting", 0) for each in methods)
    most = sum(each.get("max_workers", 0) for each in methods)
    if not (running or waiting):
        return ""
    return f", {running:,}{f' of {most:,}' if most else ''} workers run, {waiting:,} wait"


def edges_of(group: Group, answers: Sequence[Answer]) -> list[str]:
    edges = [edge for answer in answers for edge in answer.get("edges", ())]
    lines: list[str] = []
    for heading, ours, other in (("Calls", "service", "target"), ("Is called by", "target", "service")):
        found: dict[str, list[Counts]] = {}
        for edge in edges:
            if edge[ours] == group.name:  # type: ignore[literal-required]  # one of two keys
                name = f"{edge['target']}.{edge['method']}" if other == "target" else edge["service"]
                found.setdefault(name, []).append(edge)
        if found:
            lines += ["", heading, *(f"  {in_one_line(n)}: {in_numbers(merged(c))}" for n, c in sorted(found.items()))]
    return lines


def failure_lines(failed: Failed, process: Process) -> list[str]:
    """A failure, with all that is known of it."""
    at = moment(failed["at"])
    where = f"{failed['service']}.{failed['method']}"
    head = f"{at} {where} {failed['outcome']} after {seconds(failed['seconds'])} on {whereabouts(process)}"
    arguments = ", ".join(f"{name}={value}" for name, value in failed["arguments"].items())
    lines = [in_one_line(head), f"    arguments: {in_one_line(arguments)}" if arguments else ""]
    lines.append(f"    calls: {in_one_line(' > '.join(failed['call_id_stack']))}")
    lines += [f"    {line}" for line in printable(failed["traceback"]).splitlines()]
    return [line for line in lines if line]


def happened_lines(tailed: Tailed) -> list[str]:
    """What has happened in a process, a line each."""
    lines = [in_one_line(happened_line(each)) for each in tailed["happened"]]
    if tailed["dropped"] > 0:
        lines.append(in_one_line(f"… {tailed['dropped']:,} more of {whereabouts(tailed['process'])} are not shown"))
    return lines


def happened_line(happened: Happened) -> str:
    at, service, name = moment(happened["at"]), happened["service"], happened["name"]
    if happened["kind"] == "event":
        return f"{at} event {service}.{name}"
    who = f"{service}.{name}" if happened["kind"] == "worker" else f"{service} -> {name}"
    call_id = f" {happened['call_id']}" if happened["call_id"] else ""
    error = f": {happened['error']}" if happened["error"] else ""
    return f"{at} {happened['kind']} {who} {happened['outcome']} {seconds(happened['seconds'])}{call_id}{error}"


def whereabouts(process: Process) -> str:
    """Where a process is."""
    return in_one_line(f"{process['host']} pid {process['pid']}")


def in_numbers(counts: Counts) -> str:
    """Counts in a line."""
    took = f"p50 {seconds(counts['p50'])}, p99 {seconds(counts['p99'])}"
    return f"{rate(counts['rate'])}/s, {took}, {rate(counts['error_rate'])} errors/s"


def date_and_time(at: float) -> str:
    """A time by this machine's clock, to the second."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(min(max(at, 0.0), 4e9)))


def moment(at: float) -> str:
    """A time of day, to the millisecond."""
    at = min(max(at, 0.0), 4e9)
    return f"{time.strftime('%H:%M:%S', time.localtime(at))}.{int(at * 1000) % 1000:03}"


def rate(number: float) -> str:
    """How often a second."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.1f}"


def seconds(number: float | None) -> str:
    """A time in the unit that suits it."""
    if number is None:
        return NOT_KNOWN
    if number < MILLISECOND:
        return f"{number * 1e6:.0f} µs"
    return f"{number * 1000:.1f} ms" if number < 1 else f"{number:.1f} s"


def counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
