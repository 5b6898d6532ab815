"""coordctl's probe: whether the daemon serves, for supervisors and scripts."""

import click
from grpc_health.v1 import health_pb2

from coordd.cli.failure import Away
from coordd.cli.invocation import Command, Invocation, pass_invocation
from coordd.cli.printer import cell

__all__ = ["health"]

_SERVING = health_pb2.HealthCheckResponse.SERVING


@click.command(cls=Command, short_help="Say whether the daemon serves, for probes.")
@pass_invocation
def health(invocation: Invocation) -> None:
    """Say whether the daemon serves: exit code 0, else 3. With --namespace, whether that one is served.

    It takes no identity, as other commands do: for containers, load balancers and supervisors.
    """
    name = f"namespace/{invocation.namespace}" if invocation.namespace else ""
    request = health_pb2.HealthCheckRequest(service=name)
    answer = invocation.daemon.ask(invocation.daemon.health.Check, request)
    if answer.status != _SERVING:
        path = click.get_current_context().command_path
        raise Away(f"{path}: the daemon does not serve{name and ' ' + name}")
    invocation.printer.message(answer, lambda: cell("serving"))
