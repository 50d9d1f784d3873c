"""What travels between a fleet's processes is read back as it was, or refused with a reason."""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from txservices.monitoring.answers import ANSWER_MAX, ASK_MAX, read_answer, read_ask, read_tailed, written

PROCESS: dict[str, Any] = {
    "id": "5d0c",
    "host": "web-1",
    "pid": 4242,
    "since": 1.5,
    "now": 2.5,
    "txservices": "1.0",
    "python": "3.11.7",
    "services": ["shop"],
    "failed": 0,
}
COUNTS = {"count": 3, "errors": 1, "rate": 0.3, "error_rate": 0.1, "p50": 0.01, "p99": None, "times": {"-45": 3}}


def answer(**parts: object) -> bytes:
    return written({"version": 1, "process": PROCESS, **parts})


class Reading(SynchronousTestCase):
    """Messages as they travel."""

    def test_as_it_was(self) -> None:
        """What is written is read again, with everything that an answer may have."""
        failed = {"number": 1, "at": 2.0, "service": "shop", "method": "sell", "entrypoint": "Rpc", "outcome": "error"}
        failed |= {"seconds": 0.5, "error": "ValueError", "text": "<script>", "traceback": "…", "call_id_stack": ["a"]}
        method = {"method": "sell", "entrypoint": "Rpc", "on": "", "signature": "(item)", "doc": ""}
        service = {"service": "shop", "version": "", "doc": "", "state": "running", "max_workers": 10, "running": 0}
        told = {
            "version": 1,
            "process": PROCESS,
            "services": [{**service, "waiting": 0, "methods": [method], "events": ["sold"], "targets": []}],
            "counting": 1.0,
            "window": 1.0,
            "methods": [{**COUNTS, "service": "shop", "method": "sell", "entrypoint": "Rpc"}],
            "edges": [{**COUNTS, "service": "shop", "target": "stock", "method": "take"}],
            "failures": [{**failed, "arguments": {"item": "'tea'"}}],
            "left_out": ["failures"],
        }
        self.assertEqual(read_answer(written(told)), told)

    def test_keys_of_later_versions(self) -> None:
        """A key that is not known is left out, at any depth."""
        read = read_answer(answer(process={**PROCESS, "mood": "good"}, weather="fair"))
        self.assertEqual(read, {"version": 1, "process": PROCESS})

    def test_whole_numbers(self) -> None:
        """Where a number may have a fraction, one without is a number, too."""
        self.assertEqual(read_answer(answer(counting=3))["counting"], 3.0)

    def test_rubbish(self) -> None:
        """Anything else is a ValueError that says what is wrong."""
        cases: list[tuple[bytes, str]] = [
            (b"", "Expecting value"),
            (b"\xff", "utf-8"),
            (b"[]", "it is no object"),
            (b'"\\ud800"', "it is no object"),
            (b"{}", "it is of version None, and here is version 1"),
            (b'{"version": 2}', "it is of version 2"),
            (b'{"version": [[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]}', "it is of version"),
            (b"[" * 100_000, "it is nested too deep"),
            (b'{"version": NaN}', "NaN is no number of JSON"),
            (b" " * (ANSWER_MAX + 1), "bytes, and may have"),
            (b'{"version": 1}', "it has no process"),
            (answer(process=5), "process is no object"),
            (answer(process={**PROCESS, "pid": "5"}), "process.pid is no whole number"),
            (answer(process={**PROCESS, "pid": True}), "process.pid is no whole number"),
            (answer(process={**PROCESS, "host": None}), "process.host is no text"),
            (answer(process={**PROCESS, "services": "shop"}), "process.services is no list"),
            (answer(process={**PROCESS, "services": [{}]}), "process.services is no text"),
            (answer(counting=10**400), "counting is no number"),
            (answer(counting=1).replace(b"1}", b"1e999}"), "counting is no number"),
            (answer(methods={}), "methods is no list"),
            (answer(methods=[COUNTS]), "methods has no service"),
            (answer(failures=[{"arguments": []}]), "failures has no number"),
        ]
        for body, told in cases:
            with self.subTest(told=told):
                error = self.assertRaises(ValueError, read_answer, body)
                self.assertIn(told, str(error))

    def test_ask(self) -> None:
        """An ask has its version and what is wanted, and perhaps more."""
        tail = {"service": "shop", "method": "", "seconds": 5.0, "rate": 10.0}
        some = {"spread": 0.5, "services": ["shop"], "processes": ["5d0c"], "failures": 3}
        mores: list[dict[str, object]] = [{}, some, {"tail": tail}]
        for more in mores:
            ask = {"version": 1, "want": ["services"], **more}
            self.assertEqual(read_ask(written(ask)), ask)
        wrongs: list[dict[str, object]] = [
            {},
            {"want": "services"},
            {"want": [], "tail": {}},
            {"want": ["x" * ASK_MAX]},
        ]
        for wrong in wrongs:
            self.assertRaises(ValueError, read_ask, written({"version": 1, **wrong}))

    def test_tailed(self) -> None:
        """What has happened is read likewise."""
        happened = {"at": 2.0, "kind": "worker", "service": "shop", "name": "sell", "outcome": "ok", "seconds": 0.1}
        told = {"version": 1, "process": PROCESS, "dropped": 2, "happened": [{**happened, "call_id": "a", "error": ""}]}
        self.assertEqual(read_tailed(written(told)), told)
        self.assertRaises(ValueError, read_tailed, answer())

    def test_not_a_number(self) -> None:
        """NaN, which JSON does not have, is not written either."""
        self.assertRaises(ValueError, written, {"counting": float("nan")})
        json.loads(written({"text": "\ud800\x00"}))
