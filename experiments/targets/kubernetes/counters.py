"""The counters of nodes at both edges of a window, from the output of their readers (pure)."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import TypeAdapter

from experiments.host.procstat import CounterSample
from experiments.targets.kubernetes.shell import Answer
from experiments.validity import Cause, Reason
from infra import untrusted
from infra.commands import how_ended
from infra.errors import PrerequisiteMissing


def read_edges(
    answers: Mapping[str, Answer | None],
) -> tuple[dict[str, tuple[CounterSample, CounterSample]], list[Reason]]:
    """The counters of each node at both edges, and reasons where there are none (pure)."""
    edges, reasons = {}, []
    for node, answer in answers.items():
        try:
            if answer is None:
                raise PrerequisiteMissing(f"no answer of node {node} in time")
            if answer.status != 0:
                raise PrerequisiteMissing(f"reading /proc of node {node}: {_last(answer)}")
            edges[node] = window_of(answer.out, node)
        except PrerequisiteMissing as error:
            reasons.append(Reason(Cause.WINDOW, str(error)))
    return edges, reasons


def _last(answer: Answer) -> str:
    return answer.err.strip()[-300:] or how_ended(answer.status)


_WINDOW: TypeAdapter[tuple[CounterSample, CounterSample]] = TypeAdapter(
    tuple[CounterSample, CounterSample]
)


def window_of(printed: str, node: str) -> tuple[CounterSample, CounterSample]:
    """Both edges of a window, from the output of `look` (pure). Raises `PrerequisiteMissing`."""
    with untrusted.reading(f"what look prints of /proc of node {node}"):
        return _WINDOW.validate_python(untrusted.parsed(printed[printed.index("[") :]))
