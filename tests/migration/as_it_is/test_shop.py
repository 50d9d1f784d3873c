"""A suite in nameko's style. Nothing in here knows of txservices."""

import itertools
from unittest.mock import ANY, Mock, call, patch

import eventlet
import pytest
from extras import Desk
from nameko.amqp.publish import Publisher
from nameko.containers import ServiceContainer
from nameko.exceptions import MethodNotFound, RemoteError
from nameko.runners import ServiceRunner
from nameko.standalone.events import event_dispatcher
from nameko.standalone.rpc import ClusterRpcProxy, ServiceRpcProxy
from nameko.testing.services import (
    entrypoint_hook,
    entrypoint_waiter,
    replace_dependencies,
    restrict_entrypoints,
    worker_factory,
)
from nameko.testing.utils import assert_stops_raising, get_container, get_extension
from nameko.testing.waiting import wait_for_call
from shop import Auditor, Feed, Listener, Session, Shop, SoldOut, Stock

METHODS = ("take", "where", "slow", "bad")


@pytest.fixture
def stage():
    """A suite's fixture may have any name."""
    return itertools.count()


@pytest.fixture
def run(stage):
    return next(stage)


@pytest.fixture
def start(container_factory, rabbit_config, web_config):
    config = dict(rabbit_config, PLACE="here", **web_config)

    def start(service_cls, *names):
        container = container_factory(service_cls, config)
        if names:
            restrict_entrypoints(container, *names)
        container.start()
        return container

    return start


def test_names(run):
    assert run == 0


def test_hook(start):
    stock = start(Stock)
    with entrypoint_hook(stock, "take") as take:
        assert take("tin", number=2) == {"item": "tin", "number": 2, "rows": 3}
        with pytest.raises(SoldOut):
            take("gold")
    session = get_extension(stock, Session)
    assert session.told == ["start", ("committed", "take"), ("rolled back", "take")]
    stock.stop()
    assert session.told[-1] == "stop"


def test_timeout(start):
    stock = start(Stock)
    with pytest.raises(eventlet.Timeout), eventlet.Timeout(0.1), entrypoint_hook(stock, "slow") as slow:
        slow(1)


def test_context_data(start):
    stock = start(Stock, *METHODS)
    with entrypoint_hook(stock, "where", {"language": "de", "tenant": "t"}) as where:
        assert where() == ["de", "t", "here", "sql://stock"]


def test_calls_and_events(start):
    start(Stock, *METHODS)
    shop = start(Shop, "order", "on_ordered", "on_ordered_everywhere", "on_placed")
    with entrypoint_hook(shop, "order") as order:
        with entrypoint_waiter(shop, "on_ordered") as event:
            with entrypoint_waiter(shop, "on_ordered_everywhere") as everywhere:
                with entrypoint_waiter(shop, "on_placed") as message:
                    assert order("tin")["number"] == 1
        with pytest.raises(RemoteError) as raised:
            order("gold")
    assert raised.value.exc_type == "SoldOut"
    assert (event.get(), everywhere.get(), message.get()) == ("tin", {"item": "tin"}, "tin")


@pytest.mark.parametrize(
    ("method", "arguments", "result"),
    [
        ("many", [["a", "b"]], ["a", "b"]),
        ("at_once", [["a", "b", "c", "d"]], ["a", "b", "c", "d"]),
        ("in_the_background", ["a"], ["a", "sent"]),
        ("one_by_one", [4], [[0, 1, 2, 3], 2]),
        ("impatient", [0.1], "0.1 seconds"),
    ],
)
def test_eventlet(start, method, arguments, result):
    start(Stock, *METHODS)
    shop = start(Shop, method)
    with entrypoint_hook(shop, method) as called:
        assert called(*arguments) == result


def test_listener(start):
    shop = start(Shop, "heard")
    feed, listener = get_extension(shop, Feed), get_extension(shop, Listener)
    with entrypoint_waiter(shop, "heard") as heard:
        feed.queue.put(2)
    assert heard.get() == 4 + 3
    assert listener.results.get(timeout=20) == (7, None)
    feed.queue.put(0)
    assert listener.results.get(timeout=20) == (None, "ValueError")
    shop.stop()
    assert feed.thread.dead if hasattr(feed.thread, "dead") else True


def test_timer(start):
    start(Shop, "tick")
    assert Shop.seen.get(timeout=20) == "tick"


def test_http(start, web_session):
    start(Stock, *METHODS)
    start(Shop, "item", "pieces", "broken", "bad", "gold")
    response = web_session.get("/items/tin", params={"number": 3})
    assert (response.status_code, response.text) == (200, "3")
    response = web_session.post("/items/tin", data="body")
    assert (response.status_code, response.text, response.headers["X-Item"]) == (201, "body", "tin")
    assert web_session.get("/pieces", timeout=20).text == "piece 0 piece 1 piece 2 "
    assert web_session.get("/broken").status_code == 500
    assert web_session.get("/bad").status_code == 400
    response = web_session.get("/gold")
    assert (response.status_code, response.text) == (410, "no more of that")
    assert web_session.get("/nowhere").status_code == 404
    assert web_session.put("/items/tin").status_code == 405


def test_websocket(start, websocket):
    start(Shop, "follow")
    socket = websocket()
    assert socket.rpc("follow", item="tin") == ["tin", ["tin"]]
    assert socket.wait_for_event("followed") == ("followed", {"by": 1})


def test_programs(start, rabbit_config):
    start(Stock, *METHODS)
    shop = start(Shop, "on_ordered")
    with ServiceRpcProxy("stock", rabbit_config, timeout=20) as stock:
        assert stock.take("a")["item"] == "a"
        with pytest.raises(RemoteError):
            stock.bad()
    with ClusterRpcProxy(rabbit_config, timeout=20) as cluster:
        reply = cluster.stock.take.call_async("b")
        assert cluster.stock.take("c")["item"] == "c"
        assert reply.result()["item"] == "b"
    with entrypoint_waiter(shop, "on_ordered", callback=lambda worker_ctx, result, exc_info: result == "d") as waited:
        event_dispatcher(rabbit_config)("shop", "ordered", {"item": "d"})
    assert waited.get() == "d"


def test_auditor(start):
    start(Stock, *METHODS)
    auditor = start(Auditor)
    with entrypoint_hook(auditor, "audit") as audit:
        assert audit() == "iron"


def test_proxies_of_a_package(start):
    stock = start(Stock, *METHODS)
    desk = start(Desk)
    with entrypoint_hook(desk, "ask") as ask:
        assert ask("tin") == ("tin", 1)
        stock.stop()
        assert ask("tin") == ("tin", 1)


def test_entrypoints_of_a_package(start, rabbit_config, get_message_from_queue):
    desk = start(Desk)
    config = {"AMQP_URI": rabbit_config["AMQP_URI"]}
    with ServiceRpcProxy("desk", config, timeout=20) as proxy:
        assert proxy.say("tin") == "tin, copied"
        with pytest.raises(MethodNotFound):
            proxy.shout("tin")
    assert get_message_from_queue("blue").payload == {"args": ["tin"], "kwargs": {}}
    with entrypoint_waiter(desk, "hear") as heard:
        Publisher(config["AMQP_URI"]).publish("tin", routing_key="desk")
    assert heard.get() == "tin, copied"
    assert get_message_from_queue("blue").payload == "tin"


def test_worker_factory():
    shop = worker_factory(Shop)
    shop.stock.take.side_effect = lambda item, number: {"item": item, "number": number}
    assert shop.order("tin", 2) == {"item": "tin", "number": 2}
    assert shop.dispatch.call_args_list == [call("ordered", {"item": "tin"})]
    assert shop.publish.call_args_list == [call({"item": "tin"}, routing_key="placed")]
    stock = Mock()
    assert worker_factory(Shop, stock=stock).stock is stock


def test_replaced(container_factory, rabbit_config, web_config):
    shop = container_factory(Shop, {**rabbit_config, **web_config})
    restrict_entrypoints(shop, "order")
    stock, dispatch, publish = replace_dependencies(shop, "stock", "dispatch", "publish")
    stock.take.return_value = {"item": "tin"}
    shop.start()
    with entrypoint_hook(shop, "order") as order:
        assert order("tin") == {"item": "tin"}
    assert dispatch.call_args_list == [call("ordered", {"item": "tin"})]
    assert publish.call_args_list == [call({"item": "tin"}, routing_key=ANY)]


def test_patched(start):
    stock = start(Stock, "take")
    with patch.object(Session, "add", return_value=7), entrypoint_hook(stock, "take") as take:
        assert take("tin")["rows"] == 7
    with wait_for_call(Session, "worker_teardown"), entrypoint_hook(stock, "take") as take:
        take("tin")


def test_runner(runner_factory, rabbit_config):
    runner = runner_factory(rabbit_config, Stock, Auditor)
    runner.start()
    with entrypoint_hook(get_container(runner, Auditor), "audit") as audit:
        assert audit() == "iron"
    runner.stop()
    runner.wait()


def test_by_hand(rabbit_config):
    runner = ServiceRunner(rabbit_config)
    runner.add_service(Stock)
    runner.start()
    with ServiceRpcProxy("stock", rabbit_config, timeout=20) as stock:
        assert_stops_raising(lambda: stock.take("a"))
    runner.kill()
    container = ServiceContainer(Stock, rabbit_config)
    container.start()
    container.stop()
    container.wait()


def test_thread_dies(start):
    stock = start(Stock, "take")

    def die():
        raise ValueError("died")

    stock.spawn_managed_thread(die)
    with pytest.raises(ValueError):
        stock.wait()


def test_queue(start, rabbit_config, get_message_from_queue):
    from kombu import Connection

    with Connection(rabbit_config["AMQP_URI"]) as connection:
        queue = connection.SimpleQueue("letters")
        queue.put({"letter": 1}, serializer="json")
        queue.close()
    assert get_message_from_queue("letters").payload == {"letter": 1}


def test_predictable_ids(predictable_call_ids, start):
    stock = start(Stock, "take")
    with patch.object(Session, "worker_setup", autospec=True) as setup, entrypoint_hook(stock, "take") as take:
        with pytest.raises(AssertionError):
            assert take("tin") is None
    assert setup.call_args[0][1].call_id == "stock.take.0"
