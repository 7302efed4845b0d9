"""RPS beside RSS: what steering adds where the NIC has a queue for each core of the server, on both forms of the lab.

.venv/bin/python -m benchmarks.queues > benchmarks/queues.json        (root, about 5 minutes)
"""

from __future__ import annotations

import sys

from benchmarks import forms

if __name__ == "__main__":
    forms.main(sys.argv[1:], all_queues=True)
