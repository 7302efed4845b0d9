"""`nodes restore --selector`: nodes of a cluster after rollouts."""

from __future__ import annotations

from pathlib import Path

import typer

from experiments.cli.terminal import show_answer


def restore(
    selector: str, kubeconfig: str, context: str, audit: Path, *, force: bool, json: bool
) -> None:
    """Restore the nodes of a selector, and print which; exit 1 where one failed."""
    from experiments.rollout import words
    from experiments.rollout.audit import AuditLog
    from experiments.rollout.kubernetes import Where, restored
    from infra.kubernetes.ownership import holder

    where = Where(kubeconfig, context, selector)
    answer = restored(where, AuditLog(audit), holder("").user, force=force)
    show_answer(answer, words.restored_text, json=json)
    if answer["failed"]:
        raise typer.Exit(1)
