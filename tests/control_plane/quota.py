"""A ResourceQuota that holds from now on."""

from tests.testcluster.errors import TestClusterError
from tests.testcluster.kubectl import Kubectl
from tests.testcluster.waiting import wait_until

NAME = "none"


def hold_to_quota(kubectl: Kubectl, namespace: str, *hard: str) -> None:
    """Makes the quota `none` with these limits, and waits until the API server holds to it, which is a moment later."""
    # Secrets, which no job makes, are limited too: they show when the quota is known, and nothing comes of asking.
    kubectl("create", "quota", NAME, f"--hard={','.join((*hard, 'count/secrets=0'))}", "-n", namespace)

    def holds() -> bool:
        try:
            kubectl("create", "secret", "generic", "probe", "--dry-run=server", "-n", namespace)
        except TestClusterError as error:
            if f"exceeded quota: {NAME}" in str(error):
                return True
            if "status unknown for quota" not in str(error):
                raise
        return False

    wait_until(f"quota {NAME} in {namespace}", holds)
