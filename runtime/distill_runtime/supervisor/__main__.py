"""`python -m distill_runtime.supervisor ROLE`."""

import signal
import sys

from distill_runtime.supervisor.entry import main
from distill_runtime.supervisor.processes import HEARD

if __name__ == "__main__":
    # A SIGTERM before the role runs must not end this process without a word.
    signal.pthread_sigmask(signal.SIG_BLOCK, HEARD)
    sys.exit(main(sys.argv[1:]))
