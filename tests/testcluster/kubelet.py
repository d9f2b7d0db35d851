"""Configuration of kubelet and kube-proxy."""

import json
from pathlib import Path

from tests.testcluster.container_runtime import SOCKET
from tests.testcluster.credentials import AUTHORITY, kubeconfig_file, pki_folder
from tests.testcluster.network import Network
from tests.testcluster.programs import feature_gates
from tests.testcluster.state import ClusterState, NodeState


def kubelet_configuration(root: Path, home: Path, state: ClusterState, node: NodeState) -> str:
    """kubelet's configuration on a node whose files are in `home`."""
    pki = pki_folder(root)
    return json.dumps(
        {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": node.address,
            "port": 10250,
            "healthzBindAddress": "127.0.0.1",
            "healthzPort": 10248,
            "readOnlyPort": 0,
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": f"{pki}/{AUTHORITY}.crt"},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": f"{pki}/{node.name}.crt",
            "tlsPrivateKeyFile": f"{pki}/{node.name}.key",
            "failCgroupV1": False,
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{Path(node.control_groups[0]).name}",
            "containerRuntimeEndpoint": f"unix://{SOCKET}",
            "failSwapOn": False,
            "clusterDomain": "cluster.local",
            "clusterDNS": [state.dns_address],
            "resolvConf": "/etc/resolv.conf",
            "volumePluginDir": f"{home}/volume-plugins",
            "serializeImagePulls": False,
            # The disk is this machine's: its fullness is not the cluster's to mend.
            "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
            "imageGCHighThresholdPercent": 100,
            "nodeStatusUpdateFrequency": "4s",
            "syncFrequency": "1s",
            # How often the disk that pods use is measured; a minute otherwise.
            "volumeStatsAggPeriod": "5s",
            "featureGates": feature_gates(state.kubernetes),
        }
    )


def proxy_configuration(root: Path, node: NodeState, network: Network) -> str:
    """kube-proxy's configuration on a node."""
    return json.dumps(
        {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "nftables",
            "hostnameOverride": node.name,
            "clusterCIDR": network.all_pods,
            "bindAddress": node.address,
            "clientConnection": {"kubeconfig": str(kubeconfig_file(root, "kube-proxy"))},
            "healthzBindAddress": "127.0.0.1:10256",
            "metricsBindAddress": "127.0.0.1:10249",
            # These settings belong to the whole machine.
            "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        }
    )
