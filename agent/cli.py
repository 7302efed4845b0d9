"""The node agent: applies, verifies and restores a node's receive packet steering (RPS, RFS).

Input is a plan as JSON, output is one JSON document. `apply` saves the old values in a snapshot file
before its first write; `restore` restores them. Standard library only; Python 3.8, Linux 5.2.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from importlib import import_module
from typing import Any

from agent.errors import BAD_PLAN, CANNOT, FAILED, SteerError, explain, shortened
from agent.files import MAX_TEXT, opened, read_json, read_to_end
from agent.machine import Machine
from agent.plan import Plan, parse_plan
from agent.signals import Signals

BACK = ("restore", "watch", "switchback")  # verbs whose warnings also go to stderr
# Of `rollout`.
STEPS = ("status", "try", "keep", "undo", "restore", "stand")
# What the verbs import, each its own: most agents start for one verb. A session forks for each, so it has all.
_OF_VERBS = (
    "observe",
    "restore",
    "rollout",
    "show",
    "switchback",
    "transaction",
    "verify",
    "watchdog",
)


def read_plan(argument: str | None, owner: str | None) -> Plan | None:
    """The plan of --plan, else of stdin; None if there is no text."""
    try:
        if argument is None:
            piped = sys.stdin is not None and not sys.stdin.isatty()
            words = sys.stdin.buffer.read(MAX_TEXT + 1).decode() if piped else ""
        elif argument.startswith("@"):
            with opened(argument[1:], os.O_RDONLY) as file:
                words = read_to_end(file, MAX_TEXT).decode()
        else:
            words = argument
        document = read_json(words) if words.strip() else None
    except OSError as error:
        raise SteerError(f"plan: {error.filename}: {error.strerror}", BAD_PLAN) from None
    except ValueError as error:
        raise SteerError(f"plan: not JSON in UTF-8: {error}", BAD_PLAN) from None
    if owner and isinstance(document, dict) and document.setdefault("owner", owner) != owner:
        raise SteerError(f"plan: owner is {document['owner']!r}, not {owner!r}", BAD_PLAN)
    return None if document is None else parse_plan(document)


def parse_arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="steer", description=(__doc__ or "").split("\n")[0])
    planned = argparse.ArgumentParser(add_help=False)
    planned.add_argument(
        "--owner", help="name of the snapshot's owner; by default that of the plan"
    )
    planned.add_argument(
        "--plan", metavar="JSON|@FILE", help="the plan; by default it is read from stdin"
    )
    # without `prog`, argparse would load modules to find out
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB", prog=parser.prog)
    verb = verbs.add_parser("show", help="print the present steering")
    verb.add_argument(
        "--namespace",
        action="append",
        default=[],
        metavar="PATH|PATTERN",
        help="also show this network namespace; may be repeated",
    )
    verbs.add_parser("apply", parents=[planned], help="apply the plan")
    verbs.add_parser("preview", parents=[planned], help="print what apply would write")
    saved = argparse.ArgumentParser(add_help=False)
    saved.add_argument("--saved", action="store_true", help="use the plan that was applied last")
    verb = verbs.add_parser(
        "observe",
        parents=[planned, saved],
        help="print counters and settings of the devices of the plan; write nothing",
    )
    verb.add_argument("--seconds", type=float, default=20.0)
    verb = verbs.add_parser(
        "verify",
        parents=[planned, saved],
        help="compare the machine with the plan; write no steering",
    )
    verb.add_argument("--renew", action="store_true", help="renew the lease if nothing has drifted")
    verb = verbs.add_parser(
        "switchback",
        help="measure several plans in turn under live connections, then restore the present values",
        description="Print `ready`, start when a line arrives on stdin, print the measurement.",
    )
    verb.add_argument(
        "--schedule",
        metavar="JSON|@FILE",
        help="plans and windows; by default they are read from stdin",
    )
    verbs.add_parser(
        "session",
        help="answer calls of other verbs that arrive on stdin, one after another",
        description="A call is a line with the verb's words as a JSON list.",
    )
    verb = verbs.add_parser(
        "watch",
        help="stay in the foreground; restore when the lease expires or when this process ends",
    )
    verb.add_argument("--owner", required=True)
    verb = verbs.add_parser(
        "rollout", parents=[planned], help="a step of `steerlab nodes rollout` on this node"
    )
    verb.add_argument("step", choices=STEPS)
    verb.add_argument("--rollout", default="", metavar="ID")
    verb.add_argument("--who", default="root", help="for the audit log")
    verb.add_argument("--node", default=os.uname().nodename, help="for the audit log")
    verb.add_argument("--seconds", type=float, default=600.0, help="the length of a trial")
    verb.add_argument(
        "--since", default="0", metavar="N@TIME", help="print the audit log after this line"
    )
    verb.add_argument("--force", action="store_true", help="as of restore")
    verb = verbs.add_parser("restore", help="restore the values of the snapshot")
    which = verb.add_mutually_exclusive_group(required=True)
    which.add_argument("--owner")
    which.add_argument("--all", action="store_true", help="every owner of this machine")
    verb.add_argument(
        "--force", action="store_true", help="also replace values that others have written since"
    )
    return parser.parse_args(words)


def dispatch(
    options: argparse.Namespace, machine: Machine, signals: Signals
) -> tuple[dict[str, Any], list[str]]:
    """The answer of a verb, and its failures as messages."""
    if options.verb == "show":
        from agent.show import show

        return show(machine, options.namespace), []
    if options.verb == "watch":
        from agent.watchdog import stand_watch

        done = stand_watch(machine, options.owner, signals)
        return done, done["failed"]
    if options.verb == "switchback":
        from agent.starting import Driver
        from agent.switchback import switchback

        driver = Driver()
        with signals.at_once():
            schedule = driver.schedule(options.schedule)
        return switchback(machine, schedule, signals, driver), []
    if options.verb == "restore":
        from agent.restore import restore, restore_all

        force = options.force
        done = (
            restore_all(machine, force) if options.all else restore(machine, options.owner, force)
        )
        return done, done["failed"]
    if options.verb == "rollout":
        from agent import rollout

        if options.step == "stand":
            done = rollout.stand(machine, options.node, signals, complain)
            return done, done["failed"]
        with signals.at_once():
            plan = read_plan(options.plan, rollout.OWNER) if options.step == "try" else None
        done = rollout.run(machine, options, plan)
        return done, done["failed"]
    if options.verb in ("apply", "preview"):
        from agent.transaction import apply, preview

        with signals.at_once():
            plan = read_plan(options.plan, options.owner)
        if plan is None:
            raise SteerError("plan: missing: give it on stdin or with --plan", BAD_PLAN)
        return (apply if options.verb == "apply" else preview)(machine, plan), []
    with signals.at_once():
        plan = None if options.saved else read_plan(options.plan, options.owner)
    owner = plan.owner if plan else options.owner
    if owner is None:
        raise SteerError(f"{options.verb}: give a plan or --owner", BAD_PLAN)
    if options.verb == "observe":
        from agent.observe import observe

        if plan is None:
            from agent.verify import saved_plan

            snapshot = machine.store.load(owner)
            if snapshot is None:
                raise SteerError(f"observe: owner {owner} steers nothing here: give a plan", CANNOT)
            plan = saved_plan(machine, snapshot)
        with signals.at_once():
            return observe(machine, plan, options.seconds), []
    from agent.verify import verify

    done = verify(machine, owner, plan, options.renew)
    return done, [item["message"] for item in done["drift"]]


def main(
    words: Sequence[str] | None = None,
    on: Callable[..., Machine] = Machine,
    indent: int | None = 1,
) -> int:
    """The exit status of a verb; `on` opens the machine to work on, `indent` is that of its answer."""
    options = parse_arguments(words)
    if options.verb == "session":
        from agent.session import serve
        from agent.starting import Driver

        for module in _OF_VERBS:
            import_module(f"agent.{module}")
        serve(partial(main, on=on, indent=None), Driver())
        return 0
    status = 0
    wrong: list[str] = []
    said: dict[str, Any] = {}
    signals = Signals()
    allow_descriptors()
    try:
        with on(signals.check) as machine:
            said, wrong = dispatch(options, machine, signals)
        status = FAILED if wrong else 0
        notes = [*said.get("left", ()), *said.get("warnings", ())] if options.verb in BACK else []
        wrong += notes
        for note in notes:
            leave("STEERLAB_NOTES", visible(note))
    except SteerError as error:
        status, wrong = error.status, [str(error)]
        if status in (BAD_PLAN, CANNOT):
            leave("STEERLAB_REFUSALS", str(status))
    except Exception as error:
        status, wrong = FAILED, [f"{options.verb}: {unforeseen(error)}"]
    signals.ignore()
    unprinted = printed(said, indent) if said else ""
    if unprinted:
        status = status or FAILED
        wrong = [
            *wrong,
            f"{options.verb} was done, but its answer could not be printed: {unprinted}",
        ]
        if options.verb == "apply":
            wrong[-1] += f"; owner {said['owner']} steers this machine until it is restored"
    if wrong:
        complain("; ".join(wrong))
    words = "; ".join(wrong or ["done", *said.get("warnings", ())])
    notify(f"{options.verb}: {visible(words)}")
    return status


def complain(words: str) -> None:
    with suppress(Exception):  # stderr is closed
        sys.stderr.write(f"steer: {visible(words)}\n")


def unforeseen(error: Exception) -> str:
    """The message of an unexpected error."""
    known = isinstance(error, OSError)
    return explain(error) if known else f"unexpected {shortened(repr(error), 1000)}"


def printed(answer: dict[str, Any], indent: int | None) -> str:
    """Print an answer; returns the message of a failure, or an empty string."""
    try:
        sys.stdout.write(json.dumps(answer, indent=indent) + "\n")
        sys.stdout.flush()
    except Exception as error:
        with suppress(Exception):  # otherwise Python tries again at exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return explain(error)
    return ""


def visible(words: str) -> str:
    """The text with control characters escaped, so that no name can affect a terminal."""
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode() for one in words
    )


def allow_descriptors() -> None:
    """Raise the limit of open files: each namespace stays open, and a node can have hundreds."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def leave(variable: str, line: str) -> None:
    """Append a line to a file for the caller of the engine, which drops the output of a success."""
    path = os.environ.get(variable)
    if path:
        with suppress(OSError):
            descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW)
            with os.fdopen(descriptor, "w") as file:
                file.write(f"{line}\n")


def notify(words: str) -> None:
    """Set the status text of the systemd unit, if there is one; see sd_notify(3)."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    message = "STATUS=" + shortened(" ".join(words.split()), 2000)
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.settimeout(1)
        manager.sendto(message.encode(errors="replace"), address.replace("@", "\0", 1))
