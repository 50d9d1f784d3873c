"""Sends an HTTP server as many requests as it answers: by wrk if it is installed, else by sockets of our own.

Ours reuses its bytes and reads answers by their length; one process of it makes some 40,000 requests a second, wrk
more. The results say which it was.
"""

from __future__ import annotations

import re
import selectors
import shutil
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass

CONNECTIONS = 32
WARM_UP = 0.5
READY_WITHIN = 60
PIECE = 64 * 1024  # bytes that are sent or read at once


@dataclass(frozen=True)
class Request:
    """The request that is repeated. With a `body` it is a POST of JSON."""

    path: str
    body: str = ""

    def written(self, port: int) -> bytes:
        method = "POST" if self.body else "GET"
        lines = [f"{method} {self.path} HTTP/1.1", f"Host: 127.0.0.1:{port}", "Content-Type: application/json"]
        lines += [f"Content-Length: {len(self.body)}"] if self.body else []
        return ("\r\n".join([*lines, "", ""]) + self.body).encode()


def name() -> str:
    return "wrk" if shutil.which("wrk") else "sockets of its own"


def ready(request: Request, port: int) -> None:
    """Wait until it is answered with 200."""
    deadline = time.monotonic() + READY_WITHIN
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=5) as sock:
                sock.sendall(request.written(port))
                answer = sock.recv(4096)
            if answer.startswith(b"HTTP/1.1 200"):
                return
        except OSError:
            answer = b"nothing"
        if time.monotonic() > deadline:
            raise RuntimeError(f"{request.path} is answered with {answer[:200]!r} after {READY_WITHIN} s")
        time.sleep(0.05)


def rate(request: Request, port: int, seconds: float) -> float:
    """Requests answered per second, by 32 connections, each with one request at a time."""
    run = wrk if shutil.which("wrk") else sockets
    sockets(request, port, WARM_UP)
    return run(request, port, seconds)


def wrk(request: Request, port: int, seconds: float) -> float:
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(f"wrk.method = '{'POST' if request.body else 'GET'}'\n")
        script.write("wrk.headers['Content-Type'] = 'application/json'\n")
        script.write(f"wrk.body = '{request.body}'\n" if request.body else "")
        script.flush()
        duration = f"-d{max(1, round(seconds))}s"
        url = f"http://127.0.0.1:{port}{request.path}"
        argv = ["wrk", "-t1", f"-c{CONNECTIONS}", duration, "-s", script.name, url]
        said = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=seconds + 60).stdout
    found = re.search(r"Requests/sec:\s*([\d.]+)", said)
    if "Non-2xx" in said or not found:
        raise RuntimeError(f"wrk says: {said}")
    return float(found[1])


def sockets(request: Request, port: int, seconds: float) -> float:
    selector, data = selectors.DefaultSelector(), request.written(port)
    connections = [socket.create_connection(("127.0.0.1", port)) for _ in range(CONNECTIONS)]
    for sock in connections:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        selector.register(sock, selectors.EVENT_READ, Answers())
        sock.sendall(data)
    began = time.perf_counter()
    answered = 0
    while (now := time.perf_counter()) < began + seconds:
        for key, _ in selector.select(1):
            sock, answers = key.fileobj, key.data
            assert isinstance(sock, socket.socket)
            if answers.whole(sock.recv(65_536)):
                answered += 1
                sock.sendall(data)
    for sock in connections:
        sock.close()
    selector.close()
    return answered / (now - began)


class Answers:
    """The answers of one connection, which are all as long as the first."""

    def __init__(self) -> None:
        self.length = 0
        self.got = b""

    def whole(self, data: bytes) -> bool:
        if not data:
            raise RuntimeError("the server has closed the connection")
        self.got += data
        if not self.length:
            head, end, _ = self.got.partition(b"\r\n\r\n")
            if not end:
                return False
            if not head.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(f"answered {head!r}")
            found = re.search(rb"(?i)content-length: *(\d+)", head)
            assert found, head
            self.length = len(head) + 4 + int(found[1])
        if len(self.got) < self.length:
            return False
        self.got = self.got[self.length :]
        return True


def upload(port: int, size: int) -> float:
    """Send a body of so many bytes, and read the answer. Gives the seconds that it took."""
    piece = bytes(PIECE)
    answer = b""
    began = time.perf_counter()
    with socket.create_connection(("127.0.0.1", port)) as sock:
        asked = ["POST /upload HTTP/1.1", f"Host: 127.0.0.1:{port}", "Connection: close", f"Content-Length: {size}"]
        sock.sendall("\r\n".join([*asked, "", ""]).encode())
        for _ in range(size // PIECE):
            sock.sendall(piece)
        while got := sock.recv(PIECE):
            answer += got
    if b'{"length":%d}' % size not in answer:
        raise RuntimeError(f"an upload is answered with {answer[:200]!r}")
    return time.perf_counter() - began


def download(port: int, size: int) -> float:
    """Read a body of so many bytes. Gives the seconds that it took."""
    left = size
    began = time.perf_counter()
    with socket.create_connection(("127.0.0.1", port)) as sock:
        asked = [f"GET /download/{size // PIECE} HTTP/1.1", f"Host: 127.0.0.1:{port}", "Connection: close"]
        sock.sendall("\r\n".join([*asked, "", ""]).encode())
        while piece := sock.recv(PIECE):
            left -= len(piece)
    if left > 0:
        raise RuntimeError(f"{left} bytes of a download are missing")
    return time.perf_counter() - began


def idle(request: Request, port: int, number: int) -> list[socket.socket]:
    """So many connections that have had an answer, and wait."""
    connections = []
    for _ in range(number):
        sock = socket.create_connection(("127.0.0.1", port))
        sock.sendall(request.written(port))
        if not sock.recv(PIECE).startswith(b"HTTP/1.1 200"):
            raise RuntimeError("a connection is not answered")
        connections.append(sock)
    return connections
