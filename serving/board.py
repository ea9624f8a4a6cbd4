"""The board: what every replica has to tell of itself, asked for through any one of them.

A scrape of a server reaches one of its replicas, by chance, and has to tell of all. The one that is
asked calls the others through Serve, which knows who is alive: nothing is kept anywhere, so what is
told is fresh, and a replica that has ended is told of no more. (A process that all replicas report
to would cost its memory, be late, and take its numbers along when it dies.)
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol

PATIENCE_S: Final = 1.0
"""How long all the others together may take to answer."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One replica at one moment."""

    replica: str
    at: float
    """When, in seconds since 1970."""
    metrics: str
    """Its metrics, in Prometheus' text format; empty where they were not wanted."""
    drift: dict[str, Any] | None = None
    """What it has counted of its answers, as JSON; None where there is nothing to hold it to."""


Own = Callable[[bool], Snapshot]
"""What a replica tells of itself; whether its metrics are wanted, which take some milliseconds."""


class Board(Protocol):
    """Every replica's snapshot."""

    async def all(self, *, metrics: bool = True) -> list[Snapshot]:
        """Of each replica that lives and answers, ordered by `replica`; the own one among them.

        Without `metrics` that part of them is empty.
        """
        ...


class Alone:
    """The board of a server that is one process."""

    def __init__(self, own: Own) -> None:
        self._own = own

    async def all(self, *, metrics: bool = True) -> list[Snapshot]:
        """The only one."""
        return [self._own(metrics)]


class Replicas:
    """The board of a Serve deployment, in one of its replicas."""

    def __init__(self, own: Own, *, deployment: str, app: str, method: str = "snapshot") -> None:
        """`method` of the deployment's class is `own` of the replica that it is called in."""
        self._own = own
        self._place = deployment, app
        self._method = method
        self._handle: Any = None

    async def all(self, *, metrics: bool = True) -> list[Snapshot]:
        """As `Board`; one that does not answer within `PATIENCE_S` is left out."""
        found = {each.replica: each for each in await self._answers(metrics)}
        own = self._own(metrics)
        found[own.replica] = own
        return [found[replica] for replica in sorted(found)]

    async def _answers(self, metrics: bool) -> list[Snapshot]:
        calls: list[asyncio.Future[Snapshot]] = []
        try:
            async with asyncio.timeout(PATIENCE_S):
                asked = await self._calls(metrics)
                calls += [asyncio.ensure_future(call.get_async()) for call in asked]
                await asyncio.wait(calls)
        except TimeoutError:
            log.warning("not all replicas told of themselves within %g s", PATIENCE_S)
        except Exception as error:  # Serve's controller may be away; the own snapshot is there
            log.warning("no other replica can be asked: %s", type(error).__name__)
        finally:
            for call in calls:
                call.cancel()
        # A replica that has just died is no fault.
        return [call.result() for call in calls if call.done() and not _failed(call)]

    async def _calls(self, metrics: bool) -> list[Any]:
        from ray import serve

        if self._handle is None:
            # Aside: it asks Ray's head, which may be away, and waits for it.
            get = partial(serve.get_deployment_handle, *self._place, _check_exists=False)
            self._handle = await asyncio.to_thread(get)
        # `results_async` gives all of them or none, within whatever time.
        asked = self._handle.broadcast(self._method, metrics)
        calls: list[Any] = await asked._fetch_replica_results_async()
        return calls


def _failed(call: "asyncio.Future[Snapshot]") -> bool:
    return call.cancelled() or call.exception() is not None
