"""An event loop in a thread of its own, for those who have none. All synchronous clients of a process share it."""

from __future__ import annotations

import asyncio
import atexit
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future, TimeoutError  # noqa: A004
from contextlib import suppress
from functools import cache
from typing import Any, TypeVar

from typing_extensions import ParamSpec

P = ParamSpec("P")
T = TypeVar("T")

# How long what was interrupted may take to let go of what it has.
_SETTLE_S = 5.0


class Loop:
    """Runs coroutines for other threads, until the interpreter ends.

    It is not closed before: gRPC may hold news for a loop a little longer than its calls last, and stumbles over one
    that is closed, at the cost of all others.
    """

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="undertone", daemon=True)
        self._thread.start()
        # An interpreter that ends while gRPC runs in a daemon's thread would crash.
        atexit.register(self._stop)

    @property
    def is_closed(self) -> bool:
        """Whether the interpreter ends."""
        return self._loop.is_closed()

    def run(self, function: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """What the coroutine of `function(*args, **kwargs)` returns or raises.

        It is made in the loop's thread, where no signal comes in between. Interrupted, as by Ctrl-C, it is cancelled.
        """
        result: Future[T] = Future()
        tasks: list[asyncio.Task[None]] = []
        begun = False

        async def call() -> None:
            nonlocal begun
            begun = True
            try:
                result.set_result(await function(*args, **kwargs))
            except asyncio.CancelledError:
                result.set_exception(RuntimeError("the client was closed meanwhile"))
            except BaseException as error:
                result.set_exception(error)

        def start() -> None:
            tasks.append(self._loop.create_task(call()))

        def cancel() -> None:
            for task in tasks:
                task.cancel()
            if not begun:
                # Interrupted before it could: nothing else will say so.
                result.cancel()

        try:
            self._loop.call_soon_threadsafe(start)
            return result.result()
        except BaseException:
            if not result.done():
                self._loop.call_soon_threadsafe(cancel)
                # What comes next must find nothing half done. A second Ctrl-C waits no longer.
                with suppress(CancelledError, TimeoutError):
                    result.exception(_SETTLE_S)
            raise

    def _stop(self) -> None:
        async def cancel_all() -> None:
            tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.get_running_loop().shutdown_asyncgens()
            await asyncio.get_running_loop().shutdown_default_executor()

        self.run(cancel_all)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@cache
def shared() -> Loop:
    """The process's loop."""
    return Loop()
