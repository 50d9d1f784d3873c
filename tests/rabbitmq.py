"""A RabbitMQ of our own: started by the first test that asks, ended with the process, and nobody else's touched.

    class OnRabbitMQ(TestCase):
        skip = rabbitmq.skip

        async def test_x(self):
            node = rabbitmq.node()
            config = {"AMQP_URI": node.uri(node.new_vhost())}

`node()` is one for the whole run, also for all processes of `trial -j`; virtual hosts keep tests apart, and cost
milliseconds where a node costs seconds. A test that treats its node badly takes `mortal()`, which each process has for
itself; one that needs several nodes makes them: `Node("one")`, then `start`.

Ports, data, logs, cookie and epmd are our own, in a temporary folder and on loopback, and all runs as whoever runs the
tests; a broker of the machine is neither used nor disturbed.

`python -m tests.rabbitmq` holds a node up in the foreground and prints its URI.
"""

from __future__ import annotations

import atexit
import fcntl
import itertools
import json
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from functools import cache
from typing import Any, NoReturn, TypeVar
from urllib.parse import quote

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.internet.utils import getProcessOutputAndValue

START_TIMEOUT = 90  # seconds; 5 to 10 on a free machine
STOP_TIMEOUT = 30
LOOK_AGAIN = 0.05
# Below the ports that the kernel gives to clients: one that tries again and again may come to connect to itself there.
PORTS = range(20_000, 30_000)

# Debian's /usr/sbin/rabbitmq-server changes to the user rabbitmq, and loses its pid to a shell on the way: the script
# behind it does neither.
FOLDERS = ["/usr/lib/rabbitmq/bin", *os.environ.get("PATH", "").split(os.pathsep), "/usr/sbin", "/usr/local/sbin"]

# A worker of `trial -j`: its folder lies beside those of the other workers of the run.
WORKER = os.path.basename(sys.argv[0]) == "workertrial.py"
RUN = os.path.dirname(os.getcwd())

# One scheduler, however many cores there are, and nothing that spins while it has no work: the tests share the cores.
ERLANG = "+S 1:1 +sbwt none +sbwtdcpu none +sbwtdio none"
LOOPBACK = "-kernel inet_dist_use_interface {127,0,0,1}"


def binary(text: str) -> str:
    """A text of ASCII in Erlang, which quotes it as JSON does."""
    return f"<<{json.dumps(text)}>>"


callers = itertools.count()
TESTS = binary("tests")  # who does something, for RabbitMQ's log


def permitted(user: str, vhost: str, *permissions: str) -> str:
    """The Erlang that sets what a user may configure, write and read."""
    what = ", ".join(map(binary, (user, vhost, *(permissions or [".*"] * 3))))
    return f"ok = rabbit_auth_backend_internal:set_permissions({what}, {TESTS})"


def program(name: str) -> str | None:
    """Where a script of RabbitMQ's, or epmd, lies."""
    return shutil.which(name, path=os.pathsep.join(FOLDERS))


MISSING = (
    None
    if all(map(program, ("rabbitmq-server", "epmd", "erl_call")))
    else "no rabbitmq-server on this machine: apt-get install rabbitmq-server"
)
# For the class attribute of tests that need a node. Where a skipped test counts as failed, as in CI, nothing is
# skipped, and the first node says what is missing.
skip = None if os.environ.get("TXSERVICES_NO_SKIPS") else MISSING


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    for port in random.sample(PORTS, 100):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError(f"no free port from {PORTS.start} to {PORTS.stop}")


def tied(argv: list[str]) -> list[str]:
    """The command of a process that does not outlive this one, even if this one is killed."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "KILL", *argv] if setpriv else argv


def spawn(argv: list[str], environ: dict[str, str], output: str) -> subprocess.Popen[bytes]:
    with open(output, "ab") as file:
        # a session of its own: Ctrl-C at the terminal is for the tests, which then end it
        return subprocess.Popen(
            tied(argv), env=environ, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True
        )


def end(process: subprocess.Popen[bytes] | None, first: signal.Signals = signal.SIGTERM) -> None:
    """End it by its pid: asked first, killed if it has not gone in time."""
    if process is None or process.poll() is not None:
        return
    process.send_signal(first)
    try:
        process.wait(STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


N = TypeVar("N", bound="Node")


class Home:
    """The ground that all nodes of a run share: the folder, the cookie, and the epmd that knows their names."""

    def __init__(self) -> None:
        self.folder = tempfile.mkdtemp(prefix="txservices-rabbitmq-")
        self.nodes: list[Node] = []
        self.write(".erlang.cookie", secrets.token_hex(16), 0o400)
        self.write("plugins", "[].")
        self.epmd_port = free_port()
        self.environ = {
            **{key: value for key, value in os.environ.items() if not key.startswith("RABBITMQ_")},
            "HOME": self.folder,  # where Erlang looks for the cookie
            "ERL_EPMD_PORT": str(self.epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
        }
        self.epmd = spawn([str(program("epmd"))], self.environ, os.path.join(self.folder, "epmd.log"))
        atexit.register(self.close)
        # A reactor that a signal has ended may not come back to Python's own exit. Workers of `trial -j` do, and say
        # after each test that their reactor shuts down.
        if not WORKER:
            reactor.addSystemEventTrigger("after", "shutdown", self.close)

    def write(self, name: str, text: str, mode: int = 0o600) -> None:
        path = os.path.join(self.folder, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(path, mode)

    def close(self) -> None:
        """Leave nothing. The nodes' data is nobody's, so they are killed rather than asked."""
        for each in self.nodes:
            each.kill()
        end(self.epmd)
        shutil.rmtree(self.folder, ignore_errors=True)
        for each in (home, shared, mortal):
            each.cache_clear()


class Node:
    """One RabbitMQ. What takes seconds and no set-up needs returns a Deferred; signals are sent to its own pid."""

    def __init__(self, name: str = "node", erlang: str = ERLANG) -> None:
        if MISSING:
            raise AssertionError(MISSING)
        shared = home()
        shared.nodes.append(self)
        self.name = f"{name}-{os.getpid()}-{len(shared.nodes)}@localhost"
        self.port = free_port()
        self.folder = os.path.join(shared.folder, self.name)
        os.mkdir(self.folder)
        self.environ = {
            **shared.environ,
            "RUNNING_UNDER_SYSTEMD": "true",  # makes the script become Erlang, so that the pid we know is the node's
            "RABBITMQ_NODENAME": self.name,
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_MNESIA_BASE": os.path.join(self.folder, "data"),
            "RABBITMQ_LOG_BASE": os.path.join(self.folder, "log"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": os.path.join(shared.folder, "plugins"),
            "RABBITMQ_CONF_ENV_FILE": os.path.join(self.folder, "no-env.conf"),  # not there: the machine's is not ours
            "RABBITMQ_CONFIG_FILE": os.path.join(self.folder, "no-config"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"{erlang} {LOOPBACK}",
            "RABBITMQ_CTL_ERL_ARGS": LOOPBACK,
        }
        self.unshared()

    def unshared(self) -> None:
        """Set the attributes that each process has for itself."""
        self.process: subprocess.Popen[bytes] | None = None
        self.vhosts = 0

    def how_to_reach(self) -> dict[str, Any]:
        """The facts by which another process reaches it: the arguments of ``known``."""
        return {name: value for name, value in vars(self).items() if name not in ("process", "vhosts")}

    @classmethod
    def known(cls: type[N], how_to_reach: dict[str, Any]) -> N:
        """A node that another process has started, and ends."""
        node = cls.__new__(cls)
        vars(node).update(how_to_reach)
        node.unshared()
        return node

    # -- life

    def start(self: N) -> N:
        """Start it, or start it again on what it kept. Blocks until it answers."""
        self.spawn()
        deadline = time.monotonic() + START_TIMEOUT
        while self.starting(deadline):
            time.sleep(LOOK_AGAIN)
        return self

    def restart(self) -> Deferred[None]:
        """Stop it if it runs, and start it on what it kept; fires once it answers."""
        self.stop()
        self.spawn()

        async def wait() -> None:
            deadline = time.monotonic() + START_TIMEOUT
            while self.starting(deadline):
                await deferLater(reactor, LOOK_AGAIN)

        return Deferred.fromCoroutine(wait())

    def spawn(self) -> None:
        self.process = spawn([str(program("rabbitmq-server"))], self.environ, os.path.join(self.folder, "output"))

    def starting(self, deadline: float) -> bool:
        if self.answers():
            return False
        if self.process is None or self.process.poll() is not None:
            self.fail("ended while it started")
        if time.monotonic() > deadline:
            self.fail(f"does not answer on 127.0.0.1:{self.port} after {START_TIMEOUT} s")
        return True

    def fail(self, what: str) -> NoReturn:
        with open(os.path.join(self.folder, "output"), encoding="utf-8", errors="replace") as file:
            raise AssertionError(f"RabbitMQ {self.name} {what}:\n{file.read()[-4000:]}")

    def answers(self) -> bool:
        """Whether it speaks AMQP: an open port may be somebody else's."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as sock:
                sock.sendall(b"AMQP\x00\x00\x09\x01")
                return sock.recv(1) == b"\x01"
        except OSError:
            return False

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def signal(self, number: signal.Signals) -> None:
        if self.process is not None and self.running:
            self.process.send_signal(number)

    def freeze(self) -> None:
        """SIGSTOP: connections stay open, and nothing moves."""
        self.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.signal(signal.SIGCONT)

    def stop(self) -> None:
        """Stop it in order, as an operator does. Blocks, a second mostly; what is durable stays."""
        self.thaw()
        end(self.process)

    def kill(self) -> None:
        """kill -9."""
        end(self.process, signal.SIGKILL)

    # -- what an operator does, as rabbitmqctl has it done: the Erlang that it starts takes 0.7 s of the processor

    def evaluate(self, expressions: str) -> str:
        """Have it run some Erlang, in milliseconds. Gives the value of the last expression, as Erlang writes it."""
        # -h: the caller's name, new for each call. A node refuses a second caller of a name until it has noticed that
        # the first has gone, which takes a busy one a while.
        call = [str(program("erl_call")), "-h", f"tests-{os.getpid()}-{next(callers)}", "-n", self.name, "-e"]
        done = subprocess.run(
            call, env=self.environ, input=f"{expressions}\n".encode(), capture_output=True, check=False
        )
        if not done.stdout.startswith(b"{ok, "):
            raise AssertionError(f"{expressions} in {self.name}: {done}")
        return done.stdout.decode()[len("{ok, ") : -len("}")]

    def new_vhost(self) -> str:
        """A virtual host that nobody has used yet, where guest may do everything."""
        self.vhosts += 1
        name = f"test-{os.getpid()}-{self.vhosts}"
        self.evaluate(f"ok = rabbit_vhost:add({binary(name)}, {TESTS}), {permitted('guest', name)}.")
        return name

    def new_user(self, name: str, vhost: str, configure: str = ".*", write: str = ".*", read: str = ".*") -> None:
        """A user with the password ``s3cret``, and what it may do in a virtual host: regular expressions for names."""
        adding = f"rabbit_auth_backend_internal:add_user({binary(name)}, {binary('s3cret')}, {TESTS})"
        self.evaluate(f"ok = {adding}, {permitted(name, vhost, configure, write, read)}.")

    def permit(self, user: str, vhost: str, configure: str, write: str, read: str) -> None:
        """Set anew what a user may do in a virtual host."""
        self.evaluate(f"{permitted(user, vhost, configure, write, read)}.")

    def limit(self, vhost: str, limits: dict[str, int]) -> None:
        """Set the limits of a virtual host; without any, it has none."""
        setting = f"parse_set({binary(vhost)}, {binary(json.dumps(limits))}, {TESTS})"
        clearing = f"clear({binary(vhost)}, {TESTS})"
        self.evaluate(f"ok = rabbit_vhost_limit:{setting if limits else clearing}.")

    def set_memory(self, watermark: float) -> None:
        """Set the part of the machine's memory above which it takes no publishes: 0.4 by default."""
        self.evaluate(f"ok = vm_memory_monitor:set_vm_memory_high_watermark({watermark:f}).")

    # -- rabbitmqctl

    def ctl(self, *arguments: str) -> Deferred[str]:
        """Run rabbitmqctl; fires with what it printed, fails with what it complained of."""
        path, argv = self.command(arguments)
        called: Deferred[Any] = getProcessOutputAndValue(path, argv, env=self.environ)
        return called.addCallback(self.printed, arguments)

    def ctl_now(self, *arguments: str) -> str:
        """The same, waited for."""
        path, argv = self.command(arguments)
        done = subprocess.run([path, *argv], env=self.environ, capture_output=True, check=False)
        return self.printed((done.stdout, done.stderr, done.returncode), arguments)

    def command(self, arguments: tuple[str, ...]) -> tuple[str, list[str]]:
        return str(program("rabbitmqctl")), ["--quiet", *arguments]

    def printed(self, result: tuple[bytes, bytes, int], arguments: tuple[str, ...]) -> str:
        out, err, status = result
        if status != 0:
            text = (out + err).decode(errors="replace")
            raise AssertionError(f"rabbitmqctl {' '.join(arguments)} ended with {status}:\n{text}")
        return out.decode(errors="replace")

    def stop_app(self) -> Deferred[str]:
        """RabbitMQ stops and Erlang stays: connections are closed with 320, and so is the port."""
        return self.ctl("stop_app")

    def start_app(self) -> Deferred[str]:
        """Not by ``evaluate``, though that takes less: a node that was started so has not always come back."""
        return self.ctl("start_app")

    # -- addresses

    def uri(self, vhost: str = "/", user: str = "guest", password: str = "guest") -> str:
        who = f"{quote(user, safe='')}:{quote(password, safe='')}"
        return f"amqp://{who}@127.0.0.1:{self.port}/{quote(vhost, safe='')}"


@cache
def home() -> Home:
    return Home()


@cache
def shared(kind: type[N]) -> N:
    """The node of this kind that all tests of the run share. Leave it as it was: running.

    The first process that asks starts it, and ends it when it ends itself, which is when all have run their tests. The
    others learn how it is reached from a file, and hold its lock while it starts.
    """
    if not WORKER:
        return kind().start()
    with open(os.path.join(RUN, f"{kind.__name__}.json"), "a+", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        if known := file.read():
            return kind.known(json.loads(known))
        started = kind().start()
        json.dump(started.how_to_reach(), file)
        return started


def node() -> Node:
    """The node that the tests of one run share. Leave it as it was: running."""
    node: Node = shared(Node)
    return node


@cache
def mortal() -> Node:
    """A node that the tests of this process stop, kill and starve, one after the other. Leave it running."""
    return Node("mortal").start()


def main() -> None:
    if MISSING:
        sys.exit(MISSING)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        print(node().uri(), flush=True)
        signal.pause()
    except KeyboardInterrupt:
        print()


if __name__ == "__main__":
    main()
