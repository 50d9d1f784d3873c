"""nameko's extension packages: which run with --nameko, which want a change, and which can't. Pure."""

from __future__ import annotations

from txservices.migration.checking.findings import Group

SEQUENCE = "write `collections.Sequence = collections.abc.Sequence` before its import: Python 3.10 took that away"
VIEWS = "have txservices.migration.imports.install() called before its import, or use standalone.blocking in its place"

# The top-level module of a package -> its group, and what to know of it.
PACKAGES: dict[str, tuple[Group, str]] = {
    "nameko_amqp_retry": (Group.WITH_NAMEKO, "retry=Retry(...) of the entrypoint does it, too: docs/retries.md"),
    "nameko_bayeux_client": (Group.CHANGE, SEQUENCE),
    "nameko_salesforce": (Group.CHANGE, SEQUENCE),
    "nameko_opentelemetry": (Group.CHANGE, "instrument entrypoints, events and messaging: docs/migrating.md says how"),
    "nameko_injector": (Group.CANNOT, "it looks into eventlet.corolocal: run that service under nameko"),
    "flask_nameko": (Group.CHANGE, VIEWS),
    "django_nameko": (Group.CHANGE, VIEWS),
    "nameko_prometheus": (Group.WITH_NAMEKO, "OPS_ADDRESS serves metrics without it: docs/operating.md"),
    "nameko_tracer": (Group.WITH_NAMEKO, "TRACES makes spans without it: docs/tracing.md"),
    "nameko_sentry": (Group.WITH_NAMEKO, "an observer of ten lines does this, too: docs/observers.md"),
    "nameko_statsd": (Group.WITH_NAMEKO, "an observer of ten lines does this, too: docs/observers.md"),
}
UNKNOWN = (Group.WITH_NAMEKO, "its hooks run in threads: try it by its own tests, with pytest --nameko")


def known(module: str) -> tuple[Group, str] | None:
    """What is known of a third-party package by its top-level module; None if it is not one of nameko's."""
    if module in PACKAGES:
        return PACKAGES[module]
    return UNKNOWN if module.startswith("nameko_") or module.endswith("_nameko") else None
