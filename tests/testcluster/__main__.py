"""The test cluster by hand: `python -m tests.testcluster --help`."""

import re
import shlex
import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

from tests.testcluster.build import build as build_programs
from tests.testcluster.cluster import TWO_POOLS, Cluster, NodeRequest
from tests.testcluster.cluster import down as take_down
from tests.testcluster.cluster import up as bring_up
from tests.testcluster.dockerfile import build_archive
from tests.testcluster.errors import TestClusterError
from tests.testcluster.programs import all_programs
from tests.testcluster.roots import default_root

app = typer.Typer(
    help="A real Kubernetes on this machine, without Docker.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
Root = Annotated[Path, typer.Option(help="Folder of the cluster.", default_factory=default_root)]
NodeName = Annotated[str, typer.Argument(metavar="NODE")]


def parse_node(text: str) -> NodeRequest:
    """Reads `NAME=POOL` or `NAME=POOL:GPUS`."""
    found = re.fullmatch(r"([a-z0-9][a-z0-9-]*)=([A-Za-z0-9._-]+?)(?::(\d+))?", text)
    if found is None:
        raise typer.BadParameter(f"{text} is not a node: write NAME=POOL or NAME=POOL:GPUS.")
    name, pool, gpus = found.groups()
    return NodeRequest(name, pool, int(gpus or 0))


@app.command()
def up(
    root: Root,
    control_plane_only: Annotated[bool, typer.Option(help="No nodes; needs no root.")] = False,
    network_policies: Annotated[bool, typer.Option(help="Enforce NetworkPolicies.")] = False,
    node: Annotated[
        list[NodeRequest] | None,
        typer.Option(parser=parse_node, metavar="NAME=POOL:GPUS", help="A node; several may be given."),
    ] = None,
    image: Annotated[list[Path] | None, typer.Option(help="Archive of an image that all nodes get.")] = None,
) -> None:
    """Bring a cluster up: two nodes, `pool=teacher` and `pool=student`, with four fake GPUs each."""
    nodes = () if control_plane_only else tuple(node or TWO_POOLS)
    cluster = bring_up(root, nodes, network_policies=network_policies, images=image or ())
    typer.echo(f"export KUBECONFIG={shlex.quote(str(cluster.control_plane.kubeconfig))}")


@app.command()
def down(root: Root) -> None:
    """Take the cluster down; nothing of it stays."""
    take_down(root)


@app.command()
def build(names: Annotated[list[str] | None, typer.Argument(metavar="[PROGRAM]...")] = None) -> None:
    """Build programs that are missing; without names, all."""
    programs = all_programs()
    for name in set(names or programs) - set(programs):
        raise typer.BadParameter(f"There is no program {name}; there are {', '.join(programs)}.")
    build_programs([programs[name] for name in names or programs])


@app.command()
def image(
    target: Annotated[str, typer.Argument(help="Target of the Dockerfile: operator, runtime or runtime-cpu.")],
    output: Annotated[Path | None, typer.Option(help="Copy the archive to this file.")] = None,
) -> None:
    """Build an image of the Dockerfile without a container engine; print its name and its archive."""
    built = build_archive(target)
    if output is not None:
        shutil.copyfile(built.path, output)
    typer.echo(f"{built.name} {output or built.path}")


@app.command()
def info(root: Root) -> None:
    """Show what is up, as JSON."""
    typer.echo(Cluster.read(root).state.model_dump_json(indent=1))


@app.command()
def kubeconfig(root: Root, user: str | None = None, group: Annotated[list[str] | None, typer.Option()] = None) -> None:
    """Print the path of the admin's kubeconfig, or make one for a user in groups."""
    control_plane = Cluster.read(root).control_plane
    typer.echo(control_plane.kubeconfig_for(user, groups=group or ()) if user else control_plane.kubeconfig)


@app.command()
def load(archives: list[Path], root: Root) -> None:
    """Make the images of archives known to all nodes."""
    for node in Cluster.read(root).nodes.values():
        node.load_images(archives)


@app.command()
def gpu(node: NodeName, devices: list[str], root: Root) -> None:
    """Make devices of a node unhealthy: `gpu0 gpu1 …`, `all` or `none`; the others are healthy."""
    Cluster.read(root).node(node).set_unhealthy_gpus([] if devices == ["none"] else devices)


@app.command()
def kubelet(node: NodeName, action: Annotated[str, typer.Argument(metavar="start|stop")], root: Root) -> None:
    """Kill a node's kubelet or start it again."""
    found = Cluster.read(root).node(node)
    match action:
        case "start":
            found.start_kubelet()
        case "stop":
            found.stop_kubelet()
        case _:
            raise typer.BadParameter(f"{action} is neither start nor stop.")


@app.command(context_settings={"ignore_unknown_options": True})
def sh(node: NodeName, command: list[str], root: Root) -> None:
    """Run a command in a node's namespaces."""
    raise typer.Exit(Cluster.read(root).node(node).shell(command))


if __name__ == "__main__":
    try:
        app()
    except TestClusterError as error:
        typer.echo(f"testcluster: {error}", err=True)
        sys.exit(1)
