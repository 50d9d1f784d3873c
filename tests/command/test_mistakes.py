"""The mistakes of a newcomer: for each the very line that is read, and the status that the command ends with.

One that is found before anything runs is the last line of what is printed. One at work is a line of the service, or of
the command that called it.
"""

from __future__ import annotations

import errno
import re
import sys

from twisted.internet import reactor
from twisted.internet.error import CannotListenError
from twisted.trial.unittest import TestCase

from tests import rabbitmq
from tests.command.inside import InsideCase, Typed

IMPORTS = """
from txservices.events import BROADCAST, EventDispatcher, event_handler
from txservices.extensions import DependencyProvider
from txservices.messaging import Exchange, Publisher, Queue, consume
from txservices.rpc import RpcProxy, rpc
from txservices.timer import timer
from txservices.web.handlers import http
"""
SELL = "@rpc\n    def sell(self): pass"


def shop(body: str, name: str = 'name = "shop"') -> str:
    """A module with a service."""
    return f"{IMPORTS}\nclass Shop:\n    {name}\n    {body}\n"


# what is wrong -> the module, what is typed after `txservices run`, and the last line
STARTS: dict[str, tuple[str, list[str], str]] = {
    "the module's name": (
        shop(SELL),
        ["shpo"],
        r"Error: no module named 'shpo' in \S+ or among the installed packages: check the name, and the folder you are"
        r" in",
    ),
    "the file in place of the module": (
        shop(SELL),
        ["shop.py"],
        r"Error: no module named 'shop.py': did you mean 'shop'\?",
    ),
    "the class's name": (
        shop(SELL),
        ["shop:Shpo"],
        r"Error: no class 'Shpo' in module 'shop': its service classes are Shop",
    ),
    "an error in the module": (
        "1 / 0",
        ["shop"],
        r"Error: module 'shop' could not be imported: ZeroDivisionError: division by zero",
    ),
    "modules that import each other": (
        "from shop import Shop",
        ["shop"],
        r"Error: module 'shop' could not be imported: ImportError: cannot import name 'Shop' from partially initialized"
        r" module 'shop' \(most likely due to a circular import\) \(.*/shop.py\)",
    ),
    "no service": (
        "class Shop:\n    name = 'shop'\n    def sell(self): pass\n",
        ["shop"],
        r"Error: nothing in module 'shop' looks like a service: mark a method with @rpc or the like",
    ),
    "no name": (
        shop(SELL, ""),
        ["shop"],
        r"Error: Service class must define a `name` attribute \(shop.Shop\): others call it by that name",
    ),
    "an empty name": (
        shop(SELL, "name = ''"),
        ["shop"],
        r"Error: the name of shop.Shop is empty: others call the service by its name",
    ),
    "a pattern for a name": (
        shop(SELL, "name = '#'"),
        ["shop"],
        r"Error: the name '#' of shop.Shop has \* or # in it, which the broker takes for any word: calls of others"
        r" would come in as well",
    ),
    "two classes of one name": (
        shop(SELL) + "class Again(Shop): pass",
        ["shop"],
        r"Error: shop.Shop and shop.Again are both called 'shop': give them different names, or name the one that is to"
        r" run, as in shop:Again",
    ),
    "a timer without brackets": (
        shop("@timer\n    def tick(self): pass"),
        ["shop"],
        r"Error: \S+/shop.py, line \d+: the decorator above Shop.tick needs interval: write it with its arguments in"
        r" brackets",
    ),
    "a timer without its argument": (
        shop("@timer()\n    def tick(self): pass"),
        ["shop"],
        r"Error: \S+/shop.py, line \d+: the decorator above Shop.tick missing 1 required positional argument:"
        r" 'interval'",
    ),
    "an option that does not exist": (
        shop("@rpc(timeout=5)\n    def sell(self): pass"),
        ["shop"],
        r"Error: \S+/shop.py, line \d+: the decorator above Shop.sell got an unexpected keyword argument 'timeout'",
    ),
    "staticmethod above rpc": (
        shop("@staticmethod\n    @rpc\n    def sell(): pass"),
        ["shop"],
        r"Error: shop.Shop.sell is a staticmethod: an entrypoint is a plain method, with self",
    ),
    "rpc above staticmethod": (
        shop("@rpc\n    @staticmethod\n    def sell(): pass"),
        ["shop"],
        r"Error: \S+/shop.py, line \d+: the decorator above Shop.sell is on a staticmethod, which is no method: put it"
        r" directly above the `def` of a plain method, with self",
    ),
    "a method without self": (
        shop("@rpc\n    def sell(): pass"),
        ["shop"],
        r"Error: shop.Shop.sell takes no self: an entrypoint is a method, so write `def sell\(self\)`",
    ),
    "an __init__ with arguments": (
        shop(f"def __init__(self, db): pass\n    {SELL}"),
        ["shop"],
        r"Error: shop.Shop can't be made without arguments, its __init__ needs db: each call has an instance of its"
        r" own. Inject what it needs by a DependencyProvider",
    ),
    "a dependency without brackets": (
        shop(f"dispatch = EventDispatcher\n    {SELL}"),
        ["shop"],
        r"Error: shop.Shop.dispatch is the class EventDispatcher: write EventDispatcher\(\)",
    ),
    "a broadcast that waits": (
        shop("@event_handler('bank', 'paid', handler_type=BROADCAST)\n    def paid(self, data): pass"),
        ["shop"],
        r"Error: 'paid' of bank: with a new queue at each start nothing can wait for this instance. Give"
        r" reliable_delivery=False with BROADCAST, or a broadcast_identifier that stays",
    ),
    "a URL without a slash": (
        shop("@http('GET', 'sell')\n    def sell(self, request): pass"),
        ["shop"],
        r"Error: shop.sell: GET 'sell': URL rule 'sell' must start with a slash\.",
    ),
    "two methods at one URL": (
        shop(
            "@http('GET', '/a')\n    def a(self, request): pass\n    @http('GET', '/a')\n    def b(self, request): pass"
        ),
        ["shop"],
        r"Error: shop.a and shop.b both serve GET /a: change one's URL",
    ),
    "a type of exchange": (
        shop("publish = Publisher(exchange=Exchange('e', type='topik'))\n    " + SELL),
        ["shop"],
        r"Error: exchange 'e' is of a type that this broker does not have \(PRECONDITION_FAILED - unknown exchange type"
        r" 'topik' .*\): enable the plugin that has it",
    ),
    "a queue's argument": (
        shop("@consume(Queue('q', arguments={'x-max-length': 'ten'}))\n    def take(self, body): pass"),
        ["shop"],
        r"Error: queue 'q' is refused by the broker \(PRECONDITION_FAILED - invalid arg 'x-max-length' .*\):"
        r" correct its"
        r" arguments",
    ),
    "a name over 255 bytes": (
        shop("@consume(Queue('q' * 300))\n    def take(self, body): pass"),
        ["shop"],
        r"Error: queue 'q{60}…' has something that AMQP can't carry \(.*300 bytes.*\): correct its names, numbers and"
        r" arguments",
    ),
    "no YAML": (
        shop(SELL),
        ["shop", "--config", "bad.yaml"],
        r"Error: bad.yaml, line 3: .*: correct the YAML there",
    ),
    "a config that is not there": (
        shop(SELL),
        ["shop", "--config", "no.yaml"],
        r"Error: cannot read the config file no.yaml: No such file or directory: give the path of a YAML file",
    ),
    "a value of another type": (
        shop(SELL),
        ["shop", "--define", "max_workers='10'"],
        r"Error: max_workers: '10' is no whole number from 0: write 10",
    ),
    "an empty key": (
        shop(SELL),
        ["shop", "--config", "empty.yaml"],
        r"Error: empty.yaml, line 2: AMQP_URI: the environment has no TX_NO_SUCH_VARIABLE: set it, or write a default,"
        r" as in \${TX_NO_SUCH_VARIABLE:…}",
    ),
    "an address without amqp://": (
        shop(SELL),
        ["shop", "--broker", "localhost"],
        r"Error: AMQP_URI begins with '', known are amqp://, pyamqp://, amqps://, memory://: write it like amqp://.*",
    ),
    "nobody at the broker's address": (
        shop(SELL),
        ["shop", "--broker", "amqp://me:s3cret12@127.0.0.1:1/", "--define", "BROKER_START_TIMEOUT=0"],
        r"Error: no broker at amqp://me:\*{8}@127.0.0.1:1/ \(Connection was refused.*\) within the 0 s of"
        r" BROKER_START_TIMEOUT: start it, or correct AMQP_URI; without that key a service waits for its broker",
    ),
}
AT_WORK = (
    shop(
        """stock = RpcProxy("stock")
    told = False

    @rpc
    def sell(self, what, count=1): pass

    @rpc
    def look(self): return self

    @rpc
    def forget(self): return {"left": self.stock.count()}

    @rpc
    def fail(self): raise ValueError("not today")

    @event_handler("bank", "paid")
    def paid(self): pass

    @rpc
    def hold(self):
        import time
        end = time.monotonic() + 30
        while not Shop.told and time.monotonic() < end: pass

"""
    )
    + """
class Stock:
    name = "stock"

    @rpc
    def count(self): return 3
"""
)
# what is typed -> the status, and the last line
CALLS: dict[tuple[str, ...], tuple[int, str]] = {
    ("call", "shop"): (2, r"Error: 'shop' names no method: write service.method"),
    ("call", "shop.sell", "apples"): (
        2,
        r"Error: apples is not JSON \(.*\): a text is written '\"apples\"'",
    ),
    ("call", "shop.sell", '"apples"'): (
        2,
        r"Error: arguments \"apples\": write an array, as in '\[\"apples\"\]', or an .*",
    ),
    ("call", "shop.sell"): (1, r"IncorrectSignature: .*missing 1 required .*: 'what' \(call of shop.sell\)"),
    ("call", "shop.sell", '{"whta": 1}'): (1, r"IncorrectSignature: .*'whta' \(call of shop.sell\)"),
    ("call", "shop.sel"): (1, r"MethodNotFound: sel \(call of shop.sel\)"),
    ("call", "shpo.sell"): (1, r"UnknownService: Unknown service `shpo` \(call of shpo.sell\)"),
    ("call", "shop.fail"): (1, r"RemoteError: ValueError not today"),
    ("call", "shop.look"): (
        1,
        r"RemoteError: UnserializableValueError Unserializable value: `<shop.Shop object at .*>`",
    ),
    ("call", "shop.forget"): (
        1,
        r"RemoteError: UnserializableValueError Unserializable value: `{'left': <Answer at .*>}`",
    ),
    ("dispatch", "shpo", "sold"): (
        2,
        r"Error: no service 'shpo' has dispatched events on this broker, so nobody hears them: see the name, or start a"
        r" service that dispatches or handles them",
    ),
    ("dispatch", "bank", "payd"): (
        0,
        r"nobody hears the event 'payd' of 'bank': see the name, or start a service that handles it",
    ),
}
CALLER = r"standalone_rpc_proxy\.call\.\S+"
WORKER = rf"\[shop\.\w+\.\S+ from {CALLER}\]"
# what the services log of that
LOGGED = (
    rf"warn txservices\.rpc: a call of shop.sell by {CALLER} is refused: IncorrectSignature: sell\(\) missing 1"
    rf" required"
    r" positional argument: 'what'",
    rf"warn txservices\.rpc: a call of shop.sel by {CALLER} is refused: MethodNotFound: sel",
    rf"error txservices\.workers {WORKER}: error handling worker <WorkerContext \[shop.fail\] at \S+>: not today",
    rf"warn txservices\.responder {WORKER}: the result of shop.look for {CALLER} can't be written: TypeError:"
    rf" <shop.Shop"
    r" object at \S+> is a Shop, which JSON can't carry",
    rf"warn txservices\.responder {WORKER}: the result of shop.forget for {CALLER} can't be written: TypeError:"
    rf" <Answer"
    r" at .*> is a Answer, which JSON can't carry: await it first",
    r"error txservices\.workers \[shop.paid.\S+\]: error handling worker <WorkerContext \[shop.paid\] at \S+>:"
    r" Shop.paid\(\) takes 1 positional argument but 2 were given",
    rf"warn txservices\.watchdog {WORKER}: the reactor has been held for \d+\.\d s by shop.hold: what blocks"
    rf" belongs in a"
    r" thread \(blocking = True\), what computes for long should await now and then",
    r"warn txservices\.watchdog: the reactor goes on, after \d+\.\d s",
)


class Mistakes(InsideCase, TestCase):
    """Those that no broker of one's own is needed for."""

    def last(self, typed: Typed, status: int, pattern: str, what: object) -> None:
        self.assertEqual(typed.status, status, f"{what}: {typed.text}")
        last = typed.text.splitlines()[-1]
        self.assertTrue(re.fullmatch(pattern, last), f"{what}: {typed.text}")

    async def test_starts(self) -> None:
        """A start that can't succeed ends with 2, and its last line says what is wrong and what to write."""
        self.write("bad.yaml", "a: 1\nb: [\n")
        self.write("empty.yaml", "a: 1\nAMQP_URI: amqp://${TX_NO_SUCH_VARIABLE}/\n")
        for what, (module, arguments, pattern) in STARTS.items():
            self.module(module)
            typed = self.typed("run", *arguments)
            await typed.ended
            self.last(typed, 2, pattern, what)
            self.assertNotIn("critical", typed.text)

    async def test_ports(self) -> None:
        """Ports that are taken, or that only root may open, are told with the key that has another."""
        web = shop("@http('GET', '/')\n    def look(self, request): pass")
        in_use = (errno.EADDRINUSE, "Address already in use", "end the program there")
        root = (
            errno.EACCES,
            "Permission denied",
            "a port below 1024 takes root, or CAP_NET_BIND_SERVICE",
        )
        other = r"set WEB_SERVER_ADDRESS to another host:port \(port 0 is any free one\)"
        for module, address, (number, words, cure), instead in (
            (web, self.ports[1], in_use, other),
            (web, self.ports[1], root, other),
            (shop(SELL), self.ports[0], root, "choose another port"),
        ):
            host, _, port = address.partition(":")
            denied = CannotListenError(host, int(port), OSError(number, words))

            def refuse(*arguments: object, error: CannotListenError = denied, **more: object) -> None:
                raise error

            self.module(module)
            self.patch(reactor, "listenTCP", refuse)
            typed = self.typed("run", "shop")
            await typed.ended
            pattern = rf"Error: can't listen at {address}: \[Errno {number}\] {words}: {cure}, or {instead}"
            self.last(typed, 2, pattern, words)

    async def test_calls(self) -> None:
        """What is typed wrongly is told where it was typed."""
        self.module(AT_WORK)
        running = self.typed("run", "shop", "--define", "BLOCKED_REACTOR_TIMEOUT=0.1")
        await running.line("running: shop, stock")
        for arguments, (status, pattern) in CALLS.items():
            typed = self.typed(*arguments)
            await typed.ended
            self.last(typed, status, pattern, arguments)
        told = running.line(r".* the reactor has been held for .* by shop\.hold: .*")  # in the watchdog's thread
        told.addCallback(lambda _: setattr(sys.modules["shop"].Shop, "told", True))
        for arguments in (("dispatch", "bank", "paid"), ("call", "shop.hold")):
            self.assertEqual(await self.typed(*arguments).ended, 0)
        await running.line(".*the reactor goes on.*")
        self.assertEqual(len(self.flushLoggedErrors(ValueError, TypeError)), 2)
        for pattern in LOGGED:
            self.assertRegex(running.text, rf"(?m)^\d\d:\d\d:\d\d {pattern}$")

    async def test_setup(self) -> None:
        """A dependency that fails in its setup is named, before the traceback that ends with its error."""
        self.module(
            shop(f"db = Database()\n    {SELL}").replace(
                "class Shop",
                "class Database(DependencyProvider):\n    def setup(self): raise OSError('no database')\n\nclass Shop",
            )
        )
        typed = self.typed("run", "shop")
        await typed.ended
        self.last(typed, 1, r"\tbuiltins.OSError: no database", "")
        self.assertRegex(
            typed.text,
            r"(?m)^\S+ error txservices.containers: shop: <Database \[shop\.\w+\] at \S+>: its setup has failed: "
            r"OSError\('no database'\)$",
        )
        self.flushLoggedErrors(OSError)

    async def test_unknown_key(self) -> None:
        """A key that is nearly one of ours is asked about, and the services run."""
        self.module(shop("@timer(60)\n    def tick(self): pass"))
        typed = self.typed("run", "shop", "--define", "RPC_TIMOUT=5")
        await typed.line("running: shop")
        self.assertRegex(
            typed.text,
            r"(?m)^\S+ warn txservices.configuration: the configuration's 'RPC_TIMOUT' means nothing here: is"
            r" 'RPC_TIMEOUT' meant\?$",
        )

    async def test_no_broker(self) -> None:
        """A broker that is not there is waited for, with a line for each attempt."""
        self.module(shop(SELL))
        typed = self.typed("run", "shop", "--broker", "amqp://me:s3cret12@127.0.0.1:1/")
        await typed.line(
            r"\S+ warn txservices.amqp.connection: no connection to the broker at amqp://me:\*{8}@127.0.0.1:1/"
            r" \(txservices: shop consumes\): Connection was refused by other side: 111: Connection refused."
            r" Trying again"
            r" in 0.\d s"
        )

    async def test_no_broker_for_a_call(self) -> None:
        """A call needs somebody's broker."""
        typed = self.typed("call", "shop.sell")
        await typed.ended
        self.last(
            typed,
            2,
            rf"Error: no broker on {self.ports[0]}: start one \(`txservices run MODULE`, `txservices broker`\), or name"
            r" yours with --broker or AMQP_URI",
            "",
        )

    async def test_password(self) -> None:
        """A wrong password is refused, and not shown."""
        self.module(shop(SELL))
        first = self.typed("run", "shop")
        await first.line("running: shop")
        for arguments in (("run", "shop"), ("call", "shop.sell")):
            typed = self.typed(*arguments, "--broker", f"amqp://guest:s3cret12@{self.ports[0]}/")
            await typed.ended
            self.last(typed, 2, refused(rf"amqp://guest:\*{{8}}@{self.ports[0]}/", "ACCESS_REFUSED .*"), arguments)
            self.assertNotIn("s3cret12", typed.text)


def refused(address: str, words: str) -> str:
    return (
        rf"Error: the broker at {address} refuses us \({words}\): check user, password and virtual host of"
        rf" AMQP_URI, and"
        r" the user's permissions on the broker"
    )


class Refused(InsideCase, TestCase):
    """What only RabbitMQ refuses."""

    skip = rabbitmq.skip

    async def test_virtual_host(self) -> None:
        """A virtual host that is not there."""
        self.module(shop(SELL))
        node = rabbitmq.node()
        typed = self.typed("run", "shop", "--broker", node.uri("nowhere"))
        await typed.ended
        address = rf"amqp://guest:\*{{8}}@127.0.0.1:{node.port}/nowhere"
        words = r"NOT_ALLOWED - .*vhost '?nowhere'? not found.*"
        self.assertTrue(re.fullmatch(refused(address, words), typed.text.splitlines()[-1]), typed.text)
        self.assertEqual(typed.status, 2)
