"""nameko-serializer's JSON with dates and named tuples, as one more serializer of the configuration."""

from collections import namedtuple
from datetime import date, datetime, timezone

from nameko.rpc import RpcProxy, rpc

Point = namedtuple("Point", "x y")


class UsesSerializer:
    name = "uses_serializer"

    me = RpcProxy("uses_serializer", serializer="dated")

    @rpc
    def told(self, at, day, point):
        return [at.year, at.utcoffset().total_seconds(), day.month, point.x, point["y"], type(point).__name__]

    @rpc
    def tell(self):
        at = datetime(2026, 11, 27, 3, tzinfo=timezone.utc)
        return self.me.told(at, date(2026, 11, 27), point=Point(1, 2))
