"""The server: who may come in, which virtual hosts there are, and where connections arrive."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.endpoints import TCP4ServerEndpoint, TCP6ServerEndpoint
from twisted.internet.interfaces import IAddress, IListeningPort
from twisted.internet.protocol import Factory

from txservices.broker.queues import Queue
from txservices.broker.session import Session
from txservices.broker.vhost import VirtualHost
from txservices.exceptions import AmqpError
from txservices.utils.deadlines import Sweeper
from txservices.wire.spec import ReplyCode

DEFAULT_USERS = {"guest": "guest"}
DEFAULT_VHOSTS = ("/",)


class Broker:
    """An AMQP 0-9-1 server. Everything in it is lost when the process ends.

    Args:
        name: its name in ``memory://NAME``.
        users: passwords by user name; by default guest with the password guest.
        vhosts: names of the virtual hosts; by default ``/`` alone.
        clock: the reactor, or a test's clock.
    """

    def __init__(
        self,
        name: str = "",
        users: Mapping[str, str] = DEFAULT_USERS,
        vhosts: Iterable[str] = DEFAULT_VHOSTS,
        clock: Any = None,
    ) -> None:
        if clock is None:
            from twisted.internet import reactor as clock
        self.name = name
        self.clock = clock
        self.users = dict(users)
        self.vhosts: dict[str, VirtualHost] = {}
        self.sessions: dict[Session, None] = {}
        self.ports: list[IListeningPort] = []
        self.timed: dict[Queue, Queue] = {}
        self.sweeper = Sweeper(clock, self.timed, lambda key, queue: queue.look())
        for vhost in vhosts:
            self.add_vhost(vhost)

    def add_vhost(self, name: str) -> VirtualHost:
        vhost = self.vhosts[name] = VirtualHost(name, self.clock.seconds, self.watch)
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

    def remove(self, session: Session) -> None:
        self.sessions.pop(session, None)
        if not self.sessions:
            self.sweeper.stop()

    def accepts(self, user: str, password: str) -> bool:
        return self.users.get(user) == password

    def find_vhost(self, name: str, trusted: bool = False) -> VirtualHost:
        """The virtual host of that name. For a trusted client it is made; for others that is ``NOT_ALLOWED``."""
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
            self.ports.append(listener)
            return listener

        return listening.addCallback(listens)

    def stop(self) -> Deferred[None]:
        """Take no more connections, and close those that there are. The Deferred fires with None after the last one."""
        ports, self.ports = self.ports, []
        ended: list[Deferred[Any]] = [Deferred.fromCoroutine(stop_listening(port)) for port in ports]
        ended += [session.stop() for session in list(self.sessions)]
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

    def buildProtocol(self, addr: IAddress | None) -> Session:
        return Session(self.broker)
