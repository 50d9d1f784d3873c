"""Answers of processes that there are not, for the picture and the page."""

from __future__ import annotations

from typing import Any, cast

from txservices.monitoring.answers import Answer, Counts, Failed, Method, Service

BEGUN = 1_000_000.0  # when all processes have begun


def counts(rate: float = 0.0, error_rate: float = 0.0, p50: float | None = None, p99: float | None = None) -> Counts:
    return {
        "count": round(rate * 60),
        "errors": round(error_rate * 60),
        "rate": rate,
        "error_rate": error_rate,
        "p50": p50,
        "p99": p99,
    }


def method(name: str, entrypoint: str = "Rpc", on: str = "") -> Method:
    return {"method": name, "entrypoint": entrypoint, "on": on, "signature": "(value)", "doc": f"Does {name}."}


def service(name: str, *methods: Method, targets: list[str] | None = None, events: list[str] | None = None) -> Service:
    return {
        "service": name,
        "version": "1.0",
        "doc": f"The service {name}.",
        "state": "running",
        "max_workers": 10,
        "running": 1,
        "waiting": 2,
        "methods": list(methods),
        "events": events or [],
        "targets": targets or [],
    }


def answer(pid: int, *services: Service, now: float = BEGUN + 60, failed: int = 0, **more: Any) -> Answer:
    """The answer of a process with that number."""
    process = {
        "id": f"process-{pid}",
        "host": "here",
        "pid": pid,
        "since": BEGUN,
        "now": now,
        "txservices": "0.1.0",
        "python": "3.11",
        "services": [each["service"] for each in services],
        "failed": failed,
    }
    told = {"version": 1, "process": process, "services": list(services), "counting": 60.0, "window": 10.0}
    return cast(Answer, {**told, "methods": [], "edges": [], **more})


def called(service: str, name: str, entrypoint: str = "Rpc", **numbers: Any) -> dict[str, Any]:
    return {"service": service, "method": name, "entrypoint": entrypoint, **counts(**numbers)}


def edge(service: str, target: str, name: str, **numbers: Any) -> dict[str, Any]:
    return {"service": service, "target": target, "method": name, **counts(**numbers)}


def failure(number: int, *stack: str, at: float = BEGUN + 50, text: str = "no", error: str = "ValueError") -> Failed:
    """The failure of the last call of a stack of call ids."""
    name, method, _ = stack[-1].rsplit(".", 2)
    return {
        "number": number,
        "at": at,
        "service": name,
        "method": method,
        "entrypoint": "Rpc",
        "outcome": "error",
        "seconds": 0.1,
        "error": error,
        "text": text,
        "traceback": f"Traceback\n{error}: {text}",
        "arguments": {"value": "1"},
        "call_id_stack": list(stack),
    }


def three_hundred() -> list[Answer]:
    """The answers of three hundred processes of thirty services, each of which calls every other one."""
    names = [f"service_{number:02}" for number in range(30)]
    answers = []
    for pid in range(300):
        name = names[pid % 30]
        edges = [edge(name, other, "find", rate=1.0 + pid, p50=0.01, p99=0.02) for other in names if other != name]
        methods = [called(name, "find", rate=20.0, p50=0.01, p99=0.02)]
        answers.append(answer(pid, service(name, method("find")), edges=edges, methods=methods))
    return answers
