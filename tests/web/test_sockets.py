"""Frames of WebSockets, good and bad, and who is silent."""

from __future__ import annotations

import json

from tests.web.chat import Chat, Client, SocketsCase, succeeded
from tests.web.test_channel import take_turn
from txservices.exceptions import ConnectionNotFound
from txservices.utils import turns
from txservices.web import connection as one_client
from txservices.web import sockets
from txservices.web.websocket import rpc


def fill(client: Client) -> None:
    """From now on the client takes nothing: its transport says at each write that its buffer is full, as TCP's."""
    transport = client.peer.transport
    write = transport.write

    def write_and_wait(data: bytes) -> None:
        write(data)
        client.peer.channel.pauseProducing()

    transport.write = write_and_wait  # a transport that is memory


class Frames(SocketsCase):
    """Handshakes that are no WebSocket's, or no good one's."""

    async def test_no_handshake(self) -> None:
        """A plain request is answered 400, another version of the protocol 426."""
        await self.start()
        self.assertTrue(self.peer().get("/ws").startswith(b"HTTP/1.1 400 "))
        upgrade = ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==")
        answer = self.peer().get("/ws", *upgrade, "Sec-WebSocket-Version: 12")
        self.assertTrue(answer.startswith(b"HTTP/1.1 426 "), answer)
        self.assertIn(b"Sec-WebSocket-Version: 13\r\n", answer)

    async def test_bad_frames(self) -> None:
        """Bytes that are no frames, or no text, close the socket with the reason."""
        await self.start()
        for data, code in [(b"\xff" * 20, 1002), (b"\x81\x81\0\0\0\0\xff", 1007), (b"\x81\x01a", 1002)]:
            client, _ = self.connected()
            client.protocol.receive_data(client.peer.send(data))
            self.assertEqual(client.protocol.close_rcvd and client.protocol.close_rcvd.code, code)
            self.assertTrue(client.peer.transport.disconnecting)

    async def test_too_big(self) -> None:
        """A message over ``WEB_BODY_MAX`` closes the socket before all of it has come."""
        await self.start(WEB_BODY_MAX=100)
        client, _ = self.connected()
        client.protocol.send_text(b"x" * 101, fin=False)
        client.messages()
        self.assertEqual(client.protocol.close_rcvd and client.protocol.close_rcvd.code, 1009)

    async def test_does_not_read(self) -> None:
        """A client that takes nothing is left when too much waits for it."""
        self.patch(sockets, "BACKLOG_MAX", 1000)
        await self.start()
        client, _ = self.connected()
        client.call("echo", value="x" * 2000)
        client.peer.channel.pauseProducing()
        client.call("echo", value="x" * 500)
        client.peer.channel.resumeProducing()
        client.call("echo", value="x" * 800)
        client.peer.channel.pauseProducing()
        self.assertTrue(client.peer.transport.connected)
        client.call("echo", value="x" * 1000)
        self.assertFalse(client.peer.transport.connected)

    async def test_does_not_read_many_messages(self) -> None:
        """Many short messages count as one long one, though the transport says at each that its buffer is full."""
        self.patch(sockets, "BACKLOG_MAX", 1000)
        await self.start()
        client, _ = self.connected()
        fill(client)
        for number in range(20):
            self.assertTrue(client.peer.transport.connected, number)
            client.call("echo", value="x" * 10)
            if not client.peer.transport.connected:
                break
        self.assertFalse(client.peer.transport.connected)

    async def test_all_that_do_not_read(self) -> None:
        """When too much waits for all such clients together, those go for whom most waits, and the others stay."""
        self.patch(sockets, "BACKLOGS_MAX", 10_000)
        await self.start()
        hub = self.hub()
        reading, ids = self.connected()[0], []
        for number in range(10):
            client, socket_id = self.connected()
            fill(client)
            ids.append(socket_id)
            hub.unicast(socket_id, "event", "x" * (500 + 10 * number))
        self.assertEqual([hub.connection(each).socket_id for each in ids], ids)
        for socket_id in ids[:5]:
            hub.unicast(socket_id, "event", "x" * 1500)  # they are the slowest now
        gone = [each for each in ids if each not in hub.connections]
        self.assertTrue(gone)
        self.assertLess(set(gone), set(ids[:5]))
        backlogs = hub.connection(ids[-1]).socket.backlogs
        self.assertEqual(backlogs.total, sum(backlogs.waiting.values()))
        self.assertLessEqual(backlogs.total, 10_000)
        self.assertEqual(reading.call("echo", value=1), [succeeded(1)])

    async def test_backlogs_end(self) -> None:
        """Nothing is counted any more for a client that reads again, is cut, or leaves."""
        self.patch(sockets, "BACKLOG_MAX", 1000)
        await self.start()
        hub = self.hub()
        clients = [self.connected() for _ in range(3)]
        backlogs = hub.connection(clients[0][1]).socket.backlogs
        for client, socket_id in clients:
            fill(client)
            hub.unicast(socket_id, "event", "x" * 500)
        self.assertEqual(len(backlogs.waiting), 3)
        clients[0][0].peer.channel.resumeProducing()
        hub.unicast(clients[1][1], "event", "x" * 1500)
        clients[2][0].peer.leave()
        self.assertEqual((backlogs.waiting, backlogs.total), ({}, 0))

    async def test_one_long_message(self) -> None:
        """A message longer than all backlogs may be goes to a client for whom alone something waits."""
        self.patch(sockets, "BACKLOGS_MAX", 1000)
        await self.start()
        client, _ = self.connected()
        fill(client)
        self.assertEqual(client.call("echo", value="x" * 2000), [succeeded("x" * 2000)])

    async def test_all_that_send(self) -> None:
        """When too much has come of messages that are not handled, those go who have sent most, and the others stay."""
        self.patch(sockets, "MESSAGES_MAX", 10_000)
        await self.start()
        clients = [self.connected()[0] for _ in range(6)]
        messages = next(iter(self.hub().connections.values())).socket.messages
        for number, client in enumerate(clients[:5]):  # half a message of each
            client.protocol.send_text(b'{"method": "echo", "data": {"value": "%s' % (b"x" * (1000 + number)), fin=False)
            client.exchange()
        clients[4].protocol.send_continuation(b"x" * 6000, fin=False)
        clients[4].exchange()
        self.assertEqual([client.peer.transport.connected for client in clients], [True] * 4 + [False, True])
        self.assertEqual(clients[5].call("echo", value="y" * 500), [succeeded("y" * 500)])
        for number, client in enumerate(clients[:4]):
            client.protocol.send_continuation(b'"}}', fin=True)
            self.assertEqual(client.messages(), [succeeded("x" * (1000 + number))])
        self.assertEqual((messages.waiting, messages.total), ({}, 0))

    async def test_sent_ends(self) -> None:
        """What came of messages counts no more when they are handled, refused, or their client has left."""
        await self.start(WEB_BODY_MAX=5000)
        self.connected()
        messages = next(iter(self.hub().connections.values())).socket.messages
        for end in ("handled", "refused", "left", "waiting"):
            client, _ = self.connected()
            client.protocol.send_text(b'{"method": "wait", "data": {"value": "', fin=False)
            client.exchange()
            self.assertEqual(messages.total, 38)
            if end == "refused":
                client.protocol.send_continuation(b"x" * 5000, fin=False)
            elif end == "handled":
                client.protocol.send_continuation(b'"}}', fin=True)
                client.exchange()
                self.assertEqual(messages.total, 41)
                Chat.waiting.pop().callback(None)
            elif end == "waiting":  # behind another one
                client.protocol.send_continuation(b'"}}', fin=True)
                client.protocol.send_text(b"{}")
                client.exchange()
                self.assertEqual(messages.total, 43)
                client.peer.leave()
            else:
                client.peer.leave()
            client.exchange()
            self.assertEqual((messages.waiting, messages.total), ({}, 0), end)
        for waiting in Chat.waiting:
            waiting.callback(None)

    async def test_long_messages_wait(self) -> None:
        """While requests of over WAITING_BYTES_MAX wait for their turn nothing more is read; then all are answered."""
        self.patch(one_client, "WAITING_BYTES_MAX", 3000)
        await self.start()
        client, socket_id = self.connected()
        connection = self.hub().connections[socket_id]
        for number in range(4):
            self.assertFalse(connection.paused)
            request = {"method": "wait", "data": {"value": f"{number}".ljust(1000)}}
            client.protocol.send_text(json.dumps(request).encode())
            client.exchange()
        self.assertEqual((len(connection.waiting), client.peer.transport.producerState), (3, "paused"))
        for number in range(4):
            Chat.waiting[number].callback(None)
            self.reactor.pump([0.0] * 3)
            client.exchange()
        self.assertEqual([value.strip() for value in Chat.calls], [str(number) for number in range(4)])
        self.assertEqual((connection.waiting_bytes, client.peer.transport.producerState), (0, "producing"))

    async def test_close(self) -> None:
        """A client's goodbye is answered."""
        await self.start()
        client, _ = self.connected()
        client.protocol.send_close(1000, "bye")
        client.messages()
        self.assertEqual(client.protocol.close_rcvd and client.protocol.close_rcvd.code, 1000)
        self.assertTrue(client.peer.transport.disconnecting)


class Sharing(SocketsCase):
    """What all clients may do in a turn of the reactor."""

    async def test_others_have_their_turn(self) -> None:
        """Clients with many calls at once hold no timer, and no client with one; each gets its answers in order.

        A method takes a millisecond here, on a clock that only the methods move.
        """
        clock = self.reactor

        class Work:
            name = "work"

            @rpc
            def count(self, socket_id, value):
                clock.rightNow += 0.001
                return value

        def frames(*values: int) -> bytes:
            calls = [json.dumps({"method": "count", "data": {"value": value}}).encode() for value in values]
            return b"".join(b"\x81" + bytes([0x80 | len(call)]) + bytes(4) + call for call in calls)

        await self.serve(Work)
        modest, *greedy = [self.connected()[0] for _ in range(21)]
        for client in greedy:
            client.peer.channel.dataReceived(frames(*range(100)))
        self.assertLess(clock.rightNow, 2 * turns.TURN)
        modest.peer.channel.dataReceived(frames(7))
        late, answered = [], 0
        while clock.rightNow < 2.0:
            began = clock.rightNow
            take_turn(clock)
            late.append(clock.rightNow - began)
            answered = answered or (len(late) if modest.messages() else 0)
        self.assertLess(max(late), 2 * turns.TURN)
        self.assertIn(answered, range(1, 4))
        take_turn(clock)
        self.assertEqual(greedy[-1].messages(), [succeeded(value) for value in range(100)])


class Pings(SocketsCase):
    """A silent client is asked whether it is there."""

    def pass_time(self, seconds: float) -> None:
        self.reactor.pump([1.0] * int(seconds))

    async def test_answered(self) -> None:
        """A client that answers stays, however long it has nothing to say."""
        await self.start()
        client, _ = self.connected()
        for _ in range(5):
            self.pass_time(sockets.PING_INTERVAL + 2)
            client.exchange()  # the ping comes in, and goes out as a pong
            client.exchange()
        self.pass_time(sockets.PING_INTERVAL - 1)
        self.assertEqual(client.call("echo", value=1), [succeeded(1)])

    async def test_dead(self) -> None:
        """A client whose cable was pulled is found within PING_INTERVAL and PING_TIMEOUT; its subscriptions go."""
        await self.start()
        client, socket_id = self.connected()
        client.call("subscribe", channel="room")
        hub = self.hub()
        self.pass_time(sockets.PING_INTERVAL + sockets.PING_TIMEOUT - 2)
        self.assertEqual(hub.get_subscriptions(socket_id), ["room"])
        self.pass_time(4)
        self.assertFalse(client.peer.transport.connected)
        self.assertRaises(ConnectionNotFound, hub.get_subscriptions, socket_id)

    async def test_busy(self) -> None:
        """A client whose requests wait, so that we don't read from it, is not taken for dead."""
        await self.start()
        client, _ = self.connected()
        for number in range(20):
            client.call("wait", number, value=number)
        self.pass_time(3 * (sockets.PING_INTERVAL + sockets.PING_TIMEOUT))
        self.assertTrue(client.peer.transport.connected)
        for number in range(20):
            Chat.waiting[number].callback(None)
        self.assertEqual(len(client.messages()), 20)

    async def test_goodbye_unheard(self) -> None:
        """A socket that we have closed, and whose client takes nothing any more, does not stay."""
        await self.start()
        client, _ = self.connected()
        transport, aborted = client.peer.transport, []
        self.patch(transport, "loseConnection", lambda: None)  # what was written has not gone out
        self.patch(transport, "abortConnection", lambda: aborted.append(True))
        client.protocol.receive_data(client.peer.send(b"\xff" * 20))
        self.pass_time(sockets.PING_INTERVAL - 1)
        self.assertEqual(aborted, [])
        self.pass_time(2)
        self.assertEqual(aborted, [True])
