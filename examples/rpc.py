"""One service calls another: `remote_method` waits for `append_identifier`, and returns its answer."""

from txservices.rpc import RpcProxy, rpc


class ServiceY:
    name = "service_y"

    @rpc
    def append_identifier(self, value):
        return f"{value}-y"


class ServiceX:
    name = "service_x"

    y = RpcProxy("service_y")

    @rpc
    def remote_method(self, value):
        # A call gives a Deferred; so does the method, and the caller gets what it fires with.
        return self.y.append_identifier(f"{value}-x")
