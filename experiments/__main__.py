"""`python -m experiments`: the command line, as the `steerlab` wrapper starts it."""

from experiments.cli import main

main()
