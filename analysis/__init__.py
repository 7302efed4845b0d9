"""Analysis: run records -> tables -> statistics -> plots -> report.

Reads records only; never imports `infra`, `experiments` or `pulumi`.
"""
