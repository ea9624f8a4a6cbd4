"""`mailray jobs list | status | logs | stop`: of a Ray cluster's job server, or of Kubernetes."""

from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Table

from cluster import jobs as of_ray
from cluster.commands.frame import Json, command
from cluster.commands.remote import Context, JobAddress, Namespace, OnKubernetes, end
from cluster.jobs import JobOutcome, JobRow

app = typer.Typer(help="The jobs of a cluster: list, status, logs, stop.", no_args_is_help=True)

JobId = Annotated[str, typer.Argument(help="As `mailray jobs list` shows it.", metavar="JOB")]


@app.command("list")
def list_jobs(
    address: JobAddress = None,
    kubernetes: OnKubernetes = False,
    namespace: Namespace = None,
    context: Context = None,
    json_output: Json = False,
) -> None:
    """All jobs that are remembered, the newest first.

    Example: mailray jobs list --kubernetes --namespace mail
    """
    with command("jobs", json_output=json_output) as console:
        if kubernetes:
            from cluster import rayjobs

            rows = [rayjobs.row(job) for job in rayjobs.connect(namespace, context).jobs()]
        else:
            rows = of_ray.listing(address)
        table = Table("job", "status", "submitted", "command", box=None, pad_edge=False)
        for row in rows:
            table.add_row(row.job_id, row.status, row.submitted, row.command)
        console.result(table if rows else "no jobs", {"jobs": [asdict(row) for row in rows]})


@app.command()
def status(
    job_id: JobId,
    address: JobAddress = None,
    kubernetes: OnKubernetes = False,
    namespace: Namespace = None,
    context: Context = None,
    json_output: Json = False,
) -> None:
    """How a job stands. Exit code 1 where there is no such job.

    Example: mailray jobs status raysubmit_kQ3zVw --address http://head:8265
    """
    with command("jobs", json_output=json_output) as console:
        if kubernetes:
            from cluster import rayjobs

            row = rayjobs.row(rayjobs.connect(namespace, context).job(job_id))
        else:
            row = of_ray.status(address, job_id)
        console.result(_told(row), asdict(row))


@app.command()
def logs(
    job_id: JobId,
    address: JobAddress = None,
    follow: Annotated[bool, typer.Option("--follow", help="Until the job is over.")] = False,
    kubernetes: OnKubernetes = False,
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """A job's log; with --follow until it is over, and then with its exit code.

    Example: mailray jobs logs --follow raysubmit_kQ3zVw
    """
    with command("jobs", json_output=False) as console:

        def tell(line: str) -> None:
            console.result(line, {})

        if kubernetes:
            from cluster import rayjobs
            from cluster.following import Following, log_of

            kube = rayjobs.connect(namespace, context)
            if follow:
                outcome = Following(kube, job_id, tell, lambda word: None).run()
            else:
                log_of(kube, kube.job(job_id), tell)
                outcome = JobOutcome(job_id, "", 0, "")
        else:
            outcome = of_ray.logs(address, job_id, tell, follow=follow)
        if outcome.exit_code:
            end(console, outcome)


@app.command()
def stop(
    job_id: JobId,
    address: JobAddress = None,
    kubernetes: OnKubernetes = False,
    namespace: Namespace = None,
    context: Context = None,
    json_output: Json = False,
) -> None:
    """Stop a job; on Kubernetes its RayJob is deleted with its Ray cluster. Checkpoints stay.

    Example: mailray jobs stop raysubmit_kQ3zVw
    """
    with command("jobs", json_output=json_output) as console:
        if kubernetes:
            from cluster import rayjobs

            kube = rayjobs.connect(namespace, context)
            row = rayjobs.row(kube.job(job_id))
            kube.delete(job_id)
            said = f"job {job_id} is deleted, it was {row.status}"
        elif of_ray.stop(address, job_id):
            said = f"job {job_id} is told to stop"
        else:
            said = f"job {job_id} was over already: {of_ray.status(address, job_id).status}"
        console.result(said, {"job_id": job_id, "message": said})


def _told(row: JobRow) -> str:
    lines = (
        f"{row.job_id}  {row.status}", f"submitted  {row.submitted}", f"command  {row.command}",
        row.message,
    )  # fmt: skip
    return "\n".join(filter(None, lines))
