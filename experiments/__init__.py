"""What is run: the matrix, the plan, the sweep, the measurement and its records."""

VERSION = "0.1.0"
