"""How many trials at once a cluster has room for, so that none waits for what another holds."""

import ray
from ray import PlacementGroupID
from ray.util.placement_group import (
    PlacementGroup,
    placement_group_table,
    remove_placement_group,
)

from training.schema import ConfigError
from tuning.config import StudyConfig


def room(study: StudyConfig) -> int:
    """Trials at once on the cluster that is connected.

    Raises:
        ConfigError: not even one has room.
    """
    each = study.resources
    have = ray.cluster_resources()
    cpus, gpus = have.get("CPU", 0.0), have.get("GPU", 0.0)
    # The drivers of trials with several workers have a little of one CPU that no worker gets.
    free = cpus - (1 if each.workers > 1 else 0)
    fit = int(free // (each.workers * each.cpus))
    if fit < 1:
        beside = " and one for the trial itself" if each.workers > 1 else ""
        raise ConfigError(
            f"resources: a trial of {each.workers} workers with {each.cpus} CPUs each{beside} does "
            f"not fit on the cluster, which has {cpus:g}; lower resources.workers or resources.cpus"
        )
    if each.gpus:
        # By whole GPUs: a trial's share of one cannot be put together from the rest of two.
        fit = min(fit, int(gpus) * int(1 / each.gpus) // each.workers)
        if fit < 1:
            raise ConfigError(
                f"resources: a trial of {each.workers} workers with {each.gpus:g} GPUs each does "
                f"not fit on the cluster, which has {gpus:g}; lower resources.gpus"
            )
    return min(fit, study.concurrent or fit)


def clear() -> None:
    """Remove what placement groups of this job are left, and the workers in them.

    Of a trial that was stopped they stay until Ray Train's cleaner sees its controller gone:
    a minute later on a busy machine (ray 54305). Their ids end with that of the job.
    """
    job = ray.get_runtime_context().get_job_id()
    for name, facts in placement_group_table().items():
        if name.endswith(job) and facts["state"] != "REMOVED":
            remove_placement_group(PlacementGroup(PlacementGroupID(bytes.fromhex(name))))
