"""Gauges: CPU, memory and GPUs of the machine that rank 0 trains on, read by a thread beside it.

Their names are those that MLflow's own monitor uses, so that its pages show them as system metrics.
"""

from collections.abc import Callable
from threading import Event, Thread
from typing import Any, Final, Self

import psutil

SECONDS: Final = 10.0
"""Between two readings."""


class Gauges:
    """Reads every ten seconds, and once at the end of the block; `tell` gets the readings."""

    def __init__(self, tell: Callable[[dict[str, float]], None], seconds: float = SECONDS) -> None:
        self.tell, self.seconds = tell, seconds
        self.over = Event()
        self.thread = Thread(target=self._watch, daemon=True, name="gauges")

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.over.set()
        self.thread.join()

    def _watch(self) -> None:
        psutil.cpu_percent()  # what it says next is of the time since
        last = False
        while not last:
            last = self.over.wait(self.seconds)
            self.tell(reading())


def reading() -> dict[str, float]:
    """Utilization in percent, memory in MB (10^6) and percent, power in watts; of each GPU too."""
    memory = psutil.virtual_memory()
    found = {
        "system/cpu_utilization_percentage": psutil.cpu_percent(),
        "system/system_memory_usage_megabytes": memory.used / 1e6,
        "system/system_memory_usage_percentage": memory.used / memory.total * 100,
    }
    for number, gpu in enumerate(_gpus()):
        found |= {f"system/gpu_{number}_{key}": value for key, value in _of_gpu(gpu).items()}
    return found


def gpu_names() -> list[str]:
    """Of the GPUs of this machine; nothing is started on them."""
    import pynvml

    try:
        return [str(pynvml.nvmlDeviceGetName(gpu)) for gpu in _gpus()]
    except pynvml.NVMLError:  # a GPU that is lost must not stop a run
        return []


def _gpus() -> list[Any]:
    import pynvml

    try:
        pynvml.nvmlInit()  # counts how often; the driver is loaded once
        return [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError:  # no driver, no GPU
        return []


def _of_gpu(gpu: Any) -> dict[str, float]:
    import pynvml

    def memory() -> dict[str, float]:
        told = pynvml.nvmlDeviceGetMemoryInfo(gpu)
        return {"memory_usage_megabytes": told.used / 1e6,
                "memory_usage_percentage": told.used / told.total * 100}  # fmt: skip

    def work() -> dict[str, float]:
        return {"utilization_percentage": pynvml.nvmlDeviceGetUtilizationRates(gpu).gpu}

    def power() -> dict[str, float]:
        return {"power_usage_watts": pynvml.nvmlDeviceGetPowerUsage(gpu) / 1000}

    found: dict[str, float] = {}
    for gauge in (memory, work, power):
        try:
            found |= gauge()
        except pynvml.NVMLError:  # a gauge that this GPU has not, as a slice of one
            continue
    return found
