"""Runs a project's Pulumi program in this process, any number of times."""

from __future__ import annotations

import asyncio
import contextvars
import sys
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import chdir, contextmanager
from pathlib import Path
from typing import Any

import pulumi
import pulumi.runtime
from pulumi.runtime.settings import SETTINGS

from experiments.engines import EngineError, StackRef
from experiments.engines.embedded.deployment import Deployment
from experiments.engines.embedded.monitor import Log, Monitor
from infra.kubernetes import made_by


def run(stack: StackRef, deployment: Deployment, *, preview: bool, parallel: int) -> None:
    """Run `__main__.py` to its end; its resources go to the deployment.

    The SDK's variables are bound to a context of their own.
    """
    contextvars.copy_context().run(_run, stack, deployment, preview, parallel)


def _run(stack: StackRef, deployment: Deployment, preview: bool, parallel: int) -> None:
    root = stack.root
    settings = pulumi.runtime.Settings(
        project=stack.project,
        stack=stack.name,
        monitor=Monitor(stack, deployment),
        engine=Log(),
        parallel=parallel,
        dry_run=preview,
        organization="organization",
        root_directory=str(root),
    )
    pulumi.runtime.configure(settings)
    pulumi.runtime.set_all_config({**stack.config, made_by.ENGINE: made_by.EMBEDDED}, [])
    pulumi.runtime.settings.ROOT.set(None)

    main = root / "__main__.py"
    names: dict[str, Any] = {"__name__": "__main__", "__file__": str(main)}

    async def program() -> None:
        exec(compile(main.read_bytes(), main, "exec"), names)  # noqa: S102
        await _settled()

    with asyncio.Runner() as runner, chdir(root), _first_on_path(str(root)):
        loop = runner.get_loop()
        # a request occupies a thread while its command runs: this limits their number
        loop.set_default_executor(ThreadPoolExecutor(parallel))
        # failures are reported by the deployment
        loop.set_exception_handler(lambda _loop, _context: None)
        _keep_awake(loop)
        try:
            loop.run_until_complete(pulumi.runtime.run_in_stack(program))
        except EngineError:
            raise
        except pulumi.RunError as error:
            raise EngineError(str(error)) from error
        except SystemExit as error:
            raise EngineError(f"the program exited with {error.code!r}") from error
        except Exception as error:
            what = f"{type(error).__name__}: {error}{_place(error, root)}"
            raise EngineError(f"the program failed: {what}") from error
        finally:
            names.clear()  # the SDK keeps references to classes, and these to the names of their module


async def _settled() -> None:
    """Wait for all outputs at once: the SDK visits each of them whenever one is done."""
    while outputs := [output for output in SETTINGS.outputs if not output.done()]:
        await asyncio.wait(outputs)


def _keep_awake(loop: asyncio.AbstractEventLoop) -> None:
    """Wake the main thread regularly: it handles signals that other threads received."""
    loop.call_later(0.2, _keep_awake, loop)


def _place(error: Exception, root: Path) -> str:
    """The place in the project where an error was raised."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if Path(frame.filename).is_relative_to(root):
            return f" ({Path(frame.filename).relative_to(root)}:{frame.lineno})"
    return ""


@contextmanager
def _first_on_path(folder: str) -> Iterator[None]:
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)
