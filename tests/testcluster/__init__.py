"""A real Kubernetes on one machine, without Docker, for tests and for trying things out.

Two forms: a control plane alone (etcd, API server, controller manager, scheduler; any user may run it, several at a
time), and a cluster with nodes (kubelet, containerd, kube-proxy, CoreDNS; needs root on Debian) that offer fake GPUs.

- `build`: the programs, built once from the pinned modules in `go/` into the user's cache folder.
- `control_plane`, `etcd`, `pki`, `kubeconfig`: the control plane. `node`, `network`, `container_runtime`, `images`,
  `dns`: what nodes add. `cluster`: up and down. `state`: what is written down about a cluster that is up.
- `dockerfile`: images of the project's Dockerfile, built by `podman` from a `base_image` that is made here;
  `image_layers`: which of their layers are kept.
- `processes`: starting, finding and ending. `roots`, `guard`: clusters that end with the process that owns them.
- `python -m tests.testcluster`: the same by hand.

Promises:

- All files of a cluster are in its root folder; all of its processes carry that folder in their environment; names of
  interfaces and control groups are derived from it. So `down` finds everything, whatever a killed `up` wrote down.
- `down` leaves no process, interface, mount, control group, kernel setting or file.

The fixtures that tests use are in `tests/fixtures/kubernetes.py`.
"""
