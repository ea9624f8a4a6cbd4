"""Ray's worker processes forked from one that has imported what they need.

    ray.init(runtime_env={"py_executable": executable()})

Ray starts each worker as a new Python. A run has ten of them, from the training workers to Ray's
own bookkeepers, and each spends 1.5 to 9 seconds of a core on imports. With this in the place of
Python, Ray's command line goes to a server on the node, which forks a process that runs it.

The server, one for each raylet, has PyTorch and the like, but not Ray, whose core must not be
forked: it settles on a job when it is loaded, and forks of one draw the same random numbers, so
that actors of two workers get one ID. Nor has it code of mailray's, since jobs bring their own.

Whatever goes wrong, the worker is started as Ray would have done it: so too where an import has
looked at CUDA, of which a fork can make no use. Of LIBRARIES none does: seen with PyTorch 2.11 on
an H200, where forks of the server trained.
"""

import fcntl
import gc
import hashlib
import importlib
import json
import os
import runpy
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

LIBRARIES = (
    "numpy", "pandas", "pyarrow.parquet", "sklearn.metrics", "tensorboardX", "tokenizers", "torch",
    "torch._dynamo", "torch.distributed.tensor", "torch.nn.parallel", "transformers.modeling_utils",
    "transformers.models.bert.modeling_bert", "uvloop",
)  # fmt: skip
"""What a worker might import; one that is not there is passed over."""
LOOK_SECONDS = 2.0
"""How often a server looks whether its raylet lives."""
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
        if raylet.isdigit():
            _ask(_socket(raylet), command)
            return
    os.execv(sys.executable, [sys.executable, *command])


def _socket(raylet: str) -> Path:
    """Where the server of a raylet listens: in a folder of this user alone."""
    folder = Path(tempfile.gettempdir()) / f"mailray-fork-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    facts = folder.lstat()
    if facts.st_uid != os.getuid() or facts.st_mode & 0o77:
        raise PermissionError(f"{folder} is open to others")
    made = Path(__file__).read_bytes() + sys.prefix.encode()
    return folder / f"{raylet}-{hashlib.sha256(made).hexdigest()[:12]}"


def _connected(place: Path) -> socket.socket:
    """A connection to the server, which the first that asks starts."""
    with suppress(OSError):
        return _connect(place)
    with place.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with suppress(OSError):
            return _connect(place)
        # A session of its own: Ray ends the process group of a worker with the worker.
        server = subprocess.Popen(
            [sys.executable, "-P", __file__, "--serve", str(place)], stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True, cwd="/",
        )  # fmt: skip
        assert server.stdout is not None
        server.stdout.read()  # until it listens, or has ended
        return _connect(place)


def _connect(place: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.settimeout(ASK_SECONDS)
        connection.connect(str(place))
    except OSError:
        connection.close()
        raise
    return connection


def _ask(server: Path, command: list[str]) -> None:
    """Hand over what makes a process: its streams, environment, directory, path and command."""
    path = [str(Path(command[0]).parent), *sys.path]  # as Python has it for a script
    wanted = {"command": command, "env": dict(os.environ), "cwd": str(Path.cwd()), "path": path}
    with _connected(server) as connection:
        socket.send_fds(connection, [b"1"], [0, 1, 2])
        connection.sendall(json.dumps(wanted).encode())
        connection.shutdown(socket.SHUT_WR)
        if not connection.recv(1):
            raise ConnectionError("the server did not fork")


def serve(place: Path) -> dict[str, Any] | None:
    """Import, then fork for each that asks, as long as the raylet lives.

    Returns what was asked for in each fork, and None in the server, at its end.
    """
    # How many GPUs there are is then asked of NVML, and CUDA stays untouched.
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"
    for name in LIBRARIES:
        with suppress(ImportError):
            importlib.import_module(name)
    gc.collect()
    gc.freeze()  # else the first collection in each fork would copy all pages
    raylet = int(os.environ["RAY_RAYLET_PID"])
    place.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place))
        listener.listen(64)
        listener.settimeout(LOOK_SECONDS)
        with Path(os.devnull).open("w") as null:
            os.dup2(null.fileno(), 1)  # ready
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # forks are nobody's to wait for
        while _alive(raylet):
            with suppress(OSError, ValueError):
                connection, _ = listener.accept()
                if wanted := _forked(connection):
                    return wanted
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
            if "torch" in sys.modules and sys.modules["torch"].cuda._is_in_bad_fork():
                os._exit(0)  # unanswered
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
        if asked := serve(Path(sys.argv[2])):
            run(asked)
    else:
        start(sys.argv[1:])
