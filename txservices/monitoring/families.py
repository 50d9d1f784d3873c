"""Every metric that a process has: docs/operating.md has the same table, and a test compares both. Pure.

Names and labels are those of OpenTelemetry's semantic conventions where they have one, as Prometheus writes them.
"""

from __future__ import annotations

from txservices.monitoring.series import Family

__all__ = ["FAMILIES"]

RPC = (("rpc_system_name", "nameko"),)
MESSAGING = (("messaging_system", "rabbitmq"),)
METHOD = ("service_name", "method", "entrypoint")
QUEUE = "messaging_destination_name"

FAMILIES: list[Family] = []


def family(
    name: str,
    kind: str,
    unit: str,
    labels: tuple[str, ...],
    meaning: str,
    open: tuple[str, ...] = (),
    fixed: tuple[tuple[str, str], ...] = (),
) -> Family:
    made = Family(name, kind, unit, labels, meaning, open, fixed)
    FAMILIES.append(made)
    return made


INFO = family("txservices_info", "gauge", "1", ("version",), "The version of txservices that runs; always 1.")
READY = family(
    "txservices_ready", "gauge", "0 or 1", ("service_name",), "Whether the service can do its work now: see /readyz."
)

# Workers

RPC_SERVER = family(
    "rpc_server_call_duration_seconds",
    "histogram",
    "seconds",
    (*METHOD, "outcome", "rpc_method", "error_type"),
    "Workers of RPC methods, and how long they ran.",
    fixed=RPC,
)
PROCESS = family(
    "messaging_process_duration_seconds",
    "histogram",
    "seconds",
    (*METHOD, "outcome", "error_type"),
    "Workers that handled an event or another message, and how long they ran.",
    fixed=(*MESSAGING, ("messaging_operation_name", "process")),
)
WORKER = family(
    "txservices_worker_duration_seconds",
    "histogram",
    "seconds",
    (*METHOD, "outcome", "error_type"),
    "All other workers (of HTTP, timers, WebSockets, entrypoints of your own), and how long they ran.",
)
WAITED = family(
    "txservices_worker_wait_seconds_total",
    "counter",
    "seconds",
    METHOD,
    "The waits of all workers that have ended, for their turn and for long bodies, together.",
)
RUNNING = family("txservices_workers_running", "gauge", "workers", METHOD, "Workers that run now.")
WAITING = family("txservices_workers_waiting", "gauge", "workers", METHOD, "Workers that wait for their turn now.")
WORKERS_MAX = family(
    "txservices_workers_limit", "gauge", "workers", ("service_name",), "How many workers of the service may run."
)
THREADS_BUSY = family(
    "txservices_threads_busy", "gauge", "threads", (), "Threads of the reactor's pool that do something now."
)
THREADS_MAX = family("txservices_threads_limit", "gauge", "threads", (), "How many threads that pool may have.")
REACTOR_DELAY = family(
    "txservices_reactor_delay_seconds",
    "histogram",
    "seconds",
    (),
    "How late a timer of the reactor fires, asked four times a second: how long something held the reactor.",
)

# Calls

RPC_CLIENT = family(
    "rpc_client_call_duration_seconds",
    "histogram",
    "seconds",
    ("service_name", "service_peer_name", "rpc_method", "outcome", "error_type"),
    "Calls of other services, and how long their answer took. Timeouts are those with the outcome `timeout`.",
    open=("service_peer_name", "rpc_method"),
    fixed=RPC,
)
PENDING = family(
    "txservices_rpc_client_calls_pending", "gauge", "calls", ("service_name",), "Calls that have no answer yet."
)
CIRCUIT = family(
    "txservices_circuit_state",
    "gauge",
    "0 or 1",
    ("service_name", "service_peer_name", "state"),
    "Whether the circuit breaker for calls of a service is in that state: `closed`, `open` or `half-open`.",
    open=("service_peer_name",),
)

HTTP_CLIENT = family(
    "http_client_request_duration_seconds",
    "histogram",
    "seconds",
    ("service_name", "http_request_method", "server_address", "http_response_status_code", "error_type"),
    "Requests to other HTTP servers by an `HttpClient`, each attempt, and how long their answer took.",
    open=("server_address",),
)

# Messages

EVENTS = family(
    "txservices_events_dispatched_total",
    "counter",
    "events",
    ("service_name", "event_type"),
    "Events that were dispatched. Those handled are the count of `messaging_process_duration_seconds`.",
    open=("event_type",),
)
PUBLISHED = family(
    "messaging_client_operation_duration_seconds",
    "histogram",
    "seconds",
    (QUEUE, "error_type"),
    "Messages published to an exchange, requests and replies too, and how long the broker's confirm took.",
    open=(QUEUE,),
    fixed=(*MESSAGING, ("messaging_operation_name", "publish")),
)
UNCONFIRMED = family(
    "txservices_unconfirmed_messages", "gauge", "messages", (), "Messages that the broker has not confirmed yet."
)
UNCONFIRMED_BYTES = family("txservices_unconfirmed_bytes", "gauge", "bytes", (), "The bytes of these messages.")
UNACKED = family(
    "txservices_messages_unacked",
    "gauge",
    "messages",
    ("service_name",),
    "Messages that the process has taken and not settled: the prefetched ones that wait, and those in work.",
)
PREFETCHED_BYTES = family(
    "txservices_prefetched_bytes", "gauge", "bytes", ("service_name",), "The bytes of their bodies."
)
PREFETCH_MAX = family(
    "txservices_prefetch_limit",
    "gauge",
    "messages",
    ("service_name",),
    "How many messages the broker may give to the service's consumers before some are settled.",
)
REJECTED = family(
    "txservices_messages_rejected_total",
    "counter",
    "messages",
    (QUEUE, "requeued"),
    "Messages that were given back to the broker: to be delivered again (`true`), or not (`false`).",
    open=(QUEUE,),
)
RETRIED = family(
    "txservices_messages_retried_total",
    "counter",
    "messages",
    (QUEUE,),
    "Messages whose handling failed and that come again later, each time.",
    open=(QUEUE,),
)
PARKED = family(
    "txservices_messages_parked_total",
    "counter",
    "messages",
    (QUEUE, "error_type"),
    "Messages that were put into a parking queue: `txservices parked` shows them.",
    open=(QUEUE, "error_type"),
)

# The broker

CONSUMERS_UP = family(
    "txservices_consumers_up", "gauge", "consumers", ("service_name",), "Queues that the broker delivers from."
)
CONSUMERS_WANTED = family(
    "txservices_consumers_wanted",
    "gauge",
    "consumers",
    ("service_name",),
    "Queues that the service wants messages from. It is not ready while fewer are up.",
)
CONNECTION_UP = family(
    "txservices_connection_up", "gauge", "0 or 1", ("connection",), "Whether a connection to the broker is open."
)
BLOCKED = family(
    "txservices_connection_blocked",
    "gauge",
    "0 or 1",
    ("connection",),
    "Whether the broker takes no messages on it now, for a memory or disk alarm.",
)
RECONNECTS = family(
    "txservices_reconnects_total",
    "counter",
    "connections",
    ("connection",),
    "How often a connection that was lost has come back.",
)

# The web

HTTP = family(
    "http_server_request_duration_seconds",
    "histogram",
    "seconds",
    ("http_request_method", "http_route", "http_response_status_code", "error_type", "url_scheme"),
    "HTTP requests, and how long they took. Those of URLs that nobody serves have no `http_route`.",
)
SOCKETS = family("txservices_websocket_clients", "gauge", "clients", (), "Clients that are connected by a WebSocket.")
