"""The table of configuration keys: what each takes and refuses, and what is told of it."""

from __future__ import annotations

from functools import partial
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from txservices import configuration
from txservices.amqp.delays import DELAY_MAX
from txservices.breakers import MINIMUM_MAX, CircuitBreaker
from txservices.configuration import KEYS
from txservices.exceptions import ConfigurationError
from txservices.kinds import BREAKER_OPTIONS, RETRY_OPTIONS, SECONDS_MAX, Kind
from txservices.retry.policy import ATTEMPTS_MAX, GROWTH_MAX, Retry
from txservices.serialization import FORMATS
from txservices.wire.login import MECHANISMS

NAN, INFINITY = float("nan"), float("inf")
NO_NUMBERS: list[Any] = [
    "60",
    "",
    "ten",
    True,
    False,
    [60],
    {"a": 1},
    -1,
    -0.5,
    NAN,
    INFINITY,
    -INFINITY,
    b"1",
]
NO_WHOLE: list[Any] = [*NO_NUMBERS, 1.5, 60.0]
NO_TEXTS: list[Any] = [1, 1.5, True, ["a"], {"a": 1}, "", " ", b"a"]
NO_FLAGS: list[Any] = ["true", "no", "", 0, 1, [], {}]
NO_LEVELS: list[Any] = ["warning", "DEBUG", 10, None, False, []]
NO_MAPPINGS: list[Any] = ["", "a", 1, True, False, []]

# key -> (values that it takes, besides null; values that it refuses)
VALUES: dict[str, tuple[list[Any], list[Any]]] = {
    "AMQP_URI": (
        ["amqp://u:p@h:1/v", "pyamqp://", "amqps://h", "memory://m", "amqp://a;amqp://b", ["amqp://a", "amqp://b"]],
        [
            *(
                None,
                "",
                " ; ",
                [],
                [""],
                5672,
                True,
                {"host": "h"},
                ["amqp://a", 1],
                ["amqp://a", None],
                ["amqp://a", ""],
            ),
            *("h:5672", "http://h", "amqp://h:x", "amqp://h:65536", "amqp://u:se/cret@h", "amqp://h/?heartbeat=1"),
        ],
    ),
    "EMBEDDED_BROKER_ADDRESS": (
        ["127.0.0.1:5672", "localhost:0", ":5672", "::1:5672"],
        ["", "5672", 5672, "h", "h:", "h:x", "h:65536", "amqp://u:secret@h:1/", True, ["h:1"]],
    ),
    "EMBEDDED_BROKER_USERS": (
        [{"guest": "guest"}, {"ada": "s3cret", "bob": "hidden"}],
        [{}, [], "ada:s3cret", {"ada": None}, {"ada": ""}, {"": "x"}, {"ada": 1}, {1: "x"}, True],
    ),
    "WEB_SERVER_ADDRESS": (
        ["0.0.0.0:8000", "localhost:0", "8000", 8000, 0, "[::1]:80", ["h:80", 81, "unix:/s"], "ssl:443", "tcp:80"],
        ["", ":80", "h", "[::1]", "http://h:80", 65536, -1, True, 80.0, [], ["h"], "unix:", "stdio:"],
    ),
    "WEB_TRUSTED_PROXIES": (
        [[], ["10.0.0.0/8"], ["192.0.2.1", "::1", "unix", "fd00::/8"]],
        ["10.0.0.0/8", 1, True, ["h"], [1], ["10.0.0.0/99"], {"a": 1}],
    ),
    "WEB_FORWARDED_HEADER": (["X-Forwarded", "Forwarded"], ["", "x-real-ip", 1, True, ["Forwarded"]]),
    "WEB_HEALTH": ([True, False], NO_FLAGS),
    "OPS_ADDRESS": (["0.0.0.0:9100", "9100", 9100], ["", "h", "h:x", "h:65536", "http://h:1", True, ["h:1"]]),
    "WEB_BODY_MAX": ([0, 1, 10**12], NO_WHOLE),
    "WEB_BODY_RATE": ([0, 1, 10**6], NO_WHOLE),
    "WEB_CONNECTIONS_MAX": ([0, 1, 10**6], NO_WHOLE),
    "WEB_CONNECTIONS_PER_ADDRESS": ([0, 1, 10**6], NO_WHOLE),
    "WEB_PROBLEM_DETAILS": ([True, False], NO_FLAGS),
    "WEB_CORS": (
        [
            {},
            {"origins": "*"},
            {"origins": ["https://a.b"], "credentials": True, "max_age": 0, "methods": ["GET"], "headers": "X-A"},
        ],
        [
            *("*", ["https://a.b"], 1, True),
            *({"origins": []}, {"origins": 1}, {"credentials": True}, {"origins": "*", "age": 1}),
            *({"origins": "*", "credentials": True}, {"origins": ["*"], "max_age": -1}, {"origins": "*", "expose": 1}),
        ],
    ),
    "WEB_COMPRESS_FROM": ([0, 1, 10**12], NO_WHOLE),
    "WEB_MAX_WORKERS": ([1, 100], [*NO_WHOLE, 0]),
    "WEB_ACCESS_LOG": (["off", False, "combined", "json"], ["", "on", True, "Combined", 1, ["json"]]),
    "WEB_CONVERTERS": (
        [{}, {"date": "a.B"}],
        ["", [], 1, True, {"a b": "a.B"}, {"date": "B"}, {1: "a.B"}, {"a": None}],
    ),
    "WEB_MIDDLEWARE": ([[], ["a.b"], ("a.b", "c.d.e")], ["a.b", 1, True, {"a": 1}, ["a"], [1], [None]]),
    "WEB_SESSION_SECRET": (["x" * 16, ["x", "y"]], ["", [], 1, True, [1], [""], {"a": 1}]),
    "WEBSOCKET_ORIGINS": (["*", "https://a.b", ["https://a.b"], ("*",)], ["", [], [1], [""], 1, True, {"a": 1}]),
    "WEBSOCKET_SUBPROTOCOLS": (["chat", ["chat"], ("chat",)], ["", [], [1], [""], 1, True, {"a": 1}]),
    "max_workers": ([0, 1, 10_000], NO_WHOLE),
    "prefetch_count": ([0, 1, 65_535], [*NO_WHOLE, 65_536]),
    "PREFETCHED_BYTES_MAX": ([0, 1, 10**12], NO_WHOLE),
    "SHUTDOWN_TIMEOUT": ([0, 1, 0.5, 2_147_483], [*NO_NUMBERS, 2_147_484]),
    "WORKER_TIMEOUT": ([0, 1, 0.5], [*NO_NUMBERS, 2_147_484]),
    "SLOW_WORKER": ([0, 1, 0.5], [*NO_NUMBERS, 2_147_484]),
    "CANCEL_AT_DEADLINE": ([True, False], NO_FLAGS),
    "BLOCKED_REACTOR_TIMEOUT": ([0, 1, 0.5], [*NO_NUMBERS, 2_147_484]),
    "BROKER_START_TIMEOUT": ([0, 1, 0.5], [*NO_NUMBERS, 2_147_484]),
    "CONSUMER_TIMEOUT": ([0, 1, 0.5], [*NO_NUMBERS, 2_147_484]),
    "RPC_TIMEOUT": ([1, 0.001, 2_147_483], [*NO_NUMBERS, 0, 0.0, 2_147_484]),
    "RPC_PERSISTENT": ([True, False], NO_FLAGS),
    "PUBLISH_TIMEOUT": ([1, 0.001, 2_147_483], [*NO_NUMBERS, 0, 0.0, 2_147_484]),
    "HEARTBEAT": ([0, 1, 65_535], [*NO_WHOLE, 65_536]),
    "AMQP_SSL": (
        [True, False, {}, {"ca_certs": "/ca.pem"}, {"certfile": "c.pem", "keyfile": "k.pem"}],
        ["", "true", 1, [], {"passphrase": "secret"}, {"password": 5}, {"ca_certs": 1}, {"ca_certs": ""}, {1: "a"}],
    ),
    "LOGIN_METHOD": (["PLAIN", "AMQPLAIN", "EXTERNAL"], [*NO_TEXTS, "plain", "CRAM-MD5"]),
    "serializer": (["json", "pickle", "yaml", "msgpack", "raw"], [*NO_TEXTS, "xml", "JSON"]),
    "ACCEPT": ([["json"], ("json", "raw"), {"yaml"}], ["", "json", [], 1, True, {"json": 1}, [1], [None], ["xml"]]),
    "SERIALIZERS": (
        [{}, {"x": {"encoder": "a.b", "decoder": "a.c", "content_type": "t/x", "content_encoding": "utf-8"}}],
        [
            *NO_MAPPINGS,
            *({"x": entry} for entry in (None, "a.b", {"encoder": "a.b"})),
            {1: {}},
            {"x": {"encoder": 1, "decoder": "a.c", "content_type": "t/x"}},
        ],
    ),
    "DECOMPRESSED_MAX": ([0, 1, 10**12], NO_WHOLE),
    "VALUES_MAX": ([0, 1, 10**12], NO_WHOLE),
    "rpc_exchange": (["nameko-rpc", "x" * 255], [*NO_TEXTS, "x" * 256, "ü" * 128]),
    "AUTO_DELETE_EVENT_EXCHANGES": ([True, False], NO_FLAGS),
    "DECLARE_EVENT_EXCHANGES": ([True, False], NO_FLAGS),
    "QUEUE_TYPE": (["classic", "quorum"], [*NO_TEXTS, "Quorum", "stream"]),
    "RETRY": (
        [
            *({}, {"attempts": 3}, {"a.b": False}, {"a.b": None}, {"a.b": {"on": "OSError"}}, {True: ["a.B"]}),
            {"attempts": 1, "delay": 0, "growth": 1, "delay_max": 0.5, "jitter": 1, "give_up_on": []},
        ],
        [
            *NO_MAPPINGS,
            *({"attempts": wrong} for wrong in (*NO_WHOLE, 0, 1001)),
            *({"a.b": {"delay": wrong}} for wrong in NO_NUMBERS),
            *({"growth": 0.5}, {"jitter": 2}, {"delay_max": 5e6}, {"on": 5}, {"give_up_on": [5]}, {"on": ""}),
            *({"attempt": 3}, {"a.b": 3}, {"a.b": True}, {"a.b": {"attempt": 3}}, {5: 3}),
        ],
    ),
    "CIRCUIT_BREAKER": (
        [
            *({}, {"failures": 0.2}, {"failures": 1, "window": 1, "minimum": 1, "open_for": 0.5, True: "OSError"}),
            *({"services": {"a": False}}, {"services": {"a": {"minimum": 5}, 5: None}}, {"services": None}),
        ],
        [
            *NO_MAPPINGS,
            *({"failures": wrong} for wrong in (*NO_NUMBERS, 0, 1.5)),
            *({"minimum": wrong} for wrong in (*NO_WHOLE, 0, 1_000_001)),
            *({"window": 0}, {"open_for": -1}, {"windw": 1}, {"on": 5}),
            *({"services": 5}, {"services": {"a": 5}}, {"services": {"a": {"minmum": 5}}}),
        ],
    ),
    "on_parked": (["park", "drop", "requeue"], [*NO_TEXTS, "Park", "dead"]),
    "parent_calls_tracked": ([0, 1, 1000], NO_WHOLE),
    "FLEET": ([True, False], NO_FLAGS),
    "SERVICE_CONTAINER_CLS": (["package.module.Class"], [*NO_TEXTS, "Class", "a.", ".a", "a b.c", "a-b.c"]),
    "NAMEKO": ([True, False], NO_FLAGS),
    "OBSERVERS": (
        [[], ["package.module.Class"], ("a.B", "a.C")],
        ["", "a.B", [1], ["B"], ["a.B", ""], 1, True, {"a.B": 1}],
    ),
    "TRACES": ([True, False], NO_FLAGS),
    "LOG_FORMAT": (["plain", "json"], [*NO_TEXTS, "xml", "JSON"]),
    "LOG_LEVELS": (
        [{}, {"txservices.amqp": "debug", "app": "critical"}],
        [
            *NO_MAPPINGS,
            {1: "debug"},
            {"": "debug"},
            *({"a": wrong} for wrong in NO_LEVELS),
        ],
    ),
    "LOGGING": ([{}, {"version": 1}], NO_MAPPINGS),
}


def faults(config: dict[str, Any]) -> list[str]:
    """The lines that are told of a config."""
    try:
        configuration.check(config)
    except ConfigurationError as error:
        return list(error.args)
    return []


MAPPINGS = ("LOGGING", "AMQP_URI", "EMBEDDED_BROKER_USERS", "RETRY", "CIRCUIT_BREAKER")  # or take one


class Values(SynchronousTestCase):
    """Each key by itself."""

    def test_every_key(self) -> None:
        """The table of values here has every key."""
        self.assertEqual(list(VALUES), list(KEYS))

    def test_taken(self) -> None:
        """A value that can be is what the reader gets."""
        for name, (taken, _) in VALUES.items():
            for value in taken:
                self.assertEqual(faults({name: value}), [], value)
                self.assertIs(KEYS[name].of({name: value}), value)

    def test_refused(self) -> None:
        """Any other is told in one line that begins with its key and is short, whoever looks."""
        for name, (_, refused) in VALUES.items():
            for value in refused:
                (line,) = faults({name: value}) or [f"{name}: {value!r} is taken"]
                self.assertNotIn("is taken", line)
                self.assertNotIn("\n", line)
                self.assertLess(len(line), 300)
                if not line.startswith("Please register a serializer"):  # nameko's words
                    self.assertRegex(line, f"^{name}\\b")
                    self.assertEqual(str(self.assertRaises(ConfigurationError, KEYS[name].of, {name: value})), line)

    def test_absent(self) -> None:
        """Without the key it is the default, which the key takes."""
        self.assertEqual(faults({}), [])
        for name, key in KEYS.items():
            self.assertIs(key.of({}), key.default)
            if key.default is not None:
                self.assertEqual(faults({name: key.default}), [], name)

    def test_null(self) -> None:
        """Null is read where it means something. Elsewhere it is as good as no key, except for the broker's address."""
        for name, key in KEYS.items():
            if name != "AMQP_URI":
                self.assertEqual(faults({name: None}), [])
                self.assertIs(key.of({name: None}), None if key.null else key.default, name)

    def test_lines(self) -> None:
        """A line has the key, the value, and what to write."""
        table: list[tuple[dict[str, Any], str]] = [
            ({"max_workers": "ten"}, "max_workers: 'ten' is no whole number from 0: write 10"),
            ({"max_workers": True}, "max_workers: true is no whole number from 0: write 10"),
            ({"prefetch_count": 70_000}, "prefetch_count: 70000 is no whole number from 0 to 65535: write 50"),
            (
                {"HEARTBEAT": "x"},
                "HEARTBEAT: 'x' is no whole number of seconds from 0 to 65535: write 60, or null for no heartbeats",
            ),
            (
                {"RPC_TIMEOUT": "60"},
                "RPC_TIMEOUT: '60' is no number of seconds above 0, up to 2147483: write 60, or null for no end",
            ),
            ({"QUEUE_TYPE": "quorom"}, "QUEUE_TYPE: 'quorom' is no type of queue: write classic or quorum"),
            ({"ACCEPT": "json"}, "ACCEPT: 'json' is no list of serializers: write [\"json\"]"),
            ({"LOG_FORMAT": "xml"}, "LOG_FORMAT: 'xml' is no form of the log: write plain or json"),
            (
                {"LOG_FORMAT": "json", "LOGGING": {"version": 1}},
                "LOG_FORMAT: LOGGING decides about the log: leave one of them out",
            ),
            (
                {"LOG_LEVELS": {"app": "debug"}, "LOGGING": {"version": 1}},
                "LOG_LEVELS: LOGGING decides about the log: leave one of them out",
            ),
            (
                {"LOG_LEVELS": {"app": "loud"}},
                "LOG_LEVELS: that of 'app' is no level: write debug, info, warn, error or critical",
            ),
            (
                {"LOG_LEVELS": {"app": 10}},
                "LOG_LEVELS: that of 'app' is no level: write debug, info, warn, error or critical",
            ),
            (
                {"LOG_LEVELS": {1: "info"}},
                "LOG_LEVELS: 1 is no logger: write its name, as txservices.broker",
            ),
            (
                {"RETRY": {"attempts": "none"}},
                "RETRY: attempts: 'none' is no whole number from 1 to 1,000: write 5",
            ),
            (
                {"RETRY": {"shop.sell": {"delay": -1}}},
                "RETRY: shop.sell: delay: -1 is no number from 0 to 4,000,000: write 1",
            ),
            (
                {"CIRCUIT_BREAKER": {"windw": 3}},
                "CIRCUIT_BREAKER: 'windw' is not known, failures, window, minimum, open_for, on are",
            ),
            (
                {"WEB_CORS": {"origins": "*", "max_age": "long"}},
                "WEB_CORS: max_age: 'long' is no whole number of seconds from 0: write 600",
            ),
            ({"AMQP_SSL": {"ca_certs": 1}}, "AMQP_SSL: ca_certs: 1 is no path: write the path of a PEM file"),
            ({"LOGGING": ["a"]}, "LOGGING: a list is no mapping: write one for logging.config.dictConfig"),
            ({"DECLARE_EVENT_EXCHANGES": "no"}, "DECLARE_EVENT_EXCHANGES: 'no' is no yes or no: write true or false"),
            (
                {"AMQP_URI": None},
                "AMQP_URI: null is no address of a broker: write amqp://guest:guest@localhost:5672/, or a list of such",
            ),
        ]
        for config, line in table:
            self.assertEqual(faults(config), [line])

    def test_lines_of_one_key(self) -> None:
        """Everything that is wrong inside one mapping is told, too."""
        for config, count in [
            ({"RETRY": {"attempts": 0, "dely": 1, "a.b": {"growth": 0, "jitter": 2}, "a.c": 5}}, 5),
            ({"CIRCUIT_BREAKER": {"failures": 7, "windw": 3, "services": {"a": 5, "b": {"minimum": 0}}}}, 4),
            ({"WEB_CORS": {"origins": 5, "max_age": "long", "age": 1}}, 3),
            ({"AMQP_SSL": {"ca_certs": 1, "password": 5, "verify": False}}, 3),
            ({"LOG_LEVELS": {"app": "loud", "lib": 5}}, 2),
            ({"SERIALIZERS": {"x": 5, "y": {}}}, 2),
            ({"serializer": "xml", "ACCEPT": 5}, 2),
        ]:
            lines = faults(config)
            self.assertEqual(len(lines), count, lines)
            for key in config if count > 2 else ():
                self.assertEqual([line for line in lines if not line.startswith(f"{key}: ")], [])

    def test_secrets(self) -> None:
        """No line has a password in it, wherever it was written."""
        secret = {"passphrase": "s3cret"}
        configs: list[dict[str, Any]] = [
            {"AMQP_URI": "http://u:s3cret@h/"},
            {"AMQP_URI": "amqp://u:s3cret/x@h/"},
            {"AMQP_URI": ["amqp://h", "amqp://u:s3cret@h:x/"]},
            {"AMQP_URI": {"uri": "amqp://u:s3cret@h"}},
            {"EMBEDDED_BROKER_ADDRESS": "amqp://u:s3cret@h:1"},
            {"WEB_SERVER_ADDRESS": "http://u:s3cret@h:1"},
            {"EMBEDDED_BROKER_USERS": {"ada": ["s3cret"]}},
            *({name: secret} for name in KEYS if name not in MAPPINGS),
            *({name: [secret, "s3cret"]} for name in KEYS),
        ]
        for config in configs:
            (line,) = faults(config)
            self.assertNotIn("s3cret", line)

    def test_long(self) -> None:
        """Of a long value only the beginning is repeated."""
        (line,) = faults({"LOGIN_METHOD": "x" * 10_000})
        self.assertLess(len(line), 200)

    def test_words(self) -> None:
        """The words that the table takes are those that the rooms know."""
        self.assertEqual(configuration.SERIALIZER_NAMES, tuple(FORMATS))
        self.assertEqual(configuration.LOGIN_METHODS, tuple(MECHANISMS))

    def test_policies(self) -> None:
        """The numbers that policies may have here are those that they may have in a program."""
        table: list[tuple[Any, dict[str, Kind], tuple[str, float, float]]] = [
            (Retry, RETRY_OPTIONS, ("attempts", 1, ATTEMPTS_MAX)),
            (Retry, RETRY_OPTIONS, ("growth", 1, GROWTH_MAX)),
            (Retry, RETRY_OPTIONS, ("delay_max", 1, DELAY_MAX)),
            (partial(Retry, delay_max=DELAY_MAX), RETRY_OPTIONS, ("delay", 0, DELAY_MAX)),
            (Retry, RETRY_OPTIONS, ("jitter", 0, 1)),
            (CircuitBreaker, BREAKER_OPTIONS, ("failures", 0.001, 1)),
            (CircuitBreaker, BREAKER_OPTIONS, ("window", 0.001, SECONDS_MAX)),
            (CircuitBreaker, BREAKER_OPTIONS, ("minimum", 1, MINIMUM_MAX)),
            (CircuitBreaker, BREAKER_OPTIONS, ("open_for", 0.001, SECONDS_MAX)),
        ]
        for make, options, (name, least, most) in table:
            for value in (least, most):
                make(**{name: value})
                self.assertTrue(options[name].check(value), name)
            self.assertRaises(ConfigurationError, make, **{name: most + 1})
            self.assertFalse(options[name].check(most + 1), name)

    def test_own_serializer(self) -> None:
        """A serializer of one's own may be written and read."""
        own: dict[str, Any] = {"own": {"encoder": "a.b", "decoder": "a.c", "content_type": "t/x"}}
        config: dict[str, Any] = {"serializer": "own", "ACCEPT": ["own", "json"]}
        self.assertEqual(faults({**config, "SERIALIZERS": own}), [])
        self.assertEqual(faults(config), ['Please register a serializer for "own" format'])
