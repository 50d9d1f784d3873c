"""A RabbitMQ with its management and a port for TLS: for the helpers that ask for them. One for the whole run."""

from __future__ import annotations

import os
import socket

import trustme

from tests import rabbitmq

PLUGINS = "[rabbitmq_management]."
CONFIG = """\
management.tcp.ip = 127.0.0.1
management.tcp.port = {api_port}
listeners.ssl.1 = 127.0.0.1:{ssl_port}
ssl_options.cacertfile = {folder}/ca.pem
ssl_options.certfile = {folder}/server.pem
ssl_options.keyfile = {folder}/server.pem
ssl_options.verify = verify_peer
ssl_options.fail_if_no_peer_cert = true
"""


class ManagedNode(rabbitmq.Node):
    """Its data, and what a client is told of it.

    Attributes:
        api_uri: of the management.
        certificates: the folder with ``ca.pem`` and, for a client, ``client.pem``.
    """

    def __init__(self) -> None:
        super().__init__("managed")
        self.ssl_port = rabbitmq.free_port()
        self.api_port = rabbitmq.free_port()
        self.api_uri = f"http://guest:guest@127.0.0.1:{self.api_port}"
        self.certificates = self.folder
        authority = trustme.CA()
        authority.cert_pem.write_to_path(self.path("ca.pem"))
        authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(self.path("server.pem"))
        authority.issue_cert("client").private_key_and_cert_chain_pem.write_to_path(self.path("client.pem"))
        config = CONFIG.format(api_port=self.api_port, ssl_port=self.ssl_port, folder=self.folder)
        self.environ["RABBITMQ_CONFIG_FILE"] = self.write("rabbitmq.conf", config)
        self.environ["RABBITMQ_ENABLED_PLUGINS_FILE"] = self.write("plugins", PLUGINS)

    def path(self, name: str) -> str:
        return os.path.join(self.folder, name)

    def write(self, name: str, text: str) -> str:
        with open(self.path(name), "w", encoding="utf-8") as file:
            file.write(text)
        return self.path(name)

    def answers(self) -> bool:
        """Its management too, which may listen later than AMQP does."""
        with socket.socket() as probe:
            return super().answers() and probe.connect_ex(("127.0.0.1", self.api_port)) == 0


def node() -> ManagedNode:
    """Started by the first who asks."""
    node: ManagedNode = rabbitmq.shared(ManagedNode)
    return node
