"""A tick a second, in every instance."""

from txservices.timer import timer


class Service:
    name = "service"

    @timer(interval=1)
    def ping(self):
        print("pong")
