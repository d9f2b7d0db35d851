"""`python -m distill_runtime.supervisor ROLE`."""

import signal
import sys

from distill_runtime.supervisor.processes import HEARD

# From here on a SIGTERM waits until it is asked for: the imports below take a while.
signal.pthread_sigmask(signal.SIG_BLOCK, HEARD)

from distill_runtime.supervisor.entry import main  # noqa: E402 - see above

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
