"""Bodies of responses that are made while they are sent, piece by piece, as fast as the client takes them.

    Sending.send -> Body.next -> Received.write

The pieces come from an iterator, an async iterator, an iterator of Deferreds or coroutines, or a Deferred of any of
these. An iterator of a method with ``blocking = True`` runs in a thread. The head goes out with the first piece: an
error before it is answered 500, and one after it cuts the connection, because nothing else tells the client that the
body is not complete. A client that leaves ends the iterator, and one that does not take the next piece within
``SEND_TIMEOUT`` is cut off.
"""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import Callable
from contextlib import ExitStack
from contextvars import copy_context
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.internet.task import deferLater
from twisted.internet.tcp import Connection
from twisted.logger import Logger
from twisted.python.failure import Failure
from werkzeug.wrappers import Response
from zope.interface import implementer

from txservices.deadlines import FOREVER
from txservices.safe import brief
from txservices.utils import tasks
from txservices.utils.waiting import Waiters
from txservices.workers import WAITS

SEND_TIMEOUT = 60.0  # seconds
PIECES_AT_ONCE = 20  # pieces of a body before others have their turn, if neither its client nor its iterator waits
PIECES_A_TURN = 100  # such pieces in a turn of the reactor
ALONE_MIN = 16 * 1024  # bytes of a piece that is sent alone; shorter ones are sent together

END = object()

log = Logger()


def encoded(piece: Any) -> bytes:
    """A piece of a body as bytes. ``TypeError`` for anything that is neither text nor bytes."""
    if isinstance(piece, bytes):
        return piece
    if isinstance(piece, str):
        return piece.encode()
    if isinstance(piece, (bytearray, memoryview)):
        return bytes(piece)
    raise TypeError(f"a piece of the response's body is {brief(piece)}: give str or bytes")


class Body:
    """The pieces that a method gave, and where they are made.

    Args:
        pieces: an iterable, an async iterable, or a Deferred of one.
        encode: makes bytes of a piece.
        first: bytes that are sent at once, with the head; empty if the head waits for the first piece.
        keep_alive: seconds of silence after which ``silence`` is sent; None if nothing is.
        endless: whether a stop ends it, and does not wait for its end.

    Attributes:
        threads: the threads of the container in which an iterator runs; None for the reactor.
    """

    def __init__(
        self,
        pieces: Any,
        encode: Callable[[Any], bytes] = encoded,
        first: bytes = b"",
        keep_alive: float | None = None,
        silence: bytes = b"",
        endless: bool = False,
    ) -> None:
        self.pieces = pieces
        self.encode = encode
        self.first = first
        self.keep_alive = keep_alive
        self.silence = silence
        self.endless = endless
        self.context = copy_context()  # of the worker
        self.threads: Any = None
        self.iterator: Any = None
        self.taking: Deferred[Any] | None = None  # what a thread does now

    async def next(self) -> bytes | None:
        """The next piece. None after the last."""
        if isinstance(self.pieces, WAITS):
            pieces = await self.pieces
            self.pieces = [pieces] if isinstance(pieces, (str, bytes)) else pieces
        if self.iterator is None and hasattr(self.pieces, "__aiter__"):
            self.threads = None
            self.iterator = self.pieces.__aiter__()
        if hasattr(self.iterator, "__anext__"):
            try:
                piece = await self.iterator.__anext__()
            except StopAsyncIteration:
                return None
        else:
            piece = self.take() if self.threads is None else await self.taken()
        if isinstance(piece, WAITS):
            piece = await piece
        return None if piece is END else self.encode(piece)

    def take(self) -> Any:
        if self.iterator is None:
            self.iterator = iter(self.pieces)
        return next(self.iterator, END)

    def taken(self) -> Deferred[Any]:
        """``take`` in a thread. Cancelling it does not stop the thread: nobody can."""
        waiting: Deferred[Any] = Deferred()

        def over(result: Any) -> None:
            self.taking = None
            if not waiting.called:
                waiting.callback(result)

        self.taking = self.threads.run(self.take, (), {})
        self.taking.addBoth(over)
        return waiting

    def close(self, then: Callable[[], None] | None = None) -> Deferred[Any]:
        """End the iterator: everything is sent, or nobody wants more. Then call a function, in the same place.

        Fires when both are done, and never fails.
        """
        if self.taking is not None:  # an iterator can't be closed while it runs
            closing: Deferred[Any] = Deferred()
            self.taking.addBoth(lambda _: self.close(then).chainDeferred(closing))
            return closing
        pieces, self.pieces = self.pieces, ()
        iterator, self.iterator = self.iterator, None
        if isinstance(pieces, Deferred):
            pieces.addErrback(lambda _: None)
            pieces.cancel()
        if hasattr(iterator, "aclose"):

            def closed(result: Any) -> Any:
                call_all([then])
                return result

            return tasks.call(aclose, iterator).addBoth(closed).addErrback(self.not_closed)
        closes = [getattr(each, "close", None) for each in {id(each): each for each in (iterator, pieces)}.values()]
        if self.threads is None:
            return tasks.call(call_all, [*closes, then]).addErrback(self.not_closed)
        running: Deferred[Any] = self.threads.run(call_all, ([*closes, then],), {})
        return running.addErrback(self.not_closed)

    def not_closed(self, failure: Failure) -> None:
        log.failure("the iterator of a response's body has failed when it was closed", failure)


async def aclose(iterator: Any) -> None:
    """End an async iterator. Its own ``aclose`` gives something to await that is no coroutine."""
    await iterator.aclose()


def body_of(response: Response) -> Body:
    """The body of a response that is made while it is sent."""
    pieces: Any = response.response
    return pieces if isinstance(pieces, Body) else Body(pieces)


def call_all(functions: list[Callable[[], Any] | None]) -> None:
    """Call them in their order, all of them, and raise an error of theirs after that."""
    with ExitStack() as calls:  # which calls the last first
        for function in reversed(functions):
            if function is not None:
                calls.callback(function)


@implementer(IPushProducer)
class Sending:
    """Sends the body of one response, and its head before it.

    Args:
        head: the lines of the head that ``Received.begin`` is given.
        length: bytes of the body, if the head says so.
        close: called when the iterator has ended.

    Attributes:
        done: fires when the response is sent or cut, and the iterator has ended. Fails if nothing was sent: then there
            is room for another response. To cancel it cuts the connection.
    """

    def __init__(
        self, received: Any, head: bytes, body: Body, length: int | None, close: Callable[[], None] | None
    ) -> None:
        self.received = received
        self.channel = received.channel
        self.head = head
        self.body = body
        self.left = length
        self.close_response = close
        self.paused = self.gone = self.ending = self.begun = False
        self.drained = False  # whether the transport has nothing to send
        self.room: Waiters[None] = Waiters()
        received.registerProducer(self, True)
        self.channel.timeoutConnection = self.time_is_up
        self.steps: Any = self.run()
        self.done: Deferred[None] = body.context.copy().run(tasks.run, self.steps)

    async def run(self) -> None:
        try:
            if self.body.first:
                self.begin()
                self.received.write(self.body.first)
            complete = await self.send()
            if not self.gone:
                self.stop_producing()
                if complete:
                    self.received.finish()
                else:
                    self.channel.transport.abortConnection()
        except (Exception, CancelledError) as error:
            if not self.gone:
                self.stop_producing()
                if not self.begun:
                    self.received.chunked = 0
                    raise
                if not tasks.is_cancel(error):
                    log.failure("the body of the response to {request} ended in the middle", request=self.received)
                self.channel.transport.abortConnection()
        finally:
            closing = self.body.close(self.close_response)
        await closing

    def begin(self) -> None:
        self.begun = True
        self.received.begin(self.head)
        self.listen_on()

    async def send(self) -> bool:
        """Send all pieces. Gives whether the body is as long as the head says."""
        made = 0
        while not self.ending:
            try:
                if self.paused:
                    await self.room.wait()
                piece = await self.body.next()
            except (Exception, CancelledError) as error:
                if self.ending and tasks.is_cancel(error):
                    break
                raise
            if self.gone:
                return False
            if not self.begun:
                self.begin()
            if piece is None:
                break
            if self.left is not None:
                piece = piece[: self.left]
                self.left -= len(piece)
            if piece:
                self.write(piece)
                if not self.paused:
                    self.listen_on()
            made += 1
            if made % PIECES_A_TURN == 0:
                await deferLater(self.channel.site.reactor, 0)
            elif made % PIECES_AT_ONCE == 0:
                turn: Deferred[None] = Deferred()
                self.channel.site.turn.work(partial(take, turn))
                await turn
        if self.left and not self.ending:
            log.error("the body of the response to {request} is shorter than it said", request=self.received)
        return not self.left

    def write(self, piece: bytes) -> None:
        """Write a long piece to the socket itself if nothing waits for it, and others to the transport's buffer."""
        # The transport would copy it, and send it in the next turn of the reactor: that takes twice the time.
        if not self.drained or len(piece) < ALONE_MIN:
            self.drained = False
            self.received.write(piece)
            return
        self.received.sentLength += len(piece)
        data = b"%x\r\n%b\r\n" % (len(piece), piece) if self.received.chunked else piece
        sent = self.channel.transport.writeSomeData(data)
        if isinstance(sent, int) and sent == len(data):
            return
        self.drained = False
        self.channel.write(data[sent:] if isinstance(sent, int) else data)  # a lost connection is told by that

    def listen_on(self) -> None:
        """Note when to send a sign of life, if the iterator gives nothing before."""
        if self.body.keep_alive is not None:
            self.channel.wait(self.body.keep_alive)

    def time_is_up(self) -> None:
        """Called when the channel's deadline has passed."""
        if self.paused:
            log.debug("{peer} takes nothing of its response: it is cut off", peer=self.channel.getPeer())
            self.channel.transport.abortConnection()
        else:
            self.write(self.body.silence)
            self.listen_on()

    def stop_producing(self) -> None:
        self.received.unregisterProducer()
        del self.channel.timeoutConnection

    def pauseProducing(self) -> None:
        if not self.paused:  # the transport calls this at each write while its buffer is full
            self.paused = True
            self.channel.wait(SEND_TIMEOUT)

    def resumeProducing(self) -> None:
        """The transport has sent all that it had."""
        self.paused = False
        self.drained = isinstance(self.channel.transport, Connection)  # and nothing around it, as TLS
        self.channel.deadline = FOREVER
        self.listen_on()
        self.room.fire(None)

    def stopProducing(self) -> None:
        """The client has left: end the iterator."""
        if not self.gone:
            self.gone = True
            self.wake()

    def end(self) -> None:
        """End the body here, in order."""
        self.ending = True
        self.wake()

    def wake(self) -> None:
        """End the wait for a piece or for the client."""
        if self.steps.cr_running:  # it runs and waits for nothing yet: what it calls has led to this
            self.channel.site.reactor.callLater(0, self.wake)
        else:
            self.done.cancel()


def take(turn: Deferred[None]) -> bool:
    """A step of ``utils.turns``: go on."""
    if not turn.called:  # by a cancel
        turn.callback(None)
    return False


def sliced(body: bytes, size: int) -> Body:
    """A body that is complete, in pieces of so many bytes."""
    return Body(body[at : at + size] for at in range(0, len(body), size))
