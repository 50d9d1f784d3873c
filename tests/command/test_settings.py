"""YAML and the environment to a config: the table of what each spelling gives, and what a bad file says."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import TestCase

from txservices.command import settings
from txservices.exceptions import ConfigurationError

ENVIRON = {
    "FIVE": "5",
    "YES": "true",
    "LIST": "[1, two]",
    "DICT": "{a: 1}",
    "SEVEN": "007",
    "QUOTED": '"1"',
    "EMPTY": "",
    "HOST": "broker.example",
    "LOOP": "${HOST}",
    "CURLY": "a}b",
}

# what stands behind `key:` in the file -> the value
VALUES: list[tuple[str, Any]] = [
    ("${FIVE}", 5),
    ("${YES}", True),
    ("${LIST}", [1, "two"]),
    ("${DICT}", {"a": 1}),
    ("${SEVEN}", 7),
    ("${QUOTED}", "1"),
    ("${EMPTY}", None),
    ("${EMPTY:default}", None),
    ("${UNSET}", None),
    ("${UNSET:}", None),
    ("${UNSET:default}", "default"),
    ("${UNSET:10}", 10),
    ("${UNSET:[1,2]}", [1, 2]),
    ("${UNSET:amqp://guest:guest@localhost}", "amqp://guest:guest@localhost"),
    ("amqp://${USER:guest}:${PASSWORD:guest}@${HOST}:5672/", "amqp://guest:guest@broker.example:5672/"),
    ("${UNSET:${HOST}}", "broker.example"),
    ("${UNSET:${OTHER:x}}", "x"),
    ("${UNSET:${OTHER:${FIVE}}}", 5),
    ("${FIVE:${HOST}}", 5),
    ("${UNSET:{}}", {}),
    ("${LOOP}", "${HOST}"),
    ("${CURLY}", "a}b"),
    ("$FIVE", "$FIVE"),
    ("${FIVE", "${FIVE"),
    ("${UNSET:{", "${UNSET:{"),
    ("${}", "${}"),
    ("${TWO WORDS}", "${TWO WORDS}"),
    ('"${FIVE}"', "${FIVE}"),
    ("'${FIVE}'", "${FIVE}"),
    ('!env_var "${FIVE}"', 5),
    ('!env_var "${UNSET:{a: 1}}"', {"a": 1}),
    ('!env_var "${UNSET:{a: {b: ${FIVE}}}}"', {"a": {"b": 5}}),
    ('!raw_env_var "${FIVE}"', "5"),
    ('!raw_env_var "${UNSET:007}"', "007"),
    ('!raw_env_var "${UNSET}"', ""),
    ('!raw_env_var "x-${FIVE}-${YES}"', "x-5-true"),
]


class Values(TestCase):
    """The Python values that a file's values become."""

    def test_table(self) -> None:
        """Each spelling gives the value that nameko's parser gives, nested ones included."""
        for text, value in VALUES:
            config = settings.parse(f"key: {text}\n", "config.yaml", ENVIRON)
            self.assertEqual(config, {"key": value}, text)
            self.assertIs(type(config["key"]), type(value), text)

    def test_keys_and_items(self) -> None:
        """Variables stand in keys, in lists and in mappings too."""
        text = "a:\n  - ${FIVE}\n  - {b: '${FIVE}'}\n${HOST}: 1\n"
        self.assertEqual(settings.parse(text, "c", ENVIRON), {"a": [5, {"b": "${FIVE}"}], "broker.example": 1})

    def test_nothing_is_an_empty_config(self) -> None:
        """An empty file is a config with nothing in it."""
        self.assertEqual(settings.parse("", "c"), {})
        self.assertEqual(settings.parse("# only words\n", "c"), {})


# a line of the file -> what is wrong with it, if anything is
UNFILLED: list[tuple[str, str | None]] = [
    ("AMQP_URI: ${UNSET}", "AMQP_URI: the environment has no UNSET: set it, or write a default, as in ${UNSET:…}"),
    ("AMQP_URI: amqp://${UNSET}", "AMQP_URI: the environment has no UNSET: "),
    ("AMQP_URI: amqp://${HOST}:${UNSET}/", "AMQP_URI: the environment has no UNSET: "),
    ("AMQP_URI: ${UNSET:${OTHER}}", "AMQP_URI: the environment has no OTHER: "),
    ("AMQP_URI: [amqp://a/, '${UNSET}']", "AMQP_URI: ${UNSET} in quotes is not filled in: leave out the quotes, or "),
    (
        'AMQP_URI: "amqp://${HOST}"',
        "AMQP_URI: ${HOST} in quotes is not filled in: leave out the quotes, or write !env_",
    ),
    ("AMQP_URI: ${EMPTY}", "AMQP_URI is empty, from EMPTY in the environment: write a value, or leave the key out"),
    ("AMQP_URI: ${EMPTY:amqp://u:s3cret@h/}", "AMQP_URI is empty, from EMPTY in the environment: "),
    ("AMQP_URI: ${UNSET:}", "AMQP_URI is empty, from UNSET in the environment: "),
    ('AMQP_URI: !raw_env_var "${EMPTY}"', "AMQP_URI is empty, from EMPTY in the environment: "),
    ("AMQP_URI:", "AMQP_URI is empty: write a value, or leave the key out"),
    ("AMQP_URI: ''", "AMQP_URI is empty: "),
    ("AMQP_URI:\n  - amqp://a/\n  - ${UNSET}", "AMQP_URI: the environment has no UNSET: "),
    ("AMQP_URI:\n  - amqp://a/\n  -", "AMQP_URI is empty: "),
    ("WEB_SERVER_ADDRESS: ${UNSET}", "WEB_SERVER_ADDRESS: the environment has no UNSET: "),
    ("WEB_SERVER_ADDRESS: 0.0.0.0:${UNSET}", "WEB_SERVER_ADDRESS: the environment has no UNSET: "),
    ("WEBSOCKET_ORIGINS: ['']", "WEBSOCKET_ORIGINS is empty: "),
    (
        "RPC_TIMEOUT: ${UNSET:}",
        "RPC_TIMEOUT is empty, from UNSET in the environment: write a value, or null for no end",
    ),
    ("max_workers:", "max_workers is empty: "),
    ("AMQP_SSL:\n  ca_certs: ${UNSET}", "AMQP_SSL: the environment has no UNSET: "),
    ("rpc_exchange: calls-${UNSET}", "rpc_exchange: the environment has no UNSET: "),
    ("rpc_exchange: calls${UNSET:}", None),
    ("RPC_TIMEOUT: ${UNSET:null}", None),
    ("RPC_TIMEOUT: null", None),
    ("max_workers: ~", None),
    ("WEBSOCKET_ORIGINS: []", None),  # for the check of all values
    ("LOGGING: {version: 1, formatters: {a: {style: $, format: '${message}'}}, filters:}", None),
    ("DB_URI: ${UNSET}", None),
    ("DB_URI: x${UNSET}", None),
    ("DB_URI:", None),
]


class Unfilled(TestCase):
    """Our keys that are empty, or lack a variable."""

    def test_table(self) -> None:
        """Each is told with file and line, and no other key is looked at."""
        for text, words in UNFILLED:
            text = f"parent_calls_tracked: 3\n{text}"
            if words is None:
                settings.parse(text, "config.yaml", ENVIRON)
                continue
            error = str(self.assertRaises(ConfigurationError, settings.parse, text, "config.yaml", ENVIRON))
            line = text.count("\n") + 1
            self.assertTrue(error.startswith(f"config.yaml, line {line}: {words}"), error)
            self.assertNotIn("s3cret", error)

    def test_each(self) -> None:
        """All are told together, a line for each."""
        error = self.assertRaises(ConfigurationError, settings.parse, "max_workers:\nHEARTBEAT: ${X}", "c", ENVIRON)
        self.assertEqual(
            ["c, line 1: max_workers", "c, line 2: HEARTBEAT"], [line[:22].rstrip(" i:") for line in error.args]
        )

    def test_defined(self) -> None:
        """So are typed ones; a key that is typed need not be filled in the file."""
        for text, words in [
            ("AMQP_URI=", "--define: AMQP_URI is empty: write a value"),
            ("AMQP_URI=amqp://${UNSET}", "--define: AMQP_URI: the environment has no UNSET: set it"),
            ("WEB_SERVER_ADDRESS=${EMPTY}", "--define: WEB_SERVER_ADDRESS is empty, from EMPTY in the environment: "),
        ]:
            error = str(self.assertRaises(ConfigurationError, settings.define, text, ENVIRON))
            self.assertTrue(error.startswith(words), error)
        self.assertEqual(settings.parse("AMQP_URI: ${UNSET}", "c", ENVIRON, ["AMQP_URI"]), {"AMQP_URI": None})


class Mistakes(TestCase):
    """The error for a bad file says which file, which line, and what to do."""

    def mistake(self, text: str) -> str:
        return str(self.assertRaises(ConfigurationError, settings.parse, text, "config.yaml", ENVIRON))

    def test_with_others(self) -> None:
        """A value that is not filled in is told together with one that can't be, and with one that is no YAML."""
        text = "serializer:\nmax_workers: ten\nAMQP_URI: ${UNSET}\nRPC_TIMEOUT: x\nHEARTBEAT: x\nmine:\n"
        error = self.assertRaises(ConfigurationError, settings.parse, text, "c.yaml", ENVIRON, ("HEARTBEAT",))
        starts = ["c.yaml, line 1: serializer is", "c.yaml, line 3: AMQP_URI: the", "max_workers: ", "RPC_TIMEOUT: "]
        self.assertEqual([line[: len(start)] for line, start in zip(error.args, starts, strict=True)], starts)
        error = self.assertRaises(
            ConfigurationError, settings.parse, "serializer:\na: !env_var '[${HOST}'", "c.yaml", ENVIRON
        )
        self.assertEqual([line[:14] for line in error.args], ["c.yaml, line 1", "c.yaml, line 2"])

    def test_malformed(self) -> None:
        """Broken YAML names its line."""
        self.assertRegex(self.mistake("a: 1\nb: [1,\nc: 2\n"), r"^config.yaml, line [34]: .*flow sequence.*correct")

    def test_not_a_mapping(self) -> None:
        """A list at the top is refused."""
        self.assertIn("config.yaml contains a list", self.mistake("- a\n"))

    def test_unsafe_tag(self) -> None:
        """The loader is the safe one: no Python object comes out of a file."""
        message = self.mistake("a: !!python/name:os.system")
        self.assertIn("config.yaml, line 1: could not determine a constructor", message)

    def test_bad_after_expansion(self) -> None:
        """A value from the environment that is no YAML is not repeated: it may be a secret."""
        message = str(
            self.assertRaises(
                ConfigurationError, settings.parse, "a: 1\npassword: ${PW}\n", "c.yaml", {"PW": "@sec: [ret"}
            )
        )
        self.assertIn("c.yaml, line 2: ${PW} is not YAML once expanded", message)
        self.assertIn("!raw_env_var", message)
        self.assertNotIn("ret", message)

    def test_control_characters(self) -> None:
        """Bytes that YAML does not allow are reported as such."""
        self.assertIn("config.yaml is not YAML", self.mistake("a: \x00"))

    def test_files(self) -> None:
        """A file is read as UTF-8; one that is missing, or is not text, is named."""
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write("a: hellø\n".encode())
        self.assertEqual(settings.load(path), {"a": "hellø"})
        missing = str(self.assertRaises(ConfigurationError, settings.load, path + "-not"))
        self.assertIn(f"cannot read the config file {path}-not: No such file or directory", missing)
        with open(path, "wb") as file:
            file.write(b"a: \xff\n")
        self.assertIn("is not UTF-8", str(self.assertRaises(ConfigurationError, settings.load, path)))

    def test_define(self) -> None:
        """A typed value is read like one in a file; a bad one is not repeated."""
        for text, expected in [
            ("max_workers=5", ("max_workers", 5)),
            ("A=b=c", ("A", "b=c")),
            ("LIST=[1, two]", ("LIST", [1, "two"])),
            ("NOTHING=", ("NOTHING", None)),
            ("HOST=${HOST:x}.org", ("HOST", "broker.example.org")),
            ("TEXT='5'", ("TEXT", "5")),
        ]:
            self.assertEqual(settings.define(text, ENVIRON), expected)
        for text, pattern in [
            ("max_workers", "'max_workers' defines nothing: write KEY=VALUE"),
            ("=5", "'=5' defines nothing"),
            ("A=[s3cret", r"the value of A is not YAML \("),
            ("A=s3cret\0", r"the value of A is not YAML \("),
        ]:
            error = self.assertRaises(ConfigurationError, settings.define, text)
            self.assertRegex(str(error), pattern)
            self.assertNotIn("s3cret", str(error))
