"""Describes a service as it is written: its methods, what calls them, and what it calls."""

from __future__ import annotations

import inspect
import sys
from collections import Counter
from typing import Any

from txservices.monitoring.answers import Method, Service

__all__ = ["by_entrypoint", "service_of"]

DOC_MAX = 2_000  # characters of a docstring, and of the reasons why a service is not ready
SIGNATURE_MAX = 500  # characters of a signature
METHODS_MAX = 1_000  # entrypoints of a service


def service_of(container: Any, events: set[str]) -> Service:
    """The service of a container. ``events`` are the types of those that it is known to have told."""
    cls = container.service_cls
    targets = {getattr(each, "target_service", None) for each in container.dependencies}
    running, waiting = by_entrypoint(container.workers)
    methods = [method_of(container, each) for each in container.entrypoints[:METHODS_MAX]]
    for entrypoint, method in zip(container.entrypoints, methods, strict=False):
        method["running"], method["waiting"] = running[entrypoint], waiting[entrypoint]
    return {
        "service": container.service_name,
        "version": version_of(cls),
        "doc": doc_of(cls),
        "state": container.life.state.value,
        "not_ready": "\n".join(container.not_ready())[:DOC_MAX],
        "max_workers": container.workers.places,
        "running": container.workers.under_way,
        "waiting": container.workers.waiting,
        "methods": methods,
        "events": sorted(events),
        "targets": sorted(each for each in targets if isinstance(each, str)),
    }


def by_entrypoint(workers: Any) -> tuple[Counter[Any], Counter[Any]]:
    """How many workers run, and how many wait for their turn, of each entrypoint."""
    lines = set(workers.lines.values())  # entrypoints may share one
    running = Counter(each.worker.entrypoint for each in workers.pending.values())
    return running, Counter(turn.entrypoint for line in lines for turn in line.queued)


def version_of(cls: type[Any]) -> str:
    module = sys.modules.get(cls.__module__)
    for version in (getattr(cls, "version", None), getattr(module, "__version__", None)):
        if isinstance(version, str):
            return version[:SIGNATURE_MAX]
    return ""


def doc_of(thing: Any) -> str:
    return (inspect.getdoc(thing) or "")[:DOC_MAX] if getattr(thing, "__doc__", None) else ""


def method_of(container: Any, entrypoint: Any) -> Method:
    function = getattr(container.service_cls, entrypoint.method_name)
    source = getattr(entrypoint, "source_service", None)
    told: Method = {
        "method": entrypoint.method_name,
        "entrypoint": type(entrypoint).__name__,
        "on": on(entrypoint),
        "signature": signature_of(function),
        "doc": doc_of(function),
        "queue": queue_of(entrypoint),
    }
    if isinstance(source, str):
        told["source"] = source
    if isinstance(getattr(entrypoint, "max_workers", None), int):
        told["max_workers"] = entrypoint.max_workers
    return told


def queue_of(entrypoint: Any) -> str:
    """The queue of an entrypoint's messages. The queue of RPC methods is their consumer's."""
    queue = getattr(getattr(entrypoint, "rpc_consumer", entrypoint), "queue", None)
    name = getattr(queue, "name", None)
    return name if isinstance(name, str) and not getattr(queue, "exclusive", False) else ""


def signature_of(function: Any) -> str:
    try:
        try:
            signature = inspect.signature(function, eval_str=True)
        except Exception:  # a name that only type checkers know
            signature = inspect.signature(function)
        _, *parameters = signature.parameters.values()  # without self
        return str(signature.replace(parameters=parameters))[:SIGNATURE_MAX]
    except Exception:  # a default may be of any class, and its repr raise anything
        return "(…)"


def on(entrypoint: Any) -> str:
    """What calls an entrypoint, in a word or two. An entrypoint of an unknown kind has none of these."""
    source, event = getattr(entrypoint, "source_service", None), getattr(entrypoint, "event_type", None)
    url, method = getattr(entrypoint, "url", None), getattr(entrypoint, "method", None)
    interval = getattr(entrypoint, "interval", None)
    queue = getattr(getattr(entrypoint, "queue", None), "name", None)
    if isinstance(source, str) and isinstance(event, str):
        text = f"{source}.{event}"
    elif isinstance(url, str):
        text = f"{method} {url}" if isinstance(method, str) else url
    elif isinstance(interval, (int, float)):
        text = f"{interval:g}"
    else:
        text = queue if isinstance(queue, str) else ""
    return text[:SIGNATURE_MAX]
