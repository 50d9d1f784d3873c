"""Two calls at once: `call_async` does not wait, and `result()` gives a Deferred of the answer, in any order."""

import sys

from twisted.internet import task

from txservices.standalone.rpc import ClusterRpcProxy


async def main(reactor, uri="amqp://guest:guest@localhost"):
    config = {"AMQP_URI": uri}
    async with ClusterRpcProxy(config) as cluster_rpc:
        hello_res = cluster_rpc.service_x.remote_method.call_async("hello")
        world_res = cluster_rpc.service_x.remote_method.call_async("world")
        # do other work here
        print(await hello_res.result())  # hello-x-y
        print(await world_res.result())  # world-x-y


if __name__ == "__main__":
    task.react(main, sys.argv[1:])
