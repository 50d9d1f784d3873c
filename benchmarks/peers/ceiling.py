"""The ceiling: how fast this broker and Python sockets are with the same guarantees, and with nothing else to do.

Requests are mandatory, persistent and confirmed, with the header array; replies are persistent and confirmed. With
`--transient` neither is persistent. A request is acked when its reply is confirmed, and a reply when it has come.
Queues are durable, as nameko's. Events are persistent and confirmed, and acked when they have come. But the bytes are
ready-made, requests are never read, and nothing is dispatched.

It speaks nameko's wire: its caller can call any service of nameko's or txservices' as well.
"""

from __future__ import annotations

import json
import time
from typing import Any

from benchmarks.peers import contract, rawwire

PREFETCH = 200  # RabbitMQ's own advice is 100 to 300


def serve(uri: str, transient: bool) -> None:
    wire = rawwire.Wire(uri)
    wire.consume(f"rpc-{contract.NAME}", f"{contract.NAME}.*", PREFETCH)
    contract.ready()
    body = json.dumps({"result": contract.TEXT, "error": None}).encode()
    reply = caller = b""
    while True:
        replies, acks = 0, []
        for kind, payload in wire.frames():
            if kind == rawwire.BODY_FRAME:
                replies += 1
            elif kind == rawwire.HEADER_FRAME:
                if payload != caller:  # all requests of one caller have the same bytes here
                    caller, reply = payload, rawwire.message(reply_to(payload), body, transient=transient)
            elif payload[:4] == rawwire.ACK:
                # the nth reply answers the nth request, and both count from 1, so they have the same tag
                acks.append(rawwire.frame(rawwire.METHOD_FRAME, 1, payload))
        wire.socket.sendall(reply * replies + b"".join(acks))


def reply_to(header: bytes) -> str:
    """The ``reply_to`` among a request's properties."""
    flags = int.from_bytes(header[12:14], "big")
    position = 14
    for bit in (0x8000, 0x4000):
        position += 1 + header[position] if flags & bit else 0
    position += 4 + int.from_bytes(header[position : position + 4], "big") if flags & 0x2000 else 0
    position += (1 if flags & 0x1000 else 0) + (1 if flags & 0x0800 else 0)
    position += 1 + header[position] if flags & 0x0400 else 0
    return header[position + 1 : position + 1 + header[position]].decode()


class Caller:
    """Keep so many calls in flight."""

    def __init__(self, uri: str, size: int, stack: int, transient: bool) -> None:
        self.wire = rawwire.Wire(uri)
        body = json.dumps({"args": ["x" * size], "kwargs": {}}).encode()
        headers = rawwire.stack_header(stack)
        reply_to = self.wire.listen_for_replies()
        self.request = rawwire.message(f"{contract.NAME}.echo", body, reply_to, headers, transient=transient)

    def replies(self) -> int:
        """Wait for replies, ack them, and give their number. The confirms come before the replies, and are skipped."""
        count = tag = 0
        for kind, payload in self.wire.frames():
            if kind == rawwire.BODY_FRAME:
                count += 1
            elif kind == rawwire.METHOD_FRAME and payload[:4] == rawwire.DELIVER:
                tag = rawwire.delivery_tag(payload)
            elif payload[:4] == rawwire.RETURN:
                raise RuntimeError("nobody serves this call")
        if tag:
            self.wire.socket.sendall(rawwire.ack(tag, 1))
        return count

    def run(self, amount: Any, in_flight: int, times: contract.Times) -> None:
        clock, waiting, turns = time.perf_counter, 0, amount()
        began: list[float] = []  # replies come in the order of their calls: one queue, one service
        while True:
            new = 0
            while waiting + new < in_flight and next(turns, turns) is None:
                new += 1
            if new:
                began.extend([clock()] * new)
                self.wire.socket.sendall(self.request * new)
                waiting += new
            if not waiting:
                return
            done = self.replies()
            now, waiting = clock(), waiting - done
            times.took.extend([now - before for before in began[:done]])
            del began[:done]


def call(options: Any) -> None:
    caller = Caller(options.uri, options.size, options.stack, options.transient)
    caller.run(contract.amount(f"{contract.WARM_UP}s"), options.in_flight, contract.Times())
    times = contract.Times()
    caller.run(options.amount, options.in_flight, times)
    times.figures()


EVENTS = f"{contract.NAME}.events"


def listen(uri: str) -> None:
    """Take events, ack each, and count them."""
    wire, handled = rawwire.Wire(uri), contract.Handled()
    wire.declare(EVENTS)
    wire.consume(f"evt-{contract.NAME}-tick--listener.tick", "tick", PREFETCH, exchange=EVENTS)
    contract.ready()
    while True:
        tag = 0
        for kind, payload in wire.frames():
            if kind == rawwire.BODY_FRAME:
                handled(int(payload))
            elif payload[:4] == rawwire.DELIVER:
                tag = rawwire.delivery_tag(payload)
        if tag:  # acks all up to this one; if its body is still to come, it is acked a little early
            wire.socket.sendall(rawwire.ack(tag, 1))


def dispatch(options: Any) -> None:
    """Keep so many events unconfirmed."""
    wire, count = rawwire.Wire(options.uri), contract.Dispatched()
    headers = rawwire.stack_header(1)
    one = rawwire.message("tick", b"0", headers=headers, exchange=EVENTS)
    count.sent = confirm(wire, one, contract.amount(f"{contract.WARM_UP}s"), options.in_flight, 0)
    count.begin()
    count.sent = confirm(wire, one, options.amount, options.in_flight, count.sent)
    count.sent += 1
    last = rawwire.message("tick", str(count.sent).encode(), headers=headers, exchange=EVENTS)
    confirm(wire, last, contract.amount("1"), 1, count.sent - 1)
    count.figures()


def confirm(wire: rawwire.Wire, event: bytes, amount: Any, in_flight: int, sent: int) -> int:
    """Send, and wait for the confirms. Gives the number sent on the channel in all, which is the last one's tag."""
    turns, unconfirmed = amount(), set[int]()
    while True:
        new = 0
        while len(unconfirmed) < in_flight and next(turns, turns) is None:
            sent, new = sent + 1, new + 1
            unconfirmed.add(sent)
        if new:
            wire.socket.sendall(event * new)
        if not unconfirmed:
            return sent
        for _, payload in wire.frames():
            tag, multiple = rawwire.tag_of_ack(payload), payload[12]
            unconfirmed -= {each for each in unconfirmed if each <= tag} if multiple else {tag}


if __name__ == "__main__":
    options = contract.arguments()
    if options.action == "serve":
        if options.work == "rpc":
            serve(options.uri, options.transient)
        listen(options.uri)
    else:
        {"rpc": call, "events": dispatch}[options.work](options)
