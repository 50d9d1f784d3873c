"""Names on the wire, and nameko's names for the keys of the configuration, whose table is ``configuration``.

Names on the wire say nameko: its services and ours call each other, and this file is why they can.
"""

from __future__ import annotations

from txservices import configuration

__all__ = [
    "ACCEPT_CONFIG_KEY",
    "AMQP_SSL_CONFIG_KEY",
    "AMQP_URI_CONFIG_KEY",
    "AUTH_TOKEN_CONTEXT_KEY",
    "CALL_ID_STACK_CONTEXT_KEY",
    "DEFAULT_HEARTBEAT",
    "DEFAULT_MAX_WORKERS",
    "DEFAULT_PARENT_CALLS_TRACKED",
    "DEFAULT_RETRY_POLICY",
    "DEFAULT_SERIALIZER",
    "ENTRYPOINTS_ATTRIBUTE",
    "EVENT_EXCHANGE_TEMPLATE",
    "HEADER_PREFIX",
    "HEARTBEAT_CONFIG_KEY",
    "LANGUAGE_CONTEXT_KEY",
    "LOGIN_METHOD_CONFIG_KEY",
    "MAX_WORKERS_CONFIG_KEY",
    "NON_PERSISTENT",
    "PARENT_CALLS_CONFIG_KEY",
    "PERSISTENT",
    "PREFETCH_COUNT_CONFIG_KEY",
    "QUEUE_TYPE_ARGUMENT",
    "RPC_EXCHANGE_CONFIG_KEY",
    "RPC_QUEUE_TEMPLATE",
    "RPC_REPLY_QUEUE_TEMPLATE",
    "RPC_REPLY_QUEUE_TTL",
    "RPC_ROUTING_KEY_TEMPLATE",
    "SERIALIZERS_CONFIG_KEY",
    "SERIALIZER_CONFIG_KEY",
    "SINGLE_ACTIVE_ARGUMENT",
    "USER_AGENT_CONTEXT_KEY",
    "USER_ID_CONTEXT_KEY",
    "WEB_SERVER_CONFIG_KEY",
]

# Configuration ----------------------------------------------------------------------------------------------

AMQP_URI_CONFIG_KEY = configuration.AMQP_URI.name
AMQP_SSL_CONFIG_KEY = configuration.AMQP_SSL.name
LOGIN_METHOD_CONFIG_KEY = configuration.LOGIN_METHOD.name
HEARTBEAT_CONFIG_KEY = configuration.HEARTBEAT.name
DEFAULT_HEARTBEAT = configuration.HEARTBEAT.default
SERIALIZER_CONFIG_KEY = configuration.SERIALIZER.name
DEFAULT_SERIALIZER = configuration.SERIALIZER.default
SERIALIZERS_CONFIG_KEY = configuration.SERIALIZERS.name
ACCEPT_CONFIG_KEY = configuration.ACCEPT.name
MAX_WORKERS_CONFIG_KEY = configuration.MAX_WORKERS.name
DEFAULT_MAX_WORKERS = configuration.MAX_WORKERS.default
PREFETCH_COUNT_CONFIG_KEY = configuration.PREFETCH_COUNT.name
PARENT_CALLS_CONFIG_KEY = configuration.PARENT_CALLS_TRACKED.name
DEFAULT_RETRY_POLICY = {"max_retries": 3}  # nameko's, for those who pass it on
DEFAULT_PARENT_CALLS_TRACKED = configuration.PARENT_CALLS_TRACKED.default
RPC_EXCHANGE_CONFIG_KEY = configuration.RPC_EXCHANGE.name
WEB_SERVER_CONFIG_KEY = configuration.WEB_SERVER_ADDRESS.name

# On the wire ------------------------------------------------------------------------------------------------

HEADER_PREFIX = "nameko"  # and a dot, before the key of each value of a worker's context

NON_PERSISTENT = 1  # delivery_mode: gone with the broker's process
PERSISTENT = 2  # written to disk, where the queue is durable

CALL_ID_STACK_CONTEXT_KEY = "call_id_stack"
AUTH_TOKEN_CONTEXT_KEY = "auth_token"
LANGUAGE_CONTEXT_KEY = "language"
USER_ID_CONTEXT_KEY = "user_id"
USER_AGENT_CONTEXT_KEY = "user_agent"

RPC_QUEUE_TEMPLATE = "rpc-{}"  # service
RPC_CANCEL_TEMPLATE = "txservices-cancel.{}"  # routing key of the word that a call to that service is cancelled
RPC_ROUTING_KEY_TEMPLATE = "{}.*"  # service; every method of it
RPC_REPLY_QUEUE_TEMPLATE = "rpc.reply-{}-{}"  # service, id
RPC_REPLY_QUEUE_TTL = 300_000  # milliseconds that a reply queue outlives its last consumer, `x-expires`
EVENT_EXCHANGE_TEMPLATE = "{}.events"  # service that dispatches

QUEUE_TYPE_ARGUMENT = "x-queue-type"
SINGLE_ACTIVE_ARGUMENT = "x-single-active-consumer"

# On Python objects ------------------------------------------------------------------------------------------

ENTRYPOINTS_ATTRIBUTE = "txservices_entrypoints"  # of a method: the entrypoints declared on it

# Headers of a message that is tried again: see ``retry.marks``.
ATTEMPT_HEADER = "txservices-attempt"
FIRST_FAILED_HEADER = "txservices-first-failed"
