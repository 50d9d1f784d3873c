"""nameko's names: each can be imported from where nameko has it, with ``txservices`` in place of ``nameko``."""

from __future__ import annotations

import os
from importlib import import_module

from twisted.trial.unittest import SynchronousTestCase

from tests.processes import ROOT
from txservices.containers import ServiceContainer
from txservices.runners import ServiceRunner

NAMES = {
    "containers": "ServiceContainer WorkerContext get_container_cls get_service_name new_call_id",
    "runners": "ServiceRunner run_services",
    "extensions": "DependencyProvider Entrypoint Extension ProviderCollector SharedExtension is_dependency"
    " is_entrypoint is_extension iter_extensions register_entrypoint",
    "rpc": "Client ClusterRpc MethodProxy ReplyListener Responder Rpc RpcCall RpcConsumer RpcProxy RpcReply"
    " ServiceProxy ServiceRpc rpc",
    "events": "BROADCAST EventDispatcher EventHandler EventHandlerConfigurationError SERVICE_POOL SINGLETON"
    " event_handler get_event_exchange",
    "messaging": "Consumer HeaderDecoder HeaderEncoder Publisher QueueConsumer consume decode_from_headers"
    " encode_to_headers",
    "amqp.publish": "Publisher UndeliverableMessage",
    "amqp.consume": "Consumer",
    "web.handlers": "HttpRequestHandler http",
    "web.server": "WebServer parse_address",
    "web.websocket": "WebSocketHubProvider WebSocketRpc rpc",
    "timer": "Timer timer",
    "standalone.rpc": "ClusterRpcClient ClusterRpcProxy ServiceRpcClient ServiceRpcProxy",
    "standalone.events": "event_dispatcher get_event_exchange",
    "dependency_providers": "Config",
    "contextdata": "AuthToken ContextDataProvider Language UserAgent UserId",
    "constants": "AMQP_URI_CONFIG_KEY DEFAULT_MAX_WORKERS DEFAULT_RETRY_POLICY HEADER_PREFIX NON_PERSISTENT PERSISTENT"
    " WEB_SERVER_CONFIG_KEY",
    "exceptions": "BadRequest CommandError ConfigurationError ConnectionNotFound ContainerBeingKilled"
    " ExtensionNotFound IncorrectSignature MalformedRequest MethodNotFound RemoteError"
    " ReplyQueueExpiredWithPendingReplies RpcTimeout UnknownService UnserializableValueError deserialize"
    " deserialize_to_instance get_module_path registry safe_for_serialization serialize",
    "utils": "get_redacted_args import_from_path sanitize_url",
    "utils.retry": "retry",
    "utils.concurrency": "SpawningProxy SpawningSet fail_fast_imap",
    "log_helpers": "make_timing_logger",
    "testing.services": "EntrypointWaiterTimeout dummy entrypoint_hook entrypoint_waiter get_extension once"
    " replace_dependencies restrict_entrypoints worker_factory",
    "testing.utils": "ANY_PARTIAL AnyInstanceOf DummyProvider ResourcePipeline assert_stops_raising find_free_port"
    " get_container get_extension get_rabbit_connections reset_rabbit_connections unpack_mock_call wait_for_call"
    " wait_for_worker_idle",
    "testing.waiting": "WaitResult wait_for_call",
    "testing.rabbit": "Client HTTPError",
    "testing.websocket": "make_virtual_socket",
    "testing.pytest": "amqp_uri container_factory empty_config get_message_from_queue mock_container"
    " predictable_call_ids rabbit_config rabbit_manager rabbit_ssl_config rabbit_ssl_options rabbit_ssl_uri"
    " rabbit_uri runner_factory vhost_pipeline web_config web_config_port web_session websocket",
}

ATTRIBUTES = {
    "containers.WorkerContext": "call_id call_id_stack config context_data data immediate_parent_call_id"
    " origin_call_id service_name",
    "extensions.Extension": "bind is_bound kill setup start stop",
    "extensions.DependencyProvider": "get_dependency worker_result worker_setup worker_teardown",
    "extensions.Entrypoint": "check_signature decorator",
    "extensions.ProviderCollector": "register_provider stop unregister_provider wait_for_providers",
    "rpc.Rpc": "handle_result",
    "rpc.RpcProxy": "publisher_cls",
    "events.EventDispatcher": "publisher_cls",
    "events.EventHandler": "broadcast_identifier",
    "messaging.Publisher": "get_message_headers header_prefix publisher_cls",
    "messaging.Consumer": "handle_message handle_result header_prefix unpack_message_headers",
    "messaging.QueueConsumer": "ack_message register_provider requeue_message unregister_provider",
    "web.handlers.HttpRequestHandler": "get_entrypoint_parameters get_url_rule handle_request"
    " response_from_exception response_from_result",
    "web.server.WebServer": "context_data_from_headers",
    "testing.services.entrypoint_waiter": "Timeout",
    "testing.waiting.WaitResult": "NotReady get",
}

CONTAINER = """accept config dependencies entrypoints extensions interface kill max_workers serializer service_cls
service_name shared_extensions spawn_managed_thread spawn_worker start started stop subextensions wait"""
RUNNER = "add_service containers kill service_names start stop wait"

# Those that mean nothing here: docs/nameko.md says which, and why.
NOT_HERE = {
    "messaging": "QueueConsumerStopped",
    "amqp.publish": "get_connection get_producer",
    "standalone.rpc": "SingleThreadedReplyListener",
    "testing.pytest": "fast_teardown",
}
NO_ATTRIBUTES = {"web.server.WebServer": "get_wsgi_app get_wsgi_server"}


class Service:
    """Any."""

    name = "service"


class Names(SynchronousTestCase):
    """The names that nameko's users import, and what they find on them."""

    def missing(self, module: str, names: str, attribute_of: str = "") -> list[str]:
        there = import_module(f"txservices.{module}")
        thing = getattr(there, attribute_of) if attribute_of else there
        return [f"{module}.{name}" for name in names.split() if not hasattr(thing, name)]

    def test_names(self) -> None:
        """Each name is where nameko has it."""
        for module, names in NAMES.items():
            self.assertEqual(self.missing(module, names), [])

    def test_attributes(self) -> None:
        """The methods that users call or override are there, too."""
        for dotted, names in ATTRIBUTES.items():
            module, _, name = dotted.rpartition(".")
            self.assertEqual(self.missing(module, names, name), [], dotted)
        for thing, names in ((ServiceContainer(Service, {}), CONTAINER), (ServiceRunner({}), RUNNER)):
            self.assertEqual([name for name in names.split() if not hasattr(thing, name)], [], repr(thing))

    def test_not_here(self) -> None:
        """A name that can mean nothing without eventlet and kombu is not there, and docs/nameko.md says so."""
        with open(os.path.join(ROOT, "docs", "nameko.md"), encoding="utf-8") as file:
            page = file.read()
        for module, names in NOT_HERE.items():
            self.assertEqual(len(self.missing(module, names)), len(names.split()), module)
        for dotted, names in NO_ATTRIBUTES.items():
            module, _, name = dotted.rpartition(".")
            self.assertEqual(len(self.missing(module, names, name)), len(names.split()), dotted)
        for names in (*NOT_HERE.values(), *NO_ATTRIBUTES.values()):
            for name in names.split():
                self.assertIn(f"`{name}", page)
