"""What makes a part of this machine a node: one network and one mount namespace, and a control group."""

import os
import signal
from collections.abc import Sequence
from pathlib import Path

from tests.testcluster.waiting import wait_until

CONTROL_GROUPS = Path("/sys/fs/cgroup")
SYSTEM = "system"
"""The control group of a node's own servers, beside those of its pods."""
END_SECONDS = 30.0
PRIVATE_FOLDERS = ("/var/lib/kubelet", "/var/lib/cni", "/var/log/pods", "/var/log/containers")
"""Each node has its own; they are kept in the cluster's root folder."""
KERNEL_SETTINGS = (
    "vm/overcommit_memory",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
)
"""kubelet changes these; a node has files in their place, so that this machine's stay as they are."""

HOLDER = f"""
set -e
home=$1
for setting in {" ".join(KERNEL_SETTINGS)}; do
  mkdir -p "$home/settings/$(dirname $setting)"
  cat /proc/sys/$setting > "$home/settings/$setting"
  mount --bind "$home/settings/$setting" /proc/sys/$setting
done
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/netns /run/lock
mount -t tmpfs -o mode=755 tmpfs /var/lib
mount -t tmpfs -o mode=755 tmpfs /var/log
for folder in {" ".join(PRIVATE_FOLDERS)}; do
  mkdir -p $folder "$home$folder"
  mount --bind "$home$folder" $folder
done
: > "$home/resolv.conf"
mount --bind "$home/resolv.conf" /etc/resolv.conf
mount --make-rshared /
ip link set lo up
echo 1 > /proc/sys/net/ipv4/ip_forward
: > "$home/held"
exec sleep infinity
"""
"""What the process does that holds a node's namespaces. All mounts go when the last process of the node ends."""


def hierarchies() -> list[Path]:
    """The mounted hierarchies of control groups: one where there is version 2, one a controller with version 1."""
    mounts = (line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines())
    return [Path(folder) for folder, kind in mounts if kind in ("cgroup", "cgroup2")]


def create_control_group(group: Path) -> None:
    """Makes a node's control group in one hierarchy, with a child for its own servers."""
    (group / SYSTEM).mkdir(parents=True)
    if not (group / "cgroup.clone_children").exists() or not (group / "cpuset.cpus").exists():
        return
    (group / "cgroup.clone_children").write_text("1")
    for child in (group, group / SYSTEM):
        for name in ("cpuset.cpus", "cpuset.mems"):
            (child / name).write_text((group.parent / name).read_text())


def remove_control_groups(prefix: str) -> None:
    """Kills what is in the control groups whose names begin so, and removes them."""
    groups = [group for hierarchy in hierarchies() for group in hierarchy.glob(f"{prefix}-*")]
    if not groups:
        return
    wait_until("the end of the processes of the nodes", lambda: not kill_members(groups), END_SECONDS)
    for group in groups:
        wait_until(f"the removal of the control group {group}", lambda group=group: _removed(group), END_SECONDS)


def kill_members(groups: Sequence[Path]) -> set[int]:
    """Kills all processes in control groups; returns those that were there."""
    found: set[int] = set()
    for group in groups:
        for folder, _, _ in os.walk(group):
            try:
                found |= {int(pid) for pid in (Path(folder) / "cgroup.procs").read_text().split()}
            except (FileNotFoundError, OSError):
                continue  # The group went while we looked.
    for pid in found:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    return found


def _removed(group: Path) -> bool:
    for folder, _, _ in os.walk(group, topdown=False):
        try:
            os.rmdir(folder)
        except OSError:
            return False  # Busy for a moment after its last process.
    return not group.exists()


def holder_command(home: Path) -> list[str]:
    """The command that makes a node's namespaces and holds them."""
    return ["unshare", "--mount", "--net", "--propagation", "private", "sh", "-c", HOLDER, "sh", str(home)]


def inside(holder: int, command: Sequence[str]) -> list[str]:
    """The command, run in a node's namespaces."""
    return ["nsenter", "--target", str(holder), "--mount", "--net", "--", *command]


def in_control_groups(groups: Sequence[str], command: Sequence[str]) -> list[str]:
    """The command, run in a node's control group for servers."""
    join = f'for group in "$@"; do shift; test "$group" = -- && break; echo 0 > "$group/{SYSTEM}/cgroup.procs"; done'
    return ["sh", "-e", "-c", f'{join}; exec "$@"', "sh", *groups, "--", *command]
