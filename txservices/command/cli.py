"""The command `txservices`: runs services, calls them, dispatches events to them, and more.

Exit status: 0 for success, 1 for a remote error or a crash, 2 for a mistake of the user. Results go to stdout, errors
to stderr.
"""

from __future__ import annotations

import json
import sys
from typing import Any, NoReturn

import click
import yaml
from attrs import evolve

from txservices import configuration
from txservices.command import exits, fleet, logs, outputs, reactors, reloading, tap
from txservices.command.arguments import method_of, read_arguments, read_json
from txservices.command.bench import bench
from txservices.command.broker import embedded_address
from txservices.command.client import as_client
from txservices.command.migrate import migrate
from txservices.command.options import Given, config_option, configured, define_option
from txservices.command.page import page
from txservices.command.parked import parked
from txservices.exceptions import ChannelClosedByBroker, CommandError, ConfigurationError, UndeliverableMessage
from txservices.utils import default_reactor
from txservices.utils.secrets import without_secrets
from txservices.wire.spec import ReplyCode


def main() -> None:
    """Run the command line. A mistake of the user is told in one line."""
    outputs.take_any_text()
    try:
        commands.main(standalone_mode=True)
    except ConfigurationError as error:
        exits.tell(error)
        sys.exit(exits.MISTAKE)
    finally:
        outputs.let_go()


@click.group(
    name="txservices",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="\b\nTo complete commands in bash (likewise zsh_source, fish_source):\n"
    '  eval "$(_TXSERVICES_COMPLETE=bash_source txservices)"',
)
@click.version_option(package_name="txservices")
def commands() -> None:
    """Microservices on Twisted: RPC, events, HTTP and timers."""


@commands.command()
@click.argument("modules", nargs=-1, required=True, metavar="MODULE[:CLASS]...")
@configured
@click.option(
    "--backdoor-port",
    "backdoor",
    metavar="[HOST:]PORT",
    help="Open a Python prompt inside the process, for telnet from this machine.",
)
@click.option("--ops", metavar="[HOST:]PORT", help="Serve /healthz, /readyz and /metrics there; see OPS_ADDRESS.")
@click.option("--reload", "again", is_flag=True, help="Restart when a module or the config file changes.")
@click.option(
    "--reactor",
    metavar="NAME",
    help="Which of Twisted's reactors to run: asyncio for methods that await what asyncio waits for.",
)
@click.option("--page", "with_page", is_flag=True, help="Show the cluster in a browser, as `txservices page` does.")
@click.option("--nameko", "of_nameko", is_flag=True, help="The services are nameko's, unchanged; see NAMEKO.")
def run(
    modules: tuple[str, ...],
    given: Given,
    backdoor: str | None,
    ops: str | None,
    again: bool,
    reactor: str | None,
    with_page: bool,
    of_nameko: bool,
) -> None:
    """Run every service in the modules, until SIGTERM or Ctrl-C.

    If no broker is configured, the embedded one is used, on 127.0.0.1:5672.
    """
    if reactor is not None:
        reactors.install(reactor)

    def serve(ending: exits.Ending) -> NoReturn:
        config, runner_cls = tap.begin(evolve(given, ops=ops, nameko=of_nameko).config())
        outputs.lose_what_fails()
        logs.begin(config)
        tree = tap.ServiceTree(config, ending, outputs.Output(sys.stdout).line, given.to_type(), runner_cls)
        tree.add(modules)
        tree.open_backdoor(backdoor)
        tree.with_page = with_page
        tap.run(tree, ending)

    if again:
        reloading.keep_serving(serve, [given.path] if given.path else [], default_reactor())
    serve(exits.Ending(default_reactor()))


@commands.command()
@click.option("--host", help="The address to listen on; that of EMBEDDED_BROKER_ADDRESS if it isn't given.")
@click.option("--port", type=int, help="The port to listen on, likewise.")
@config_option
@define_option
def broker(host: str | None, port: int | None, path: str | None, defines: tuple[str, ...]) -> None:
    """Run the embedded broker alone. It keeps nothing when it ends.

    From other machines only the users of EMBEDDED_BROKER_USERS may come in.
    """
    config = Given(path, None, defines).config()
    configured_host, configured_port = embedded_address(config)
    address = host or configured_host, configured_port if port is None else port
    ending = exits.Ending(default_reactor())
    logs.begin({})
    users = configuration.EMBEDDED_BROKER_USERS.of(config)
    tap.run(tap.BrokerAlone(*address, users, ending, say=outputs.Output(sys.stdout).line), ending)


@commands.command()
@click.argument("target", metavar="SERVICE.METHOD")
@click.argument("arguments", default="[]", metavar="[JSON]")
@configured
def call(target: str, arguments: str, given: Given) -> None:
    """Call a method of a service and print its result as JSON.

    An array holds positional arguments, an object keyword arguments:

        txservices call service_x.remote_method '["hello"]'
    """
    service, method = method_of(target)
    args, kwargs = read_arguments(arguments)

    async def work(config: dict[str, Any]) -> None:
        from txservices.standalone.rpc import ClusterRpcProxy

        async with ClusterRpcProxy(config) as cluster:
            result = await getattr(cluster[service], method)(*args, **kwargs)
        click.echo(json.dumps(result, ensure_ascii=False))

    as_client(work, given)


@commands.command()
@click.argument("service")
@click.argument("event")
@click.argument("payload", default="null", metavar="[JSON]")
@configured
def dispatch(service: str, event: str, payload: str, given: Given) -> None:
    """Dispatch an event in the name of SERVICE.

    txservices dispatch service_a event_type '"hello"'
    """
    data = read_json(payload)

    async def work(config: dict[str, Any]) -> None:
        from txservices.standalone.events import event_dispatcher

        async with event_dispatcher(config, mandatory=True) as tell:
            await tell.start()
            try:
                await tell(service, event, data)
            except UndeliverableMessage:
                hint = "see the name, or start a service that handles it"
                click.echo(f"nobody hears the event {event!r} of {service!r}: {hint}", err=True)
            except ChannelClosedByBroker as error:
                if error.code != ReplyCode.NOT_FOUND:
                    raise
                raise CommandError(
                    f"no service {service!r} has dispatched events on this broker, so nobody hears them: see the name,"
                    " or start a service that dispatches or handles them"
                ) from None

    as_client(work, given)


@commands.command()
@configured
@click.option(
    "--interface",
    type=click.Choice(["bpython", "ipython", "plain"]),
    help="Which prompt to use. By default the first of these that is installed.",
)
def shell(given: Given, interface: str | None) -> None:
    """Open a Python prompt in which `n` calls services.

    n.rpc.service_x.remote_method("hello") waits for the result and returns it. Statements piped into it are run.
    """
    from txservices.command.shell import interact

    interact(given, interface)


@commands.command("show-config")
@configured
def show_config(given: Given) -> None:
    """Print the config that the services would get. Secrets are hidden: passwords in addresses, and values whose keys
    say that they are secret."""
    config = (given if given.path else evolve(given, path="config.yaml")).config()
    click.echo(yaml.safe_dump(without_secrets(config), default_flow_style=False, allow_unicode=True), nl=False)


@commands.command("nameko", context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="ARGUMENTS...")
def nameko_line(arguments: tuple[str, ...]) -> None:
    """Take a command line of nameko's as it is: `txservices nameko run --config config.yaml service`."""
    from txservices.command.nameko import translated

    commands.main(translated(arguments), standalone_mode=True)


for command in (page, parked, migrate, fleet.services, fleet.describe, fleet.ping, fleet.tail, fleet.top, bench):
    commands.add_command(command)
