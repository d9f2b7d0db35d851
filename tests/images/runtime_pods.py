"""The pods of a job as the operator renders them, run by podman instead of a kubelet.

The image gives the program and the user, the pod its variables and volumes. The root is read-only, no capability is
left, and there is no network but loopback.
"""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill_operator.api import DistillJob
from distill_operator.configuration import OperatorConfiguration
from distill_operator.constants import RUN_CONFIG_KEY
from distill_operator.render import Rendered, render_attempt
from distill_operator.render.pod import USER
from distill_operator.render.variables import TERMINATION_LOG
from distill_operator.render.volumes import CONFIG_FOLDER, SHARED_MEMORY_FOLDER
from distill_runtime.contract import environment
from distill_runtime.contract.outcome import Outcome
from distill_runtime.contract.run import Role
from tests.testcluster.podman import limits, podman_command

POD_SECONDS = 900
"""Longer than any pod here takes on two busy cores."""
SHARED_MEMORY = "1g"
KUBELETS = {environment.REPLICA: "teacher-0", environment.NODE_RANK: "0"}
"""Variables whose values are fields of the pod."""
RESOLVED = {environment.MASTER_ADDRESS: "127.0.0.1"}
"""Without a cluster's DNS: what the first worker's name means to itself."""
LOG_LINES = 40


@dataclass(frozen=True)
class RuntimePods:
    """A job's pods, one after the other: its signal mode must be `offline`."""

    image: str
    job: DistillJob
    inputs: Path
    """Folder of models and data, which pods have read-only at the same place and must be able to read."""
    store: Path
    """Folder of the job's store, which pods have at the same place."""
    volumes: Path
    """Folder for the volumes of the pods."""

    @property
    def _rendered(self) -> Rendered:
        return render_attempt(self.job, OperatorConfiguration(runtime_image=self.image), attempt=1)

    def container(self, role: Role) -> dict[str, Any]:
        """What the operator renders for a role."""
        return self._rendered.children[role]["spec"]["template"]["spec"]["containers"][0]

    def volume(self, role: Role, mount_path: str) -> Path:
        """A writable volume of a role's pod."""
        return self.volumes / role / mount_path.strip("/").replace("/", "-")

    def run(self, role: Role) -> Outcome:
        """Runs a pod to its end, which must be good, and returns its last word."""
        termination_log = self._make_volumes(role)
        command = self._command(role, termination_log)
        pod = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        end = "\n".join(pod.stdout.splitlines()[-LOG_LINES:])
        assert pod.returncode == 0, f"the pod of {role} ended with {pod.returncode}:\n{end}"
        return Outcome.model_validate_json(termination_log.read_bytes())

    def _make_volumes(self, role: Role) -> Path:
        """Makes the volumes as a kubelet would, for the pod's user; returns the file for its last word."""
        mounted = [self.volume(role, mount["mountPath"]) for mount in self.container(role)["volumeMounts"]]
        for folder in mounted:
            folder.mkdir(parents=True)
        (self.volume(role, CONFIG_FOLDER) / RUN_CONFIG_KEY).write_text(self._rendered.run_config)
        termination_log = self.volumes / role / "termination-log"
        termination_log.touch()
        for path in (*mounted, termination_log):
            os.chown(path, USER, USER)
        return termination_log

    def _command(self, role: Role, termination_log: Path) -> list[str]:
        return podman_command(
            *("run", "--rm", "--timeout", str(POD_SECONDS)),
            *("--read-only", "--read-only-tmpfs=false", "--network", "none"),
            *("--cap-drop", "all", "--security-opt", "no-new-privileges", *limits()),
            *self._variables(role),
            *self._mounts(role),
            *("--volume", f"{termination_log}:{TERMINATION_LOG}"),
            *("--volume", f"{self.inputs}:{self.inputs}:ro"),
            *("--volume", f"{self.store}:{self.store}"),
            self.image,
            role,
        )

    def _variables(self, role: Role) -> list[str]:
        variables: dict[str, str] = {}
        for variable in self.container(role)["env"]:
            name = variable["name"]
            variables[name] = variable["value"] if "value" in variable else KUBELETS[name]
        resolved = {name: value for name, value in RESOLVED.items() if name in variables}
        return [
            argument for name, value in {**variables, **resolved}.items() for argument in ("--env", f"{name}={value}")
        ]

    def _mounts(self, role: Role) -> list[str]:
        arguments = ["--shm-size", SHARED_MEMORY]
        for mount in self.container(role)["volumeMounts"]:
            path = mount["mountPath"]
            if path != SHARED_MEMORY_FOLDER:
                mode = ":ro" if mount.get("readOnly") else ""
                arguments += ["--volume", f"{self.volume(role, path)}:{path}{mode}"]
        return arguments
