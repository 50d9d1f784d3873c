"""Where lines of Twisted's logger and of the standard library's go."""

from __future__ import annotations

import contextlib
import io
import logging
import logging.config

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults, inlineCallbacks
from twisted.internet.task import deferLater
from twisted.logger import LogEvent, Logger, LogLevel, LogPublisher, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from tests.faults.scene import until
from tests.services import ServicesCase
from txservices.command import logs
from txservices.events import EventDispatcher
from txservices.exceptions import ConfigurationError, RemoteError
from txservices.messaging import Publisher
from txservices.rpc import RpcProxy, rpc


class Lines(SynchronousTestCase):
    """The lines that `txservices run` shows."""

    def setUp(self) -> None:
        self.file = io.StringIO()
        self.publisher = LogPublisher(logs.to_file(self.file))

    def logger(self, namespace: str) -> Logger:
        return Logger(namespace, observer=self.publisher)

    def test_a_line_an_event(self) -> None:
        """A line has the time, the level, the logger and the text."""
        self.logger("txservices.web.server").info("listens at {port}", port=8000)
        self.assertRegex(self.file.getvalue(), r"^\d\d:\d\d:\d\d info txservices.web.server: listens at 8000\n$")

    def test_traceback(self) -> None:
        """A failure has its traceback below its line."""
        try:
            1 / 0  # noqa: B018
        except ZeroDivisionError:
            self.logger("app").failure("a worker failed")
        self.assertRegex(
            self.file.getvalue(), r"critical app: a worker failed\n\tTraceback[\s\S]*\n\t.*ZeroDivisionError"
        )

    def test_what_is_left_out(self) -> None:
        """Debug events, and the comings and goings of Twisted's own ports and factories; its warnings stay."""
        self.logger("log_legacy").info("Site starting on 8000")
        self.logger("log_legacy").info("(TCP Port 8000 Closed)")
        self.logger("txservices.rpc").debug("a message")
        self.logger("twisted.internet.protocol").info("Starting factory")
        self.assertEqual(self.file.getvalue(), "")
        self.logger("twisted.internet.protocol").warn("something odd")
        self.assertIn("something odd", self.file.getvalue())

    def test_levels(self) -> None:
        """A level of LOG_LEVELS is for that logger and those below it, the nearest first; also for Twisted's own."""
        levels = {"txservices": "error", "txservices.amqp": "debug", "twisted.web": "info"}
        self.publisher = LogPublisher(logs.to_file(self.file, levels=levels))
        for name in (
            "txservices.rpc",
            "txservices.amqp.channel",
            "txservices.amqpx",
            "twisted.web.x",
            "twisted.x",
            "app",
        ):
            for level in LogLevel.iterconstants():
                self.logger(name).emit(level, "")
                self.logger(name).emit(level, "x")
        found = [line.split()[1:3] for line in self.file.getvalue().splitlines()]
        least = {name[:-1]: level for level, name in reversed(found)}
        self.assertEqual(
            least,
            {
                "app": "info",
                "twisted.x": "warn",
                "twisted.web.x": "info",
                "txservices.amqpx": "error",
                "txservices.amqp.channel": "debug",
                "txservices.rpc": "error",
            },
        )


class Standard(SynchronousTestCase):
    """The standard library's records."""

    def setUp(self) -> None:
        root = logging.getLogger()
        handlers, level = list(root.handlers), root.level
        root.handlers[:] = []

        def restore() -> None:
            root.handlers[:] = handlers
            root.setLevel(level)

        self.addCleanup(restore)
        self.events: list[LogEvent] = []
        globalLogPublisher.addObserver(self.events.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.events.append)

    def test_to_twisted(self) -> None:
        """Without LOGGING they go to Twisted's log, with their level and their logger's name."""
        logs.standard({})
        logging.getLogger("app.stock").warning("only %d left {sic}", 3)
        logging.getLogger("app.stock").debug("counted")
        [event] = [event for event in self.events if event["log_namespace"] == "app.stock"]
        self.assertEqual((event["log_level"], event["text"]), (LogLevel.warn, "only 3 left {sic}"))

    def test_dictionary(self) -> None:
        """LOGGING is for dictConfig, and silences no logger that exists already."""
        before = logging.getLogger("app.before")
        logs.standard({"LOGGING": {"version": 1, "root": {"level": "ERROR"}}})
        self.assertEqual(logging.getLogger().level, logging.ERROR)
        self.assertFalse(before.disabled)

    def test_mistake(self) -> None:
        """A LOGGING that dictConfig does not take is a mistake of the config."""
        error = self.assertRaises(ConfigurationError, logs.standard, {"LOGGING": {"version": 3}})
        self.assertIn("LOGGING: ", str(error))

    def test_levels(self) -> None:
        """LOG_LEVELS is for the standard library's loggers, too."""
        for name in ("app.loud", "app.quiet"):
            self.addCleanup(logging.getLogger(name).setLevel, logging.NOTSET)
        logs.standard({"LOG_LEVELS": {"app.loud": "debug", "app.quiet": "critical"}})
        for name in ("app.loud.below", "app.quiet.below", "app.other"):
            logging.getLogger(name).debug("debug")
            logging.getLogger(name).error("error")
        found = [(event["log_namespace"], event["text"]) for event in self.events if "text" in event]
        self.assertEqual(found, [("app.loud.below", "debug"), ("app.loud.below", "error"), ("app.other", "error")])

    def test_failures_keep_their_traceback(self) -> None:
        """exc_info of a standard record arrives as text."""
        logs.standard({})
        try:
            raise ValueError("boom")
        except ValueError:
            logging.getLogger("app").exception("failed")
        self.assertIn("ValueError: boom", self.events[-1]["text"])


class ToStandard(SynchronousTestCase):
    """Twisted's events, with LOGGING."""

    def setUp(self) -> None:
        self.log = LogPublisher(logs.ToStandard())

    def test_names(self) -> None:
        """Each goes to the logger of its module, with its level; what has none, to `twisted`."""
        with self.assertLogs(level="DEBUG") as logged:
            Logger("txservices.amqp.connection", observer=self.log).warn("lost {uri}: 5%s", uri="amqp://x")
            Logger("app.stock", observer=self.log).debug("counted")
            Logger("log_legacy", observer=self.log).info("Site starting")
        self.assertEqual(
            [(record.name, record.levelname, record.getMessage()) for record in logged.records],
            [
                ("txservices.amqp.connection", "WARNING", "lost amqp://x: 5%s"),
                ("app.stock", "DEBUG", "counted"),
                ("twisted", "INFO", "Site starting"),
            ],
        )

    def test_filtered(self) -> None:
        """A level set for one module holds for it alone."""
        quiet = logging.getLogger("txservices.amqp")
        self.addCleanup(quiet.setLevel, quiet.level)
        quiet.setLevel("ERROR")
        with self.assertLogs(level="INFO") as logged:
            Logger("txservices.amqp.connection", observer=self.log).warn("lost")
            Logger("txservices.rpc", observer=self.log).info("answered")
        self.assertEqual([record.name for record in logged.records], ["txservices.rpc"])

    def test_failure(self) -> None:
        """A failure is the record's exc_info."""
        with self.assertLogs("app", "ERROR") as logged:
            try:
                raise ValueError("boom")
            except ValueError:
                Logger("app", observer=self.log).failure("a worker failed")
        [record] = logged.records
        assert record.exc_info is not None
        self.assertEqual((record.levelname, record.exc_info[0]), ("CRITICAL", ValueError))


twisted_log = Logger("app.twisted")
standard_log = logging.getLogger("app.standard")


def say(what: str) -> None:
    """Log something by both loggers."""
    twisted_log.info("{what}", what=what)
    standard_log.warning("%s", what)


def later() -> Deferred[None]:
    return deferLater(reactor, 0)


class Talkative:
    """A service whose methods log, each of another kind."""

    name = "talkative"
    talkative = RpcProxy("talkative")
    dispatch = EventDispatcher()
    publish = Publisher()

    @rpc
    def plain(self):
        say("plain")

    @rpc
    async def coroutine(self):
        say("coroutine")
        await later()
        say("coroutine")
        await self.talkative.quiet()
        say("coroutine")

    @rpc
    @inlineCallbacks
    def generator(self):
        say("generator")
        yield later()
        say("generator")

    @rpc
    def deferred(self):
        say("deferred")
        return later()

    @rpc
    def called(self):
        return self.talkative.quiet().addCallback(lambda _: say("called"))

    @rpc
    def refused(self):
        return self.talkative.nothing().addErrback(lambda _: say("refused"))

    @rpc
    def told(self):
        return self.dispatch("told", None).addCallback(lambda _: say("told"))

    @rpc(blocking=True)
    def thread(self):
        say("thread")
        self.talkative.quiet()
        say("thread")

    @rpc
    async def careless(self):
        self.talkative.nothing.call_async()
        self.publish(1, routing_key="nowhere", mandatory=True)
        await self.talkative.quiet()

    @rpc(blocking=True)
    def careless_thread(self):
        self.talkative.nothing.call_async()
        self.talkative.quiet()

    @rpc(expected_exceptions=ValueError)
    def expected(self):
        raise ValueError("as expected")

    @rpc
    def quiet(self):
        pass


KINDS = ("plain", "coroutine", "generator", "deferred", "called", "refused", "told", "thread")


class CallIds(ServicesCase):
    """A line that a worker logs bears its call id."""

    async def setUp(self) -> None:
        super().setUp()
        factory = logging.getLogRecordFactory()
        logging.setLogRecordFactory(logs.make_our_record)
        self.addCleanup(logging.setLogRecordFactory, factory)
        self.events: list[LogEvent] = []
        for observer in (logs.notes_call_id, self.events.append):
            globalLogPublisher.addObserver(observer)
            self.addCleanup(globalLogPublisher.removeObserver, observer)
        await self.start(Talkative)
        self.cluster_rpc = await self.cluster()

    async def test_every_kind_of_method(self) -> None:
        """Plain, async, inlineCallbacks, with a Deferred, in callbacks of calls and of events, and in a thread."""
        with self.assertLogs("app.standard") as logged:
            await gatherResults([getattr(self.cluster_rpc.talkative, kind)() for kind in KINDS])
        by_twisted = [(event["what"], event.get("call_id")) for event in self.events if "what" in event]
        by_standard = [(record.getMessage(), record.call_id) for record in logged.records]
        for lines in (by_twisted, by_standard):
            self.assertEqual({what for what, _ in lines}, set(KINDS))
            for what, call_id in lines:
                self.assertRegex(str(call_id), rf"^talkative\.{what}\.[0-9a-f-]{{36}}$")
            self.assertEqual(len({call_id for _, call_id in lines}), len(KINDS))  # each worker has one

    async def test_our_own_lines(self) -> None:
        """Our own lines about a worker bear it too; a line outside any call does not."""
        await self.assertFailure(self.cluster_rpc.talkative.expected(), Exception)
        with self.assertLogs("app.standard") as logged:
            say("outside")
        self.assertEqual([(record.call_id, record.origin) for record in logged.records], [("-", "-")])
        [event] = [event for event in self.events if "(expected)" in event["log_format"]]
        self.assertRegex(event["call_id"], r"^talkative\.expected\.")
        self.assertRegex(event["origin"], r"^standalone_rpc_proxy\.call\.")
        self.assertEqual(event["log_system"], f"txservices.workers#warn {event['call_id']} from {event['origin']}")
        [outside] = [event for event in self.events if event.get("what") == "outside"]
        self.assertNotIn("call_id", outside)

    async def test_what_nobody_waited_for(self) -> None:
        """A call that fails, and a message that goes nowhere, are told with the id of the worker that did not look."""
        with contextlib.suppress(
            RemoteError
        ):  # if the message has failed before the method ends, its caller is told as well
            await self.cluster_rpc.talkative.careless()
        await until(lambda: len(self.complaints()) == 2)
        self.assertRegex(
            " ".join(str(each.get("call_id")) for each in self.complaints()), r"^talkative\.careless\.(\S+) \S+\1$"
        )

    async def test_what_no_thread_waited_for(self) -> None:
        """The same of a worker in a thread."""
        await self.cluster_rpc.talkative.careless_thread()
        await until(self.complaints)
        [complaint] = self.complaints()
        self.assertRegex(complaint["call_id"], r"^talkative\.careless_thread\.")

    def complaints(self) -> list[LogEvent]:
        return [event for event in self.events if event["log_level"] is LogLevel.error]

    async def test_what_outlives_it(self) -> None:
        """A connection that is made for a worker's reply is everybody's: its lines bear no call id."""

        class Lone:
            name = "lone"

            @rpc
            def method(self):
                say("lone")

        await self.start(Lone)
        connected = len(self.of_connections())
        with self.assertLogs("app.standard"):
            await self.cluster_rpc.lone.method()
        self.assertGreater(len(self.of_connections()), connected)
        self.assertEqual([event for event in self.of_connections() if "call_id" in event], [])

    def of_connections(self) -> list[LogEvent]:
        return [event for event in self.events if event["log_namespace"] == "txservices.amqp.connection"]

    def test_line(self) -> None:
        """They stand behind the namespace."""
        line = logs.one_line(
            {"log_format": "sold", "log_namespace": "app", "log_time": 0.0, "log_ids": "a.b.1 from c.d.2"}
        )
        self.assertRegex(str(line), r"^\d\d:\d\d:\d\d info app \[a\.b\.1 from c\.d\.2\]: sold$")
