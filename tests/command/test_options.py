"""The options that say which config is meant."""

from __future__ import annotations

from twisted.trial.unittest import TestCase

from tests import processes
from txservices.command.options import Given
from txservices.exceptions import ConfigurationError


class TheConfig(TestCase):
    """The configuration that the options come to."""

    def setUp(self) -> None:
        self.path = processes.config_file(self, AMQP_URI="amqp://file/", max_workers=3)

    def test_file(self) -> None:
        """The file alone, and nothing at all."""
        self.assertEqual(Given(self.path).config()["AMQP_URI"], "amqp://file/")
        self.assertEqual(Given().config(), {})

    def test_order(self) -> None:
        """--broker goes before --define, that before the file, and a later --define before an earlier."""
        config = Given(self.path, "amqp://typed/", ("AMQP_URI=amqp://defined/", "max_workers=4", "max_workers=5"))
        self.assertEqual((config.config()["AMQP_URI"], config.config()["max_workers"]), ("amqp://typed/", 5))
        self.assertEqual(Given(self.path, None, ("AMQP_URI=amqp://d/",)).config()["AMQP_URI"], "amqp://d/")

    def test_typed_over_an_empty_key(self) -> None:
        """An address that is typed takes the place of one that the environment leaves empty."""
        with open(self.path, "w", encoding="utf-8") as file:
            file.write("AMQP_URI: ${NO_SUCH_VARIABLE}\n")
        self.assertRaises(ConfigurationError, Given(self.path).config)
        for given in (Given(self.path, "amqp://typed/"), Given(self.path, None, ("AMQP_URI=amqp://typed/",))):
            self.assertEqual(given.config()["AMQP_URI"], "amqp://typed/")

    def test_mistake(self) -> None:
        """A wrong definition is a mistake of the user's."""
        self.assertRaises(ConfigurationError, Given(defines=("max_workers",)).config)

    def test_values(self) -> None:
        """All wrong values are one mistake, from wherever they come; an empty --broker is one of them."""
        given = Given(self.path, "", ("HEARTBEAT=x", "RPC_TIMEOUT=.nan"))
        lines = self.assertRaises(ConfigurationError, given.config).args
        self.assertEqual([line.split()[0].rstrip(":") for line in lines], ["AMQP_URI", "RPC_TIMEOUT", "HEARTBEAT"])


class WhatToType(TestCase):
    """Options for another command to come to the same broker."""

    def test_options(self) -> None:
        """Characters that both sides have in common are repeated, quoted; the rest isn't, least of all a password."""
        for given, expected in [
            (Given(), ""),
            (Given("a b.yaml"), " --config 'a b.yaml'"),
            (Given(broker="amqp://guest:guest@h/"), " --broker amqp://guest:guest@h/"),
            (Given(broker="amqp://me:s3cret@h/"), " --broker 'amqp://me:********@h/'"),
            (Given(defines=("rpc_exchange=x", "secret=y")), " --define rpc_exchange=x"),
            (Given(defines=("AMQP_URI=amqp://me:s3cret@h/",)), " --broker 'amqp://me:********@h/'"),
            (Given(defines=("AMQP_URI=[amqp://a/, amqp://b/]",)), " --broker 'amqp://a/;amqp://b/'"),
            (Given(broker="amqp://a/", defines=("AMQP_URI=amqp://b/",)), " --broker amqp://a/"),
        ]:
            self.assertEqual(given.to_type(), expected)
