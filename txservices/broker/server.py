"""The server: its users, its virtual hosts, and its ports, at which connections arrive."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.endpoints import TCP4ServerEndpoint, TCP6ServerEndpoint
from twisted.internet.interfaces import IAddress, IDelayedCall, IListeningPort
from twisted.internet.protocol import Factory
from twisted.logger import Logger

from txservices.broker.queues import Queue
from txservices.broker.session import Session
from txservices.broker.users import GUEST, Users, is_loopback
from txservices.broker.vhost import VirtualHost
from txservices.broker.watermark import MEMORY_MAX, Watermark
from txservices.exceptions import AmqpError
from txservices.utils import default_reactor
from txservices.utils.sweeping import Sweeper
from txservices.wire.spec import ReplyCode

log = Logger()

DEFAULT_USERS = {"guest": "guest"}
DEFAULT_VHOSTS = ("/",)
CONNECTIONS_MAX = 4_096  # connections over TCP
ALARM_INTERVAL = 0.1  # seconds between two looks at the memory, while publishers wait


class Broker:
    """An AMQP 0-9-1 server. Everything in it is lost when the process ends.

    Args:
        name: its name in ``memory://NAME``.
        users: passwords by user name; by default guest with the password guest. A user of the name guest may only
            come in from this machine.
        vhosts: names of the virtual hosts; by default ``/`` alone.
        clock: the reactor, or a test's clock.
        memory_max: bytes; publishers wait while the messages take more.
    """

    def __init__(
        self,
        name: str = "",
        users: Mapping[str, str] = DEFAULT_USERS,
        vhosts: Iterable[str] = DEFAULT_VHOSTS,
        clock: Any = None,
        memory_max: int = MEMORY_MAX,
    ) -> None:
        self.name = name
        self.clock = clock = default_reactor(clock)
        self.users = Users(users, clock.seconds)
        self.vhosts: dict[str, VirtualHost] = {}
        self.sessions: dict[Session, None] = {}
        self.watermark = Watermark(memory_max, self.alarm)
        self.looking: IDelayedCall | None = None
        self.is_full = False  # said in the log once, until a connection has gone
        self.ports: list[IListeningPort] = []
        self.timed: dict[Queue, Queue] = {}
        self.sweeper = Sweeper(clock, self.timed, lambda key, queue: queue.look())
        for vhost in vhosts:
            self.add_vhost(vhost)

    def add_vhost(self, name: str) -> VirtualHost:
        vhost = self.vhosts[name] = VirtualHost(name, self.clock.seconds, self.watch, self.watermark)
        return vhost

    def watch(self, queue: Queue) -> None:
        """Look at the queue again when its deadline comes. One delayed call serves all queues.

        Without a connection nothing is looked at: nobody could see a difference, and nothing stays in the reactor.
        """
        self.timed[queue] = queue
        if self.sessions:
            self.sweeper.watch()

    def add(self, session: Session) -> None:
        if not self.sessions and self.timed:
            self.sweeper.sweep()  # messages and queues may have expired meanwhile
        self.sessions[session] = None
        if self.timed:
            self.sweeper.watch()
        if self.watermark.alarmed:
            self.look_again()

    def remove(self, session: Session) -> None:
        self.sessions.pop(session, None)
        self.is_full = False
        if not self.sessions:
            self.sweeper.stop()
            if self.looking is not None:
                self.looking.cancel()
                self.looking = None

    # Memory

    def alarm(self) -> None:
        """The messages take too much memory: a client that publishes is not read until they take less."""
        log.warn(
            "the messages in the embedded broker take over {most} bytes: publishers wait until consumers have taken"
            " some of them",
            most=self.watermark.most,
        )
        self.look_again()

    def look_again(self) -> None:
        if self.looking is None and self.sessions:
            self.looking = self.clock.callLater(ALARM_INTERVAL, self.look)

    def look(self) -> None:
        """Read publishers again if the messages take less memory now."""
        self.looking = None
        if not self.watermark.is_low():
            self.look_again()
            return
        self.watermark.alarmed = False
        log.info("the messages in the embedded broker take less memory again: publishers go on")
        for session in list(self.sessions):
            session.unblock()

    # Users

    def accepts(self, user: str, password: str, host: str) -> bool:
        return self.users.accepts(user, password, host)

    def find_vhost(self, name: str, trusted: bool = False) -> VirtualHost:
        """The virtual host of that name. A missing one is made for a trusted client, and ``NOT_ALLOWED`` for others."""
        vhost = self.vhosts.get(name)
        if vhost is None:
            if not trusted:
                raise AmqpError(ReplyCode.NOT_ALLOWED, f"vhost {name} not found")
            vhost = self.add_vhost(name)
        return vhost

    def listen(self, host: str = "127.0.0.1", port: int = 5672) -> Deferred[IListeningPort]:
        """Take connections at an address. The Deferred fires with the port, or fails with ``CannotListenError``."""
        kind = TCP6ServerEndpoint if ":" in host else TCP4ServerEndpoint
        listening: Deferred[IListeningPort] = kind(self.clock, port, interface=host).listen(Sessions(self))

        def listens(listener: IListeningPort) -> IListeningPort:
            if not is_loopback(host):
                log.warn(
                    "THE EMBEDDED BROKER LISTENS ON {host}:{port}, WHICH OTHER MACHINES CAN REACH, without TLS: users"
                    " who may come in from there: {users}",
                    host=host,
                    port=port,
                    users=", ".join(user for user in self.users.passwords if user != GUEST) or "no one",
                )
            self.ports.append(listener)
            return listener

        return listening.addCallback(listens)

    def close(self) -> Deferred[None]:
        """Take no more connections, and close those that there are. The Deferred fires with None after the last one."""
        ports, self.ports = self.ports, []
        ended: list[Deferred[Any]] = [Deferred.fromCoroutine(stop_listening(port)) for port in ports]
        ended += [session.broker_closes() for session in list(self.sessions)]
        return DeferredList(ended).addCallback(lambda _: None)


async def stop_listening(port: IListeningPort) -> None:
    stopping = port.stopListening()
    if stopping is not None:
        await stopping


class Sessions(Factory):
    """A session for each TCP connection."""

    noisy = False

    def __init__(self, broker: Broker) -> None:
        self.broker = broker

    def buildProtocol(self, addr: IAddress | None) -> Session | None:
        """A session, or None where there are too many connections already: the new one is closed."""
        broker = self.broker
        if len(broker.sessions) < CONNECTIONS_MAX:
            return Session(broker)
        if not broker.is_full:
            broker.is_full = True
            log.warn("the embedded broker has {number} connections: further ones are closed", number=CONNECTIONS_MAX)
        return None
