"""Services in nameko's style, with each of its features. Nothing in here knows of txservices."""

import eventlet

eventlet.monkey_patch()

import threading  # noqa: E402
import time  # noqa: E402
from weakref import WeakKeyDictionary  # noqa: E402

from eventlet.event import Event  # noqa: E402
from eventlet.queue import Queue as GreenQueue  # noqa: E402
from eventlet.semaphore import Semaphore  # noqa: E402
from kombu import Exchange, Queue  # noqa: E402
from nameko.contextdata import ContextDataProvider, Language  # noqa: E402
from nameko.dependency_providers import Config  # noqa: E402
from nameko.events import BROADCAST, EventDispatcher, event_handler  # noqa: E402
from nameko.exceptions import BadRequest  # noqa: E402
from nameko.extensions import DependencyProvider, Entrypoint, ProviderCollector, SharedExtension  # noqa: E402
from nameko.messaging import Publisher, consume  # noqa: E402
from nameko.rpc import RpcProxy, rpc  # noqa: E402
from nameko.standalone.rpc import ClusterRpcProxy  # noqa: E402
from nameko.timer import timer  # noqa: E402
from nameko.web.handlers import HttpRequestHandler, http  # noqa: E402
from nameko.web.websocket import WebSocketHubProvider  # noqa: E402
from nameko.web.websocket import rpc as socket_rpc  # noqa: E402
from werkzeug.wrappers import Response  # noqa: E402

orders = Exchange("orders", type="direct", durable=True)
placed = Queue("placed", exchange=orders, routing_key="placed")


class SoldOut(Exception):
    pass


class Session(DependencyProvider):
    """Waits as a database does, and keeps things in thread locals as an ORM's session does."""

    def __init__(self, url="memory"):
        self.url = url

    def setup(self):
        time.sleep(0.01)
        self.local = threading.local()
        self.workers = WeakKeyDictionary()
        self.told = []

    def start(self):
        self.told.append("start")

    def stop(self):
        time.sleep(0.01)
        self.told.append("stop")

    def get_dependency(self, worker_ctx):
        time.sleep(0.01)
        self.local.rows = [worker_ctx.call_id]
        self.workers[worker_ctx] = self.local.rows
        return self

    def add(self, row):
        self.local.rows.append(row)
        return len(self.local.rows)

    def worker_setup(self, worker_ctx):
        self.local.rows.append("set up")

    def worker_result(self, worker_ctx, result=None, exc_info=None):
        assert self.local.rows is self.workers[worker_ctx]
        self.told.append(("rolled back" if exc_info else "committed", worker_ctx.entrypoint.method_name))

    def worker_teardown(self, worker_ctx):
        assert self.local.rows is self.workers.pop(worker_ctx)


class Tenant(ContextDataProvider):
    context_key = "tenant"


class Feed(SharedExtension, ProviderCollector):
    """One thread for all listeners, as clients of other brokers have."""

    def __init__(self):
        super().__init__()
        self.queue = GreenQueue()

    def start(self):
        self.thread = self.container.spawn_managed_thread(self.run, identifier="feed")

    def run(self):
        while True:
            item = self.queue.get()
            if item is None:
                return
            for provider in list(self._providers):
                provider.handle(item)

    def stop(self):
        self.wait_for_providers()
        self.queue.put(None)
        self.thread.wait()
        super().stop()

    def kill(self):
        self.queue.put(None)


class Listener(Entrypoint):
    feed = Feed()

    def __init__(self, factor=1, **kwargs):
        self.factor = factor
        self.results = GreenQueue()
        super().__init__(**kwargs)

    def setup(self):
        self.feed.register_provider(self)

    def stop(self):
        self.feed.unregister_provider(self)
        super().stop()

    def handle(self, item):
        self.container.spawn_worker(self, (item * self.factor,), {}, handle_result=self.handle_result)

    def handle_result(self, worker_ctx, result, exc_info):
        self.results.put((result, exc_info and exc_info[0].__name__))
        return result, exc_info


listen = Listener.decorator


class TeapotHandler(HttpRequestHandler):
    def response_from_exception(self, exc):
        if isinstance(exc, SoldOut):
            return Response("no more of that", status=410)
        return super().response_from_exception(exc)


teapot = TeapotHandler.decorator


class StockRpc(RpcProxy):
    def __init__(self, *args, **kwargs):
        super().__init__("stock", *args, **kwargs)


class Stock:
    name = "stock"

    session = Session("sql://stock")
    language = Language()
    tenant = Tenant()
    config = Config()

    @rpc(expected_exceptions=SoldOut)
    def take(self, item, number=1):
        if item == "gold":
            raise SoldOut(item)
        return {"item": item, "number": number, "rows": self.session.add(item)}

    @rpc
    def where(self):
        return [self.language, self.tenant, self.config.get("PLACE"), self.session.url]

    @rpc(sensitive_arguments="secret")
    def slow(self, seconds, secret=None):
        eventlet.sleep(seconds)
        return seconds

    @rpc
    def bad(self):
        raise BadRequest("never")


class Shop:
    name = "shop"

    stock = StockRpc()
    dispatch = EventDispatcher()
    publish = Publisher(exchange=orders)
    hub = WebSocketHubProvider()
    session = Session()
    seen = GreenQueue()

    @rpc
    def order(self, item, number=1):
        taken = self.stock.take(item, number=number)
        self.publish({"item": taken["item"]}, routing_key="placed")
        self.dispatch("ordered", {"item": item})
        return taken

    @rpc
    def many(self, items):
        replies = [self.stock.take.call_async(item) for item in items]
        return [reply.result()["item"] for reply in replies]

    @rpc
    def at_once(self, items):
        pool = eventlet.GreenPool(3)
        return [taken["item"] for taken in pool.imap(self.stock.take, items)]

    @rpc
    def in_the_background(self, item):
        event = Event()
        threads = [eventlet.spawn(self.stock.take, item), eventlet.spawn_after(0.01, event.send, "sent")]
        return [threads[0].wait()["item"], event.wait()]

    @rpc
    def one_by_one(self, number):
        semaphore, inside, most = Semaphore(2), [], []

        def work(n):
            with semaphore:
                inside.append(n)
                most.append(len(inside))
                eventlet.sleep(0.01)
                inside.remove(n)
            return n

        pile = eventlet.GreenPile(5)
        for n in range(number):
            pile.spawn(work, n)
        return [list(pile), max(most)]

    @rpc
    def impatient(self, seconds):
        with eventlet.Timeout(seconds, False):
            self.stock.slow(seconds * 20 + 1)
            return "in time"
        try:
            with eventlet.Timeout(seconds):
                eventlet.sleep(seconds * 20 + 1)
        except eventlet.Timeout as timeout:
            return str(timeout)

    @event_handler("shop", "ordered")
    def on_ordered(self, payload):
        return payload["item"]

    @event_handler("shop", "ordered", handler_type=BROADCAST, reliable_delivery=False)
    def on_ordered_everywhere(self, payload):
        return payload

    @consume(placed)
    def on_placed(self, payload):
        return payload["item"]

    @listen(factor=2)
    def heard(self, number):
        if number == 0:
            raise ValueError("nothing")
        return number + self.session.add(number)

    @timer(interval=0.05)
    def tick(self):
        self.seen.put("tick")

    @http("GET,POST", "/items/<string:item>")
    def item(self, request, item):
        if request.method == "POST":
            return 201, {"X-Item": item}, request.get_data(as_text=True)
        return str(self.stock.take(item, int(request.args.get("number", 1)))["number"])

    @http("GET", "/pieces")
    def pieces(self, request):
        return Response(f"piece {number} " for number in range(3))

    @http("GET", "/broken")
    def broken(self, request):
        raise ValueError("broken")

    @http("GET", "/bad", expected_exceptions=ValueError)
    def bad(self, request):
        raise ValueError("bad")

    @teapot("GET", "/gold")
    def gold(self, request):
        raise SoldOut("gold")

    @socket_rpc
    def follow(self, socket_id, item):
        self.hub.subscribe(socket_id, item)
        self.hub.broadcast(item, "followed", {"by": 1})
        return [item, self.hub.get_subscriptions(socket_id)]


class Auditor:
    """Calls by a proxy of its own, in a plain with block."""

    name = "auditor"

    config = Config()

    @rpc
    def audit(self):
        with ClusterRpcProxy({"AMQP_URI": self.config["AMQP_URI"]}, timeout=20) as cluster:
            return cluster.stock.take("iron")["item"]
