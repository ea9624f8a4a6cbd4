"""Ray's worker processes forked from one that has imported what they need.

    ray.init(runtime_env={"py_executable": executable()})

Ray starts each worker as a new Python. A run has ten of them, from the training workers to Ray's
own bookkeepers, and each spends 1.5 to 9 seconds of a core on imports. With this in the place of
Python, Ray's command line goes to a server on the node, which forks a process that runs it.

Each raylet has one server with PyTorch and the like; each job has another, forked from the first,
with Ray: Ray's core reads its settings, the job among them, once, when it is loaded. None holds
code of mailray's, since jobs bring their own. All end with their raylet.

Whatever goes wrong, the worker is started as Ray would have done it. So it is on nodes with a GPU:
a process that has looked at CUDA must not be forked, and nobody has measured yet that none has.
"""

import fcntl
import gc
import hashlib
import importlib
import json
import math
import os
import runpy
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

LIBRARIES = (
    "numpy", "pandas", "pyarrow.parquet", "sklearn.metrics", "tensorboardX", "tokenizers", "torch",
    "torch._dynamo", "torch.distributed.tensor", "torch.nn.parallel", "transformers.modeling_utils",
    "transformers.models.bert.modeling_bert", "uvloop",
)  # fmt: skip
"""What a worker might import; one that is not there is passed over."""
RAY = (
    "ray._private.external_storage", "ray._private.node", "ray.data", "ray.train.torch",
    "ray.train.v2.torch.torch_trainer",
)  # fmt: skip
GPU = (Path("/dev/nvidiactl"), Path("/dev/dxg"))
LOOK_SECONDS = 2.0
"""How often a server looks whether its raylet lives."""
IDLE_SECONDS = 300.0
"""After that a job's server ends; the next worker starts another."""
ASK_SECONDS = 60.0
"""For one request, imports included; Ray waits as long for a worker."""


def executable() -> str:
    """The command that Ray shall call for Python, for a runtime env's `py_executable`.

    With MAILRAY_FORK=0 it is Python.
    """
    if os.environ.get("MAILRAY_FORK") == "0":
        return shlex.quote(sys.executable)
    # -P: what lies in a worker's directory must not be taken for this package.
    return f"{shlex.quote(sys.executable)} -P -m cluster.forkserver"


def start(command: list[str]) -> None:
    """Start a Python script with its arguments as a fork, or else in this process."""
    raylet = os.environ.get("RAY_RAYLET_PID", "")
    with suppress(OSError, ValueError):
        if raylet.isdigit() and not any(device.exists() for device in GPU):
            folder = _folder()
            settings = sorted(item for item in os.environ.items() if item[0].startswith("RAY_"))
            first = Server(folder / f"{raylet}-{_digest()}", LIBRARIES, None)
            _ask(Server(folder / f"{raylet}-{_digest(settings)}", RAY, first), command)
            return
    os.execv(sys.executable, [sys.executable, *command])


class Server(NamedTuple):
    """A server: where it listens, what it has imported, and which it is forked from."""

    place: Path
    modules: tuple[str, ...]
    parent: "Server | None"


def _folder() -> Path:
    """Where servers listen: a folder of this user alone."""
    folder = Path(tempfile.gettempdir()) / f"mailray-fork-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    facts = folder.lstat()
    if facts.st_uid != os.getuid() or facts.st_mode & 0o77:
        raise PermissionError(f"{folder} is open to others")
    return folder


def _digest(*settings: object) -> str:
    made = [Path(__file__).read_text("utf-8"), sys.prefix, *settings]
    return hashlib.sha256(repr(made).encode()).hexdigest()[:12]


def _connected(server: Server) -> socket.socket:
    """A connection to a server, which the first that asks starts."""
    with suppress(OSError):
        return _connect(server.place)
    with server.place.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with suppress(OSError):
            return _connect(server.place)
        _start(server)
        return _connect(server.place)


def _start(server: Server) -> None:
    """Start a server, and wait until it listens: until its output ends."""
    ready, said = os.pipe()
    idle = math.inf if server.parent is None else IDLE_SECONDS
    command = [__file__, "--serve", str(server.place), str(idle), *server.modules]
    try:
        if server.parent is None:
            # A session of its own: Ray ends the process group of a worker with the worker.
            subprocess.Popen(
                [sys.executable, "-P", *command], stdin=subprocess.DEVNULL, stdout=said,
                stderr=subprocess.DEVNULL, start_new_session=True, cwd="/",
            )  # fmt: skip
        else:
            with Path(os.devnull).open("r+") as null:
                _ask(server.parent, command, [null.fileno(), said, null.fileno()])
    finally:
        os.close(said)
    with os.fdopen(ready, "rb") as answer:
        answer.read()


def _connect(place: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.settimeout(ASK_SECONDS)
        connection.connect(str(place))
    except OSError:
        connection.close()
        raise
    return connection


def _ask(server: Server, command: list[str], streams: Sequence[int] = (0, 1, 2)) -> None:
    """Hand over what makes a process: its streams, environment, directory, path and command."""
    path = [str(Path(command[0]).parent), *sys.path]  # as Python has it for a script
    wanted = {"command": command, "env": dict(os.environ), "cwd": str(Path.cwd()), "path": path}
    with _connected(server) as connection:
        socket.send_fds(connection, [b"1"], list(streams))
        connection.sendall(json.dumps(wanted).encode())
        connection.shutdown(socket.SHUT_WR)
        if not connection.recv(1):
            raise ConnectionError("the server did not fork")


def serve(place: Path, idle: float, modules: list[str]) -> dict[str, Any] | None:
    """Import, then fork for each that asks, as long as the raylet lives and somebody asks.

    Returns what was asked for in each fork, and None in the server, at its end.
    """
    # How many GPUs there are is then asked of NVML, and CUDA stays untouched.
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"
    for name in modules:
        with suppress(ImportError):
            importlib.import_module(name)
    gc.collect()
    gc.freeze()  # else the first collection in each fork would copy all pages
    raylet, asked = int(os.environ["RAY_RAYLET_PID"]), time.monotonic()
    place.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place))
        listener.listen(64)
        listener.settimeout(LOOK_SECONDS)
        with Path(os.devnull).open("w") as null:
            os.dup2(null.fileno(), 1)  # ready
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # forks are nobody's to wait for
        while _alive(raylet) and time.monotonic() - asked < idle:
            with suppress(OSError, ValueError):
                connection, _ = listener.accept()
                if wanted := _forked(connection):
                    return wanted
                asked = time.monotonic()
    place.unlink(missing_ok=True)
    place.with_suffix(".lock").unlink(missing_ok=True)
    return None


def _alive(pid: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


def _forked(connection: socket.socket) -> dict[str, Any] | None:
    """One request, read and answered: in the fork what was asked for, in the server nothing."""
    with connection:
        connection.settimeout(ASK_SECONDS)
        _, streams, _, _ = socket.recv_fds(connection, 1, 3)
        try:
            with connection.makefile("rb") as body:
                wanted: dict[str, Any] = json.load(body)
            if os.fork():
                return None
            os.setpgid(0, 0)  # Ray kills the group of a worker that ends
            for at, stream in enumerate(streams):
                os.dup2(stream, at)
            connection.sendall(b"1")
            return wanted
        finally:
            for stream in streams:
                os.close(stream)


def run(wanted: dict[str, Any]) -> None:
    """Run a script in this fork as a new Python would."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.environ.clear()
    os.environ.update(wanted["env"])
    os.chdir(wanted["cwd"])
    sys.argv[:], sys.path[:] = wanted["command"], wanted["path"]
    importlib.invalidate_caches()
    _unlike_its_siblings()
    runpy.run_path(sys.argv[0], run_name="__main__")


def _unlike_its_siblings() -> None:
    """Chance and threads, which the server has settled for itself."""
    seeds: dict[str, Callable[[Any], Any]] = {
        "numpy": lambda numpy: numpy.random.seed(),
        "torch": lambda torch: torch.seed(),
    }
    for name, seed in seeds.items():
        if name in sys.modules:
            seed(sys.modules[name])
    threads = os.environ.get("OMP_NUM_THREADS", "")
    if "torch" in sys.modules and threads.isdigit():
        sys.modules["torch"].set_num_threads(int(threads))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        if asked := serve(Path(sys.argv[2]), float(sys.argv[3]), sys.argv[4:]):
            run(asked)
    else:
        start(sys.argv[1:])
