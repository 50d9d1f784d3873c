"""One method alone, with a double of what it calls. Run it with `trial test_conversion`."""

from twisted.trial import unittest

from txservices.rpc import RpcProxy, rpc
from txservices.testing.services import worker_factory


class Conversion:
    name = "conversion"
    rates = RpcProxy("rates")

    @rpc
    async def to_euro(self, amount):
        return amount * await self.rates.rate("EUR")


class ConversionTests(unittest.TestCase):
    async def test_to_euro(self):
        service = worker_factory(Conversion)
        service.rates.rate.return_value = 2
        self.assertEqual(await service.to_euro(10), 20)
        service.rates.rate.assert_called_once_with("EUR")
