"""Set-up and measurement: matrix, plan, sweep, runs and their records."""

VERSION = "0.2.0"
