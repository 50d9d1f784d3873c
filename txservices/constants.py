"""Every key of the configuration, every default, and every name on the wire.

Names on the wire say nameko: its services and ours call each other, and this file is why they can.
"""

from __future__ import annotations

# Configuration ----------------------------------------------------------------------------------------------

AMQP_URI_CONFIG_KEY = "AMQP_URI"
AMQP_SSL_CONFIG_KEY = "AMQP_SSL"
LOGIN_METHOD_CONFIG_KEY = "LOGIN_METHOD"
HEARTBEAT_CONFIG_KEY = "HEARTBEAT"
DEFAULT_HEARTBEAT = 60  # seconds; 0 or null for none

SERIALIZER_CONFIG_KEY = "serializer"
DEFAULT_SERIALIZER = "json"
SERIALIZERS_CONFIG_KEY = "SERIALIZERS"
ACCEPT_CONFIG_KEY = "ACCEPT"

MAX_WORKERS_CONFIG_KEY = "max_workers"
DEFAULT_MAX_WORKERS = 10
PREFETCH_COUNT_CONFIG_KEY = "prefetch_count"  # as many messages as workers and 40 more, unless set
PARENT_CALLS_CONFIG_KEY = "parent_calls_tracked"
DEFAULT_PARENT_CALLS_TRACKED = 10
SERVICE_CONTAINER_CLS_CONFIG_KEY = "SERVICE_CONTAINER_CLS"

RPC_EXCHANGE_CONFIG_KEY = "rpc_exchange"
DEFAULT_RPC_EXCHANGE = "nameko-rpc"
AUTO_DELETE_EVENT_EXCHANGES_CONFIG_KEY = "AUTO_DELETE_EVENT_EXCHANGES"
DECLARE_EVENT_EXCHANGES_CONFIG_KEY = "DECLARE_EVENT_EXCHANGES"
QUEUE_TYPE_CONFIG_KEY = "QUEUE_TYPE"
QUEUE_TYPES = ("classic", "quorum")

RPC_TIMEOUT_CONFIG_KEY = "RPC_TIMEOUT"
DEFAULT_RPC_TIMEOUT = 60.0  # seconds for the reply to a call; null for no end
PUBLISH_TIMEOUT_CONFIG_KEY = "PUBLISH_TIMEOUT"
DEFAULT_PUBLISH_TIMEOUT = 30.0  # seconds for the broker's confirm
SHUTDOWN_TIMEOUT_CONFIG_KEY = "SHUTDOWN_TIMEOUT"
DEFAULT_SHUTDOWN_TIMEOUT = 30.0  # seconds for running workers to finish; Kubernetes kills after 30 as well
BROKER_START_TIMEOUT_CONFIG_KEY = "BROKER_START_TIMEOUT"  # seconds to wait for a first connection; null for no end
CONSUMER_TIMEOUT_CONFIG_KEY = "CONSUMER_TIMEOUT"
DEFAULT_CONSUMER_TIMEOUT = 1800.0  # seconds that a broker waits for an ack, as RabbitMQ does unless told otherwise
BLOCKED_REACTOR_TIMEOUT_CONFIG_KEY = "BLOCKED_REACTOR_TIMEOUT"
DEFAULT_BLOCKED_REACTOR_TIMEOUT = 1.0  # seconds that the reactor may be held before the log says by whom

WEB_SERVER_CONFIG_KEY = "WEB_SERVER_ADDRESS"
DEFAULT_WEB_SERVER_ADDRESS = "127.0.0.1:8000"
WEB_BODY_MAX_CONFIG_KEY = "WEB_BODY_MAX"
DEFAULT_WEB_BODY_MAX = 16 * 1024 * 1024  # bytes of a request's body
WEBSOCKET_ORIGINS_CONFIG_KEY = "WEBSOCKET_ORIGINS"  # pages that may connect; those of our own address, unless set
EMBEDDED_BROKER_ADDRESS_CONFIG_KEY = "EMBEDDED_BROKER_ADDRESS"
DEFAULT_EMBEDDED_BROKER_ADDRESS = "127.0.0.1:5672"
LOGGING_CONFIG_KEY = "LOGGING"

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
RPC_ROUTING_KEY_TEMPLATE = "{}.*"  # service; every method of it
RPC_REPLY_QUEUE_TEMPLATE = "rpc.reply-{}-{}"  # service, id
RPC_REPLY_QUEUE_TTL = 300_000  # milliseconds that a reply queue outlives its last consumer, `x-expires`
EVENT_EXCHANGE_TEMPLATE = "{}.events"  # service that dispatches

QUEUE_TYPE_ARGUMENT = "x-queue-type"

# On Python objects ------------------------------------------------------------------------------------------

ENTRYPOINTS_ATTRIBUTE = "txservices_entrypoints"  # of a method: the entrypoints declared on it
