"""Sweeps and single runs: matrix, plan, measurement, records."""
