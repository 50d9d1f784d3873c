"""nameko's extension packages, the real ones from PyPI, in services that run with ``--nameko``."""

from __future__ import annotations

from twisted.internet.defer import gatherResults

from tests.interop.packages_case import PackagesCase
from txservices.exceptions import RemoteError


class Databases(PackagesCase):
    """nameko-sqlalchemy."""

    async def test_sqlalchemy(self) -> None:
        """A block's session commits or rolls back, a worker's is its own and is closed, and a lost one tries again."""
        accounts = self.services.uses_sqlalchemy
        await accounts.create()
        await gatherResults([accounts.open(owner, 10) for owner in ("ann", "bob")])
        await accounts.move("ann", "bob", 3)
        await self.assertFailure(accounts.move("ann", "nobody", 3), RemoteError)
        self.assertEqual(await accounts.forget_to_commit("eve"), 3)
        self.assertEqual(await accounts.balances(), {"ann": 7, "bob": 13})
        self.assertEqual(await accounts.unlucky(2), 3)
