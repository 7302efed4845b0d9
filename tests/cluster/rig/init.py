"""The first process of a node: reaps orphans; when it dies, the kernel ends all of the node."""

from __future__ import annotations

import os
import signal
from contextlib import suppress

if __name__ == "__main__":
    wanted = {signal.SIGTERM, signal.SIGCHLD}
    signal.pthread_sigmask(signal.SIG_BLOCK, wanted)
    while signal.sigwait(wanted) == signal.SIGCHLD:
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
