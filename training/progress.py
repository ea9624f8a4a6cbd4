"""How a run's workers tell its driver where they are: a small Ray actor between them."""

import time
from collections.abc import Callable
from threading import Event, Thread
from typing import Any, Self

import ray
from ray.actor import ActorHandle
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

Message = dict[str, Any]
OnMessage = Callable[[Message], None]


@ray.remote(num_cpus=0)
class Board:
    """Holds messages until the driver takes them."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    def post(self, message: Message) -> None:
        """Add a message."""
        self.messages.append(message)

    def take(self) -> list[Message]:
        """All messages since the last call."""
        taken, self.messages = self.messages, []
        return taken


class Poster:
    """A worker's end: every result goes out, of the steps between only two a second."""

    def __init__(self, board: ActorHandle[Any] | None, marks: Message | None = None) -> None:
        self.board, self.marks = board, marks or {}
        self.last = 0.0

    def step(self, **facts: Any) -> None:
        """Where training is, unless that was said within half a second."""
        now = time.monotonic()
        if now - self.last >= 0.5:
            self.last = now
            self.result(kind="step", **facts)

    def result(self, **facts: Any) -> None:
        """A message that must arrive."""
        if self.board is not None:
            self.board.post.remote(facts | self.marks)


def _board() -> ActorHandle[Any]:
    """Beside the driver: on another node it would be lost with that node, and all news with it."""
    here = ray.get_runtime_context().get_node_id()
    beside = NodeAffinitySchedulingStrategy(here, soft=False)
    board: Any = Board
    made: ActorHandle[Any] = board.options(scheduling_strategy=beside).remote()
    return made


class Listener:
    """The driver's end: hands each message on, in a thread, until the block ends."""

    def __init__(self, on_message: OnMessage | None) -> None:
        self.on_message = on_message
        self.board = _board() if on_message is not None else None
        self.over = Event()
        self.thread = Thread(target=self._listen, daemon=True)

    def __enter__(self) -> Self:
        if self.board is not None:
            self.thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.over.set()
        if self.board is not None:
            self.thread.join()
            ray.kill(self.board)

    def _listen(self) -> None:
        assert self.board is not None
        assert self.on_message is not None
        while True:
            last = self.over.wait(0.3)
            messages: list[Message] = ray.get(self.board.take.remote())
            for message in messages:
                self.on_message(message)
            if last:
                return
