"""Submit a job to SLURM: a task on each machine that starts torch's elastic agent.

Before its time limit the job is sent SIGUSR2. submitit's handler on the first machine then calls
`ClusterJob.checkpoint`, which has all workers save and leave, and requeues the job under the same
number; SIGTERM (``scancel``) saves and ends it.
"""

from __future__ import annotations

import shlex
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adios_tme.config.launch import minutes_of
from adios_tme.distributed.stop import STOPPING
from adios_tme.errors import ConfigError, LaunchError, TrainingStoppedError
from adios_tme.launch.jobs import Job
from adios_tme.launch.local import Launch, processes_on_this_node

if TYPE_CHECKING:
    import submitit

#: Jobs of a run that may be cut off by the time limit, one after the other.
MAX_TIMEOUTS = 10_000
#: Left of the time between the signal and the limit for the requeueing itself.
REQUEUE_SECONDS = 5
#: How long the other machines wait for the first one to requeue the job.
PATIENCE_SECONDS = 600
_FIRST_PORT, _NUM_PORTS = 20_000, 10_000


class ClusterJob:
    """What runs on each machine; submitit pickles it.

    Args:
        job: What all of them do together.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        self._launch: Launch | None = None

    def __call__(self) -> str:
        """Do this machine's part, and return what the job returns.

        Raises:
            AdiosError: What ended it before.
        """
        import submitit

        place = submitit.JobEnvironment()
        port = _FIRST_PORT + int(place.raw_job_id) % _NUM_PORTS
        asked = self.job.launch
        most = asked.nnodes.rpartition(":")[2]
        launch = asked.model_copy(
            update={
                "nnodes": asked.nnodes if int(most) > 1 else "1:1",
                "rdzv_endpoint": f"{place.hostnames[0]}:{port}",
            }
        )
        job = self.job.launched_as(launch)
        is_first = place.global_rank == 0
        self._launch = Launch(job, processes_on_this_node(job), {"is_host": is_first})
        try:
            answered_here = tuple(number for number in STOPPING if number != _requeues_at())
            result = str(self._launch.run(answered_here))
        except TrainingStoppedError as error:
            if error.signal_number == _requeues_at() and not is_first:
                # Leaving first could end the first machine's task before it has requeued the job.
                time.sleep(PATIENCE_SECONDS)
            raise
        # The work is done: a signal while this process leaves would make the job a failed one.
        signal.signal(_requeues_at(), signal.SIG_IGN)
        return result

    def checkpoint(self) -> submitit.helpers.DelayedSubmission:
        """Have the workers save and leave; called by submitit before it requeues the job.

        Raises:
            LaunchError: If they did not in time, so that the job ends with its last checkpoint.
        """
        import submitit

        if self._launch is not None:
            self._launch.ask(_requeues_at())
            patience = self.job.cluster.signal_seconds - REQUEUE_SECONDS
            if not self._launch.wait_until_saved(patience):
                sys.stderr.write(
                    f"The workers have not saved within {patience} s; requeueing all the same, to "
                    f"go on from what is saved. Raise --signal-seconds.\n"
                )
        return submitit.helpers.DelayedSubmission(ClusterJob(self.job))


def submit(job: Job) -> str:
    """Submit a job, or only show the script.

    Returns:
        What to tell the user: the script, or the job's number and where its output goes.

    Raises:
        ConfigError: If submitit is missing.
        LaunchError: If SLURM does not take the job.
    """
    try:
        import submitit
    except ModuleNotFoundError as error:
        raise ConfigError(
            "cluster: slurm=True needs submitit. Install it with pip install 'adios-tme[slurm]'."
        ) from error
    folder = job.output_dir.resolve() / "slurm"
    if job.cluster.dry_run:
        return _script(_parameters(job), folder)
    executor = _executor(_parameters(job), folder)
    try:
        submitted = executor.submit(ClusterJob(job.with_whole_paths()))
    except (submitit.core.utils.FailedJobError, FileNotFoundError, RuntimeError) as error:
        raise LaunchError(
            f"{folder}: SLURM did not take the job ({' '.join(str(error).split())}). "
            f"Check --partition, --account and --time with sinfo, and see --dry-run."
        ) from error
    return (
        f"Submitted job {submitted.job_id}. Its output: {submitted.paths.stdout}\n"
        f"Stop it with scancel {submitted.job_id}: it saves and ends. "
        f"At its time limit it saves, requeues and goes on by itself."
    )


def _requeues_at() -> signal.Signals:
    """The signal that submitit listens to."""
    import submitit

    number: signal.Signals = submitit.JobEnvironment._usr_sig()
    return number


def _executor(parameters: dict[str, Any], folder: Path) -> Any:
    import submitit

    executor = submitit.SlurmExecutor(folder=folder, max_num_timeout=MAX_TIMEOUTS)
    executor.update_parameters(**parameters)
    return executor


def _script(parameters: dict[str, Any], folder: Path) -> str:
    """The script as submitit would write it, without a trace on disk or a cluster at hand."""
    from submitit.slurm.slurm import _make_sbatch_string

    command = [sys.executable, "-u", "-m", "submitit.core._submit", str(folder)]
    text: str = _make_sbatch_string(command=shlex.join(command), folder=folder, **parameters)
    return text


def _parameters(job: Job) -> dict[str, Any]:
    """What is asked of SLURM, in submitit's words."""
    cluster, launch = job.cluster, job.launch
    asked = launch.nproc_per_node
    num_processes = int(asked) if asked != "auto" else cluster.gpus_per_node or 1
    num_gpus = cluster.gpus_per_node
    if num_gpus is None:
        num_gpus = 0 if job.device == "cpu" else num_processes
    parameters = {
        "job_name": "adios-tme",
        "nodes": int(launch.nnodes.rpartition(":")[2]),
        "ntasks_per_node": 1,
        "cpus_per_task": num_processes * (1 + job.num_workers),
        "gpus_per_node": num_gpus or None,
        "mem": f"{cluster.mem_gb}GB" if cluster.mem_gb else None,
        "time": minutes_of(cluster.time),
        "partition": cluster.partition,
        "account": cluster.account,
        "constraint": cluster.constraint,
        "qos": cluster.qos,
        "signal_delay_s": cluster.signal_seconds,
        "stderr_to_stdout": True,
        "additional_parameters": {"requeue": True},
    }
    return {name: value for name, value in parameters.items() if value is not None}
