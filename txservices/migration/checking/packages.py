"""nameko's extension packages: which run with --nameko, which want a change, and which can't. Pure."""

from __future__ import annotations

from txservices.migration.checking.findings import Group

# The top-level module of a package -> its group, and what to know of it.
PACKAGES: dict[str, tuple[Group, str]] = {
    "nameko_amqp_retry": (Group.WITH_NAMEKO, "retry=Retry(...) of the entrypoint does it, too: docs/retries.md"),
    "nameko_grpc": (Group.CANNOT, "its HTTP/2 server is written on eventlet's sockets: run that service under nameko"),
    "flask_nameko": (Group.CHANGE, "use txservices.standalone.blocking.ClusterRpcProxy in views: it may be shared"),
    "django_nameko": (Group.CHANGE, "use txservices.standalone.blocking.ClusterRpcProxy in views: it may be shared"),
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
