"""Events in a service's name, from a program that is none."""

from __future__ import annotations

from tests.services import ServicesCase, properties_of
from txservices.events import event_handler
from txservices.exceptions import ChannelClosedByBroker, EncodeError, PublishTimeout, UndeliverableMessage
from txservices.standalone.events import event_dispatcher, get_event_exchange
from txservices.testing.waiting import Heard


class DispatcherTests(ServicesCase):
    """``event_dispatcher``."""

    async def test_dispatch(self) -> None:
        """A service hears it as if its source had told it; without headers."""
        heard = Heard()

        class Listener:
            name = "listener"

            @event_handler("source", "type")
            def handle(self, data):
                heard(data)

        await self.start(Listener)
        tap = await self.tap("source.events")
        async with event_dispatcher(self.config) as dispatch:
            await dispatch("source", "type", {"a": "ø"})
        self.assertEqual(await heard.wait(), [{"a": "ø"}])
        (message,) = await tap.wait()
        self.assertEqual(
            properties_of(message),
            {
                "content_type": "application/json",
                "content_encoding": "utf-8",
                "delivery_mode": 2,
                "priority": 0,
                "headers": {},
            },
        )

    async def test_stop_confirms(self) -> None:
        """A dispatched event is confirmed before the connection closes, waited for or not."""
        tap = await self.tap("source.events")
        dispatch = event_dispatcher(self.config)
        for number in range(10):
            dispatch("source", "type", number)
        await dispatch.stop()
        self.assertEqual([message.body for message in await tap.wait(10)], [b"%d" % number for number in range(10)])

    async def test_no_exchange(self) -> None:
        """The exchange is the service's to declare: without it a dispatch fails."""
        async with event_dispatcher(self.config) as dispatch:
            with self.assertRaises(ChannelClosedByBroker):
                await dispatch("source", "type", 1)

    async def test_mandatory(self) -> None:
        """A mandatory event that nobody listens to is an error, any other is none."""
        await self.connections().publisher.declare(get_event_exchange("source", {}))
        async with event_dispatcher(self.config) as dispatch:
            await dispatch("source", "type", 1)
        async with event_dispatcher(self.config, mandatory=True) as dispatch:
            with self.assertRaises(UndeliverableMessage):
                await dispatch("source", "type", 1)

    async def test_no_broker(self) -> None:
        """Where no broker answers, a dispatch fails when its time is up."""
        async with event_dispatcher({"AMQP_URI": "amqp://localhost:1/"}, timeout=0.1) as dispatch:
            with self.assertRaises(PublishTimeout):
                await dispatch("source", "type", 1)

    async def test_misuse(self) -> None:
        """Data that can't be written raises at once, and so does a dispatch after the stop."""
        dispatch = event_dispatcher(self.config)
        with self.assertRaises(EncodeError):
            dispatch("source", "type", object())
        await dispatch.stop()
        with self.assertRaises(RuntimeError):
            dispatch("source", "type", 1)
