"""The base of the tests of a channel."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.broker.peer import Client


class ChannelTestCase(SynchronousTestCase):
    """A client with channel 1 open, and queue q."""

    def setUp(self) -> None:
        self.client = Client().open()
        self.client.declare("q")
        self.client.sent()

    def refused(self, code: int, text: str, name: str, channel: int = 1, **arguments: Any) -> None:
        """The method is refused on its channel, and the channel is opened again for the next one."""
        self.assertEqual(self.client.refusal(channel, name, **arguments), ("channel.close", code, text))
        self.client.method(channel, "channel.close-ok")
        self.assertEqual(self.client.call(channel, "channel.open")[0], "channel.open-ok")

    def refused_all(self, code: int, name: str, **arguments: Any) -> None:
        """The method is refused with the end of the connection."""
        self.assertEqual(Client().open().refusal(1, name, **arguments)[:2], ("connection.close", code))

    def ok(self, name: str, **arguments: Any) -> dict[str, Any]:
        answer, args = self.client.call(1, name, **arguments)
        self.assertEqual(answer, f"{name}-ok", args)
        return args
