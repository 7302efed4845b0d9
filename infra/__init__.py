"""What is declared: `__main__.py` calls `deploy`, which reads the state and declares its target."""

from __future__ import annotations

from pathlib import Path


def deploy() -> None:
    """Declare the state of the current stack. Bad input ends the program before any resource."""
    import pulumi

    from infra import config
    from infra.errors import Refusal, leave

    if not Path("agent/__main__.py").is_file():
        raise pulumi.RunError(f"run pulumi from the project's root, not from {Path.cwd()}")
    try:
        state = config.from_pulumi()
        if state.target == "lab":
            from infra import lab

            lab.declare(state)
        else:
            from infra.kubernetes import cluster

            cluster.declare(state)
    except Refusal as refusal:
        leave(refusal.exit_code)
        raise pulumi.RunError(str(refusal)) from None
