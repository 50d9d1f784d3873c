"""The picture of a fleet: what its processes have answered, put together for the page. Pure.

    answers of each round -> Picture.add(...) -> state(): one object for JSON, cut where it would be too long

A process that no longer answers stays in the picture for a while, as gone, and with it its failures.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from operator import itemgetter
from typing import Any

from attrs import define, field

from txservices.monitoring.answers import Answer, Failed, Method, Service, key_of

GONE_KEPT = 600.0  # seconds that a process is shown that does not answer any more
PROCESSES_MAX = 2_000  # processes that are remembered
INSTANCES_SHOWN = 50  # of one service, those with errors and those that are gone first
EDGES_SHOWN = 400
FAILURES_SHOWN = 200  # the latest
FAILURES_KEPT = 100  # of one process, as many as it keeps itself
TREE_SHOWN = 200  # calls around a failure
TEXT_SHOWN = 300  # characters of an error in a list
SKEW = 2.0  # seconds by which a process's clock may differ from ours before its times are corrected
WORKERS = ("running", "waiting", "max_workers")  # keys of a method
MISSED = 2  # rounds without an answer, after which a process is gone


@define
class Seen:
    """A process that has answered.

    Attributes:
        answer: what it has said last, of each kind.
        at: when it did.
        missed: rounds since then.
        ahead: seconds that its clock is before ours.
        failures: its latest, newest first.
        told: the ``failed`` of the process when these were asked for.
    """

    answer: dict[str, Any]
    at: float
    missed: int = 0
    ahead: float = 0.0
    failures: list[Failed] = field(factory=list)
    told: int = 0

    @property
    def status(self) -> str:
        """``up``, ``late`` (it has missed a round) or ``gone``."""
        return "up" if not self.missed else "late" if self.missed < MISSED else "gone"

    @property
    def services(self) -> list[Service]:
        found: list[Service] = self.answer.get("services", [])
        return found

    @property
    def process(self) -> dict[str, Any]:
        process: dict[str, Any] = self.answer["process"]
        return process


class Picture:
    """What is known of all processes.

    Attributes:
        seen: the processes, by their ids.
    """

    def __init__(self) -> None:
        self.seen: dict[str, Seen] = {}

    # In

    def add(self, answers: Iterable[Answer], now: float, whole: bool = True) -> None:
        """Take the answers of a round. ``whole`` says that every process was asked, so that one without is late."""
        heard = set()
        for answer in answers:
            process = answer["process"]
            seen = self.seen.get(process["id"])
            if seen is None:
                seen = self.seen[process["id"]] = Seen({}, now)
            heard.add(process["id"])
            failures = answer.get("failures")
            if failures is not None:
                latest = {each["number"]: each for each in (*seen.failures, *failures)}
                seen.failures = [latest[number] for number in sorted(latest, reverse=True)[:FAILURES_KEPT]]
                seen.told = process["failed"]
            seen.answer.update({key: value for key, value in answer.items() if key != "failures"})
            ahead = process["now"] - now
            seen.at, seen.missed, seen.ahead = now, 0, ahead if abs(ahead) > SKEW else 0.0
        if whole:
            for name, seen in list(self.seen.items()):
                if name not in heard:
                    seen.missed += 1
                    if now - seen.at > GONE_KEPT:
                        del self.seen[name]
        if len(self.seen) > PROCESSES_MAX:
            oldest = sorted(self.seen.items(), key=lambda item: item[1].at)
            for name, _ in oldest[: len(self.seen) - PROCESSES_MAX]:
                del self.seen[name]

    def with_new_failures(self) -> list[str]:
        """The ids of the processes that have had failures which are not known here."""
        return [name for name, seen in self.seen.items() if not seen.missed and seen.told < seen.process["failed"]]

    def services_unknown(self) -> bool:
        """Whether a process answers of which nobody knows yet what its services are."""
        return any("services" not in seen.answer for seen in self.seen.values())

    # Out

    def state(self) -> dict[str, Any]:
        """All of it for the page, but for the queues."""
        services: dict[str, list[Seen]] = {}
        for seen in self.seen.values():
            for name in seen.process["services"]:
                services.setdefault(name, []).append(seen)
        failures = sorted(self.causes(), key=itemgetter("at"), reverse=True)
        edges = sorted(self.edges(), key=lambda edge: (-edge["rate"], edge["from"], edge["to"]))
        statuses = [seen.status for seen in self.seen.values()]
        return {
            "processes": {status: statuses.count(status) for status in ("up", "late", "gone")},
            "services": [service_of(name, services[name]) for name in sorted(services)],
            "edges": edges[:EDGES_SHOWN],
            "more_edges": max(len(edges) - EDGES_SHOWN, 0),
            "failures": failures[:FAILURES_SHOWN],
            "more_failures": max(len(failures) - FAILURES_SHOWN, 0),
        }

    def causes(self) -> Iterable[dict[str, Any]]:
        """The failures that no failure of a further call has led to, each with the calls above it that failed, too."""
        known = self.failed_calls()
        above = {over for failed, _ in known.values() for over in failed["call_id_stack"][:-1]}
        for name, (failed, seen) in known.items():
            if name not in above:
                over = [known[each][0] for each in reversed(failed["call_id_stack"][:-1]) if each in known]
                names = [{"service": each["service"], "method": each["method"]} for each in over]
                yield {**brief(failed, seen), "above": names}

    def failed_calls(self) -> dict[str, tuple[Failed, Seen]]:
        """All failures that are known, by the ids of the calls that failed."""
        return {
            failed["call_id_stack"][-1]: (failed, seen)
            for seen in self.seen.values()
            for failed in seen.failures
            if failed["call_id_stack"]
        }

    def edges(self) -> list[dict[str, Any]]:
        """Who calls whom, who has a proxy for whom, and whose events are heard by whom: one edge for each pair."""
        pairs: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
        for seen in self.seen.values():
            for service in seen.services:
                for target in service["targets"]:
                    pairs.setdefault((service["service"], target, "rpc"), [])
            there = seen.status != "gone"
            for edge in seen.answer.get("edges", ()) if there else ():
                if edge["method"]:
                    pairs.setdefault((edge["service"], edge["target"], "rpc"), []).append(edge)
            counted = {(each["service"], each["method"]): each for each in seen.answer.get("methods", ())}
            for service in seen.services:
                for method in service["methods"]:
                    if method["entrypoint"] == "EventHandler":
                        heard = counted.get((service["service"], method["method"]))
                        pair = source_of(method), service["service"], "event"
                        pairs.setdefault(pair, []).extend([heard] if there and heard is not None else [])
        return [
            {"from": source, "to": target, "kind": kind, **together(counts), "methods": names_in(counts)}
            for (source, target, kind), counts in pairs.items()
        ]

    def entrypoints(self) -> Iterator[tuple[str, Method]]:
        """Every entrypoint, with the name of its service; once for each process."""
        for seen in self.seen.values():
            for service in seen.services:
                for method in service["methods"]:
                    yield service["service"], method

    def failure(self, call_id: str) -> dict[str, Any] | None:
        """A failure with all that is known of it, and the tree of the calls around it."""
        known = self.failed_calls()
        if call_id not in known:
            return None
        failed, seen = known[call_id]
        tree, more = tree_of(call_id, known)
        return {
            **failed,
            **brief(failed, seen),
            "text": failed["text"],
            "stack": failed["call_id_stack"],
            "tree": tree,
            "more_calls": more,
        }


# A service ------------------------------------------------------------------------------------------------------------


def service_of(name: str, processes: list[Seen]) -> dict[str, Any]:
    """A service, put together of all processes that have it."""
    instances = [instance_of(name, seen) for seen in processes]
    up = [instance for instance in instances if instance["status"] != "gone"]
    latest = max((seen for seen in processes), key=lambda seen: (not seen.missed, seen.at))
    said = next((each for each in latest.services if each["service"] == name), None)
    methods = said["methods"] if said is not None else []
    counted = [
        each
        for seen in processes
        if seen.status != "gone"
        for each in seen.answer.get("methods", ())
        if each["service"] == name
    ]
    workers = workers_of(name, [seen for seen in processes if seen.status != "gone"])
    return {
        "name": name,
        "doc": said["doc"] if said is not None else "",
        "up": len(up),
        "gone": len(instances) - len(up),
        "versions": sorted({instance["version"] for instance in up} - {""}),
        **together(counted),
        "running": sum(instance["running"] for instance in up),
        "waiting": sum(instance["waiting"] for instance in up),
        "max_workers": sum(instance["max_workers"] for instance in up),
        "instances": sorted(instances, key=first_those_in_trouble)[:INSTANCES_SHOWN],
        "more_instances": max(len(instances) - INSTANCES_SHOWN, 0),
        "methods": [
            {
                **method,
                **together([each for each in counted if each["method"] == method["method"]]),
                **{key: workers[key_of(method)][key] for key in WORKERS},
            }
            for method in methods
        ],
        "tells": sorted(
            {
                event
                for seen in processes
                for each in seen.services
                if each["service"] == name
                for event in each["events"]
            }
        ),
    }


def workers_of(name: str, processes: Iterable[Seen]) -> Mapping[tuple[str, str, str], Counter[str]]:
    """How many workers of each method of a service run, wait, and may run if it has a limit, in all processes."""
    found: defaultdict[tuple[str, str, str], Counter[str]] = defaultdict(Counter)
    for service in (each for seen in processes for each in seen.services if each["service"] == name):
        for method in service["methods"]:
            found[key_of(method)].update({key: method.get(key, 0) for key in WORKERS})
    return found


def instance_of(name: str, seen: Seen) -> dict[str, Any]:
    process = seen.process
    said: Mapping[str, Any] = next((each for each in seen.services if each["service"] == name), {})
    return {
        "id": process["id"],
        "host": process["host"],
        "pid": process["pid"],
        "since": process["since"] - seen.ahead,
        "status": seen.status,
        "seen": seen.at,
        "state": said.get("state", ""),
        "not_ready": said.get("not_ready", ""),
        "version": said.get("version", ""),
        "txservices": process["txservices"],
        "running": said.get("running", 0),
        "waiting": said.get("waiting", 0),
        "max_workers": said.get("max_workers", 0),
        **together([each for each in seen.answer.get("methods", ()) if each["service"] == name]),
    }


def first_those_in_trouble(instance: Mapping[str, Any]) -> Any:
    fine = instance["status"] == "up" and not instance["not_ready"]
    return fine, -instance["error_rate"], instance["host"], instance["pid"]


def together(counts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Counts of several. The median is a mean of theirs, by their rates; the 99th percentile is the slowest one's."""
    all_of_them = list(counts)
    timed = [each for each in all_of_them if each["p50"] is not None]
    weight = sum(each["rate"] for each in timed)
    median = None
    if timed:
        weighed = [(each["p50"], each["rate"] if weight else 1) for each in timed]
        median = sum(value * rate for value, rate in weighed) / sum(rate for _, rate in weighed)
    busy = [each for each in timed if each["rate"]] or timed
    return {
        "count": sum(each["count"] for each in all_of_them),
        "errors": sum(each["errors"] for each in all_of_them),
        "rate": sum(each["rate"] for each in all_of_them),
        "error_rate": sum(each["error_rate"] for each in all_of_them),
        "p50": median,
        "p99": max((each["p99"] for each in busy if each["p99"] is not None), default=None),
    }


def names_in(counts: Iterable[Mapping[str, Any]]) -> list[str]:
    return sorted({each["method"] for each in counts})


def source_of(method: Method) -> str:
    """The service whose events a method hears. Its name may have dots."""
    return method.get("source") or method["on"].partition(".")[0]


# A failure ------------------------------------------------------------------------------------------------------------


def brief(failed: Failed, seen: Seen) -> dict[str, Any]:
    """A failure for a list."""
    text = failed["text"]
    return {
        "id": failed["call_id_stack"][-1],
        "at": failed["at"] - seen.ahead,
        "service": failed["service"],
        "method": failed["method"],
        "outcome": failed["outcome"],
        "seconds": failed["seconds"],
        "error": failed["error"],
        "text": text if len(text) <= TEXT_SHOWN else f"{text[:TEXT_SHOWN]}…",
        "host": seen.process["host"],
        "pid": seen.process["pid"],
    }


def tree_of(call_id: str, known: Mapping[str, tuple[Failed, Seen]]) -> tuple[dict[str, Any], int]:
    """The calls that led to a failed one, and those that came of them and failed, too: each with those below it.

    Also gives how many more there are.
    """
    above: dict[str, str] = {}
    for failed, _ in known.values():
        above.update((below, over) for over, below in pairwise(failed["call_id_stack"]))
    root, passed = call_id, {call_id}
    while root in above and above[root] not in passed:  # a stranger's stack may lead in a circle
        root = above[root]
        passed.add(root)
    calls: dict[str, list[str]] = {}
    for below, over in above.items():
        calls.setdefault(over, []).append(below)
    # Its own ancestors first: they are shown however many others there are.
    drawn: dict[str, dict[str, Any]] = {}
    around = list(dict.fromkeys([*reversed(passed_to(call_id, root, above)), *below_of(root, calls)]))
    for name in around[:TREE_SHOWN]:
        failed_here = known.get(name)
        service, method = parts_of(name)
        drawn[name] = {
            "id": name,
            "service": service,
            "method": method,
            "meant": name == call_id,
            "failure": None if failed_here is None else brief(*failed_here),
            "calls": [],
        }
        if name != root:
            drawn[above[name]]["calls"].append(drawn[name])
    return drawn[root], len(around) - len(drawn)


def passed_to(name: str, root: str, above: Mapping[str, str]) -> list[str]:
    """A call and those above it, up to the root."""
    passed = [name]
    while passed[-1] != root:
        passed.append(above[passed[-1]])
    return passed


def below_of(root: str, calls: Mapping[str, list[str]]) -> Iterator[str]:
    """All calls below one, each after the one above it."""
    left, seen = [root], {root}
    while left:
        name = left.pop(0)
        for below in calls.get(name, ()):
            if below not in seen:
                seen.add(below)
                left.append(below)
                yield below


def parts_of(call_id: str) -> tuple[str, str]:
    """The service and the method that a call id begins with."""
    service, method, *_ = (*call_id.rsplit(".", 2), "", "")
    return service, method
