"""What service code uses of eventlet, by threads."""

from __future__ import annotations

import socket
import threading
from unittest import TestCase

from txservices.migration import green
from txservices.migration.green.convenience import connect, listen
from txservices.migration.green.event import Event
from txservices.migration.green.pool import GreenPile, GreenPool
from txservices.migration.green.queue import Empty, Full, LifoQueue, PriorityQueue, Queue
from txservices.migration.green.semaphore import BoundedSemaphore, Semaphore
from txservices.migration.green.thread import GreenletExit, getcurrent, kill, spawn, spawn_after, spawn_n
from txservices.migration.green.timeout import Timeout, forget, with_timeout

FOREVER = 1_000  # seconds: a wait that only something else ends


class Threads(TestCase):
    """``spawn`` and what it gives."""

    def test_outcome(self) -> None:
        """``wait`` gives the result or raises the error, as often as one asks."""
        thread = spawn(lambda a, b=0: a + b, 1, b=2)
        self.assertEqual((thread.wait(), thread.wait()), (3, 3))
        failed = spawn(int, "x")
        for _ in range(2):
            self.assertRaises(ValueError, failed.wait)
        self.assertTrue(failed.dead)
        self.assertEqual(spawn_after(0.001, int, "3").wait(), 3)

    def test_kill(self) -> None:
        """A thread that waits for something of eventlet's ends there, and its ``finally`` runs."""
        ended = threading.Event()
        begun = threading.Event()

        def work() -> None:
            begun.set()
            try:
                green.sleep(FOREVER)
            finally:
                ended.set()

        thread = spawn(work)
        begun.wait()
        self.assertTrue(thread)
        kill(thread)
        self.assertIsInstance(thread.wait(), GreenletExit)
        self.assertTrue(ended.is_set())
        self.assertFalse(thread)

    def test_kill_by_an_error(self) -> None:
        """``kill`` may say with which error."""
        thread = spawn(green.sleep, FOREVER)
        thread.kill(KeyError("k"))
        self.assertRaises(KeyError, thread.wait)

    def test_cancel(self) -> None:
        """``cancel`` ends one that has not begun, and no other."""
        later = spawn_after(FOREVER, int)
        later.cancel()
        self.assertIsInstance(later.wait(), GreenletExit)
        event = Event()
        begun = threading.Event()
        thread = spawn(lambda: (begun.set(), event.wait())[1])
        begun.wait()
        thread.cancel()
        event.send(1)
        self.assertEqual(thread.wait(), 1)

    def test_links(self) -> None:
        """Links are called when it ends, at once if it has ended, and not if they were taken away."""
        event: Event = Event()
        told: Queue = Queue()
        thread = spawn(event.wait)
        thread.link(lambda thread, word: told.put((word, thread.wait())), "end")
        unwanted = told.put
        thread.link(unwanted)
        self.assertTrue(thread.unlink(unwanted))
        self.assertFalse(thread.unlink(unwanted))
        event.send("sent")
        self.assertEqual(told.get(), ("end", "sent"))
        thread.link(lambda thread: told.put("late"))
        self.assertEqual(told.get(), "late")

    def test_current(self) -> None:
        """``getcurrent`` is the thread that runs."""
        thread = spawn(getcurrent)
        self.assertIs(thread.wait(), thread)
        self.assertIs(getcurrent(), threading.current_thread())
        self.assertIsNotNone(spawn_n(int).wait())

    def test_nothing_is_patched(self) -> None:
        """``monkey_patch`` is taken and does nothing."""
        green.monkey_patch(socket=True)
        self.assertFalse(green.is_monkey_patched("socket"))
        self.assertIs(green.import_patched("threading"), threading)


class Timeouts(TestCase):
    """``Timeout``."""

    def test_every_wait(self) -> None:
        """It ends each wait for something of eventlet's."""
        full = Queue(1)
        full.put(1)
        taken = Semaphore(0)
        waiting = spawn(green.sleep, FOREVER)
        self.addCleanup(waiting.kill)
        busy = GreenPool(1)
        busy.spawn(Event().wait)
        for wait in (
            lambda: green.sleep(FOREVER),
            lambda: Event().wait(),
            lambda: Queue().get(),
            lambda: full.put(2),
            lambda: taken.acquire(),
            lambda: waiting.wait(),
            lambda: busy.spawn(int),
            lambda: busy.waitall(),
        ):
            with self.assertRaises(Timeout) as raised, Timeout(0.001) as timeout:
                wait()
            self.assertIs(raised.exception, timeout)
            self.assertFalse(timeout.pending)

    def test_kinds(self) -> None:
        """It raises what it was given; False ends the block without an error; without seconds it never ends."""
        with self.assertRaises(KeyError), Timeout(0.001, KeyError("k")):
            green.sleep(FOREVER)
        with Timeout(0.001, False):
            green.sleep(FOREVER)
        with Timeout():
            green.sleep(0.001)
        with Timeout(FOREVER):
            green.sleep(0.001)
        self.assertEqual(str(Timeout(1)), "1 second")
        timeout = Timeout.start_new(Timeout(FOREVER))
        timeout.cancel()
        self.assertFalse(timeout.pending)

    def test_nested(self) -> None:
        """The one that is over first ends the wait, and the outer one goes on."""
        with Timeout(FOREVER) as outer:
            with self.assertRaises(Timeout) as raised, Timeout(0.001) as inner:
                green.sleep(FOREVER)
            self.assertIs(raised.exception, inner)
            self.assertTrue(outer.pending)

    def test_forgotten(self) -> None:
        """A timeout that its worker has left behind does not end the waits of the next one in that thread."""
        Timeout(0)
        forget()
        green.sleep(0.001)

    def test_with_timeout(self) -> None:
        """``with_timeout`` gives a value in place of the error, if there is one."""
        self.assertEqual(with_timeout(FOREVER, int, "3"), 3)
        self.assertEqual(with_timeout(0.001, green.sleep, FOREVER, timeout_value="late"), "late")
        self.assertRaises(Timeout, with_timeout, 0.001, green.sleep, FOREVER)


class Events(TestCase):
    """``Event``."""

    def test_sent(self) -> None:
        """Everybody gets what is sent, once."""
        event = Event()
        waiting = [spawn(event.wait) for _ in range(3)]
        self.assertIsNone(event.wait(timeout=0.001))
        self.assertEqual((event.ready(), event.poll("not yet")), (False, "not yet"))
        event.send(5)
        self.assertEqual([each.wait() for each in waiting], [5, 5, 5])
        self.assertEqual(
            (event.ready(), event.poll(), event.has_result(), event.has_exception()), (True, 5, True, False)
        )
        self.assertRaises(AssertionError, event.send, 6)
        event.reset()
        self.assertFalse(event.ready())

    def test_errors(self) -> None:
        """An error is raised, however it is given."""
        for given in ((ValueError("v"),), (ValueError,), (ValueError, ValueError("v"), None)):
            event = Event()
            event.send_exception(*given)
            self.assertRaises(ValueError, event.wait)
            self.assertTrue(event.has_exception())


class Queues(TestCase):
    """``Queue`` and its kin."""

    def test_orders(self) -> None:
        """First in first out, last in first out, least first."""
        for cls, order in ((Queue, [2, 1, 3]), (LifoQueue, [3, 1, 2]), (PriorityQueue, [1, 2, 3])):
            queue = cls()
            for item in (2, 1, 3):
                queue.put(item)
            self.assertEqual(([queue.get() for _ in range(3)], len(queue), bool(queue)), (order, 0, True))

    def test_bounds(self) -> None:
        """A full one refuses, and so does an empty one, at once or in time."""
        queue = Queue(1)
        self.assertTrue(queue.empty())
        queue.put_nowait(1)
        self.assertTrue(queue.full())
        self.assertRaises(Full, queue.put_nowait, 2)
        self.assertRaises(Full, queue.put, 2, timeout=0.001)
        self.assertEqual(queue.get_nowait(), 1)
        self.assertRaises(Empty, queue.get_nowait)
        self.assertRaises(Empty, queue.get, timeout=0.001)

    def test_join(self) -> None:
        """``join`` waits until each item is done."""
        queue = Queue()
        queue.put(1)
        joining = spawn(queue.join)
        queue.get()
        self.assertFalse(joining.dead)
        queue.task_done()
        joining.wait()


class Pools(TestCase):
    """Pools and semaphores."""

    def test_size(self) -> None:
        """No more run at a time than the size says; a further one waits for its turn."""
        pool, event = GreenPool(2), Event()
        first = [pool.spawn(event.wait) for _ in range(2)]
        self.assertEqual((pool.free(), pool.running(), pool.waiting()), (0, 2, 0))
        third = spawn(pool.spawn, int, "3")
        event.send(1)
        self.assertEqual([each.wait() for each in first], [1, 1])
        self.assertEqual(third.wait().wait(), 3)
        pool.spawn_n(int)
        pool.waitall()
        pool.resize(5)
        self.assertEqual((pool.free(), pool.running()), (5, 0))

    def test_maps(self) -> None:
        """Results come in the order of the items."""
        pool = GreenPool(2)
        self.assertEqual(list(pool.imap(pow, [1, 2, 3], [2, 2, 2])), [1, 4, 9])
        self.assertEqual(list(pool.starmap(pow, [(2, 3), (3, 2), (1, 1)])), [8, 9, 1])
        pile = GreenPile(pool)
        pile.spawn(int, "1")
        self.assertEqual(list(pile), [1])

    def test_semaphores(self) -> None:
        """So many come in; a bounded one is not left by who has not come in."""
        semaphore = Semaphore(1)
        with semaphore:
            self.assertTrue(semaphore.locked())
            self.assertFalse(semaphore.acquire(blocking=False))
        self.assertEqual((semaphore.balance, semaphore.locked()), (1, False))
        self.assertRaises(ValueError, Semaphore, -1)
        self.assertRaises(ValueError, BoundedSemaphore(1).release)


class Sockets(TestCase):
    """``listen`` and ``connect``."""

    def test_connections(self) -> None:
        """One end accepts, and the other connects, from an address that it may choose."""
        with listen(("127.0.0.1", 0)) as listener:
            for bind in (None, ("127.0.0.1", 0)):
                with connect(listener.getsockname(), bind=bind) as one:
                    other, address = listener.accept()
                    with other:
                        self.assertEqual(address, one.getsockname())
                        one.sendall(b"hello")
                        self.assertEqual(other.recv(5), b"hello")

    def test_closed(self) -> None:
        """To close it ends a thread that waits for a connection, and the port is free at once."""
        listener = listen(("127.0.0.1", 0))
        address = listener.getsockname()
        waiting = spawn(listener.accept)
        with connect(address):
            waiting.wait()[0].close()
        waiting = spawn(listener.accept)
        listener.close()
        self.assertIsInstance(waiting.wait(), GreenletExit)
        self.assertRaises(OSError, listener.accept)
        self.assertRaises(OSError, connect, address)
        listen(address).close()

    def test_shared_ports(self) -> None:
        """Two may listen on a port that has a number, unless they say otherwise."""
        with listen(("127.0.0.1", 0)) as listener:
            self.assertFalse(listener.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT))
            address = listener.getsockname()
            self.assertRaises(OSError, listen, address)
        with listen(address) as listener, listen(address):
            self.assertRaises(OSError, listen, address, reuse_port=False)
