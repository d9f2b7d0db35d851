"""`make demo-cluster`: from nothing to a finished DistillJob on a Kubernetes cluster of this machine."""

import shlex
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer
import yaml
from rich.console import Console

from distill_operator.cli.results import score_table
from distill_runtime.contract.report import Report
from examples import smollm2
from tests.cluster.job_rows import follow
from tests.cluster.platform import Platform, platform
from tests.testcluster import packages
from tests.testcluster.build import build
from tests.testcluster.cluster import TWO_POOLS
from tests.testcluster.dockerfile import build_archive
from tests.testcluster.errors import TestClusterError
from tests.testcluster.owned import REPOSITORY, owned_cluster
from tests.testcluster.programs import HELM_4
from tests.testcluster.runtime_environment import folder_claim, install_packages

MANIFEST = Path("examples/quickstart-cluster.yaml")
DATA = REPOSITORY / "examples" / "quickstart"
DATA_PREFIX = "quickstart"
MODELS_CLAIM = "models"
STORE_NAMESPACE, STORE_SERVICE, STORE_PORT = "store", "s3", 8333
"""Where the manifest says that the store is."""
RESULTS = Path("distill-runs")
PROGRESS_SECONDS = 10
"""Between two looks of the operator at the pods' progress: a line each on the terminal."""
ECHO_SECONDS = 1.0
TERMINATED = 128 + signal.SIGTERM

console = Console()


def main(
    keep: Annotated[bool, typer.Option(help="Leave the cluster up at the end, until Ctrl-C.")] = False,
) -> None:
    """Bring up a cluster, install the operator, run a DistillJob, show its report, take the cluster down.

    The cluster has two nodes on this machine, without Docker: it needs root, Debian and some of its packages.
    """
    signal.signal(signal.SIGTERM, _end)
    demo = Demo()
    try:
        with demo.cluster() as made:
            try:
                demo.run(made)
            except SystemExit:
                keep = False
                raise
            finally:
                if keep:
                    demo.wait_for_interrupt(made)
                demo.say("Taking the cluster down …")
                # It takes seconds, and is to be done to its end.
                signal.signal(signal.SIGINT, signal.SIG_IGN)
    except TestClusterError as error:
        console.print(f"demo: {error}", style="bold red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(1) from error
    except KeyboardInterrupt:
        demo.say("Interrupted: the cluster is down.")
        raise typer.Exit(128 + signal.SIGINT) from None
    demo.say("The cluster is down; nothing of it is left.")


class Demo:
    """One run of the demo."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._manifest: dict[str, Any] = yaml.safe_load((REPOSITORY / MANIFEST).read_text())
        self._name: str = self._manifest["metadata"]["name"]
        self._namespace: str = self._manifest["metadata"]["namespace"]

    def say(self, text: str) -> None:
        """Prints what happens, with the time since the beginning."""
        seconds = round(time.monotonic() - self._began)
        self._print(f"[{seconds // 60}:{seconds % 60:02}] {text}")

    def _print(self, text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    @contextmanager
    def cluster(self) -> Iterator[Platform]:
        """The cluster with everything but the job."""
        packages.check_installed()
        packages.check_image_builder_installed()
        models = smollm2.model_folder().parent
        runtime = install_packages(self.say)
        build([HELM_4], self.say)
        image = build_archive("operator", self.say)
        self.say("Bringing up a cluster: two nodes, NetworkPolicies enforced …")
        with owned_cluster(TWO_POOLS, network_policies=True, report=self.say) as cluster:
            self.say("Installing the operator's chart; starting an S3 store …")
            changes = {"progressSeconds": PROGRESS_SECONDS}
            with platform(cluster, image.path, image.name, runtime, changes) as made:
                self._prepare(made, models)
                yield made

    def _prepare(self, made: Platform, models: Path) -> None:
        """What the manifest names: the namespace with its Secret, the model's claim, the data, the store's address."""
        made.make_namespace(self._namespace)
        made.kubectl.create([*folder_claim(MODELS_CLAIM, self._namespace, str(models))])
        made.upload({path.name: path for path in DATA.iterdir()}, DATA_PREFIX)
        made.serve_store(STORE_NAMESPACE, STORE_SERVICE, STORE_PORT)

    def run(self, made: Platform) -> None:
        """Applies the job, shows how it goes, and what came of it."""
        self._print(made.kubectl("get", "nodes", "--label-columns=pool").rstrip())
        self.say(f"kubectl apply -f {MANIFEST}")
        made.kubectl("apply", "-f", str(REPOSITORY / MANIFEST))
        status = follow(made.kubectl, self._namespace, self._name, self._print)
        if status["phase"] != "Succeeded":
            self._print(made.kubectl("describe", "distilljob", self._name, "-n", self._namespace))
            raise TestClusterError(
                f"The job failed ({status['reason']}): {status['message']} To look around, run it again with --keep."
            )
        self._show_report(made, status["output"])

    def _show_report(self, made: Platform, output: dict[str, str]) -> None:
        folder = RESULTS / f"{self._name}-cluster"
        folder.mkdir(parents=True, exist_ok=True)
        page, document = folder / "report.html", folder / "report.json"
        page.write_bytes(made.download(output["report"]))
        document.write_bytes(made.download(output["report"].removesuffix(page.name) + document.name))
        console.print(score_table(Report.model_validate_json(document.read_bytes())))
        self._print(f"Model:   {output['model']}")
        self._print(f"Report:  {document.absolute()}\nReport:  {page.absolute()}")
        self.say("Finished. The store goes with the cluster, and the model in it.")

    def wait_for_interrupt(self, made: Platform) -> None:
        """Says how to look around, and stays until Ctrl-C."""
        kubeconfig = made.kubectl.kubeconfig
        folder = made.cluster.state.programs
        self._print(
            "The cluster stays up. In another terminal:\n"
            f"  export KUBECONFIG={shlex.quote(str(kubeconfig))} PATH={shlex.quote(str(folder))}:$PATH\n"
            f"  kubectl describe dj {self._name} -n {self._namespace}\n"
            "Ctrl-C here takes it down."
        )
        # `uv run` passes on what a terminal has sent to all already: the one Ctrl-C comes twice.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        time.sleep(ECHO_SECONDS)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            signal.pause()
        except KeyboardInterrupt:
            return


def _end(number: int, frame: FrameType | None) -> None:
    """Lets everything be taken down."""
    sys.exit(TERMINATED)


if __name__ == "__main__":
    typer.run(main)
