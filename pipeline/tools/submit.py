"""`alexnet submit`: runs as jobs of a Slurm cluster, by submitit.

The jobs leave finished runs in the resume folder, where `dvc repro` finds them.
"""

from typing import Any

from submitit import AutoExecutor, Job
from submitit.helpers import Checkpointable, TorchDistributedEnvironment

from pipeline import paths
from pipeline.errors import UserError
from pipeline.params import Params
from pipeline.tracking import sync
from pipeline.training import distributed
from pipeline.training.run import finished, train
from pipeline.training.runs import announce, variant_runs

DAY_MINUTES = 24 * 60  # where no other limit is asked for; submitit's own is five minutes
REQUEUES = 1000  # at a job's time limit: as often as a run needs


class Training(Checkpointable):
    """The work of a job. A job that is stopped and started again goes on from the last epoch's checkpoint."""

    def __call__(self, params: Params, variant: str) -> None:
        if params.hardware.processes > 1:
            TorchDistributedEnvironment().export(set_cuda_visible_devices=False)
        with sync.live():
            for run in variant_runs(params, variant):
                if distributed.is_global_zero():
                    announce(run)
                train(run)


def submit(params: Params, cluster: str, options: dict[str, Any]) -> list[Job[None]]:
    """Submit one job of an array for each run that is not finished. `cluster`, `options`: submitit's."""
    pending = [
        (params.with_seeds([run.seed]), variant)
        for variant in params.variants
        for run in variant_runs(params, variant)
        if not finished(run)
    ]
    if not pending:
        return []
    executor = AutoExecutor(paths.state() / "jobs", cluster, slurm_max_num_timeout=REQUEUES)
    executor.update_parameters(
        name=f"alexnet-{params.scale}", nodes=params.hardware.nodes, tasks_per_node=params.hardware.devices, **options
    )
    with executor.batch():
        return [executor.submit(Training(), *run) for run in pending]


def submit_to_slurm(params: Params, options: list[str]) -> None:
    """Submit all unfinished runs. `options`: of sbatch, as name=value. Raises UserError where there is no cluster."""
    hardware = params.hardware
    if hardware.threads is None:
        raise UserError("hardware.threads = null: accepted here is a number, which each process asks the cluster for")
    asked: dict[str, Any] = {"slurm_time": DAY_MINUTES, "slurm_cpus_per_task": hardware.threads}
    if hardware.accelerator == "gpu":
        asked["slurm_gpus_per_node"] = hardware.devices
    for option in options:
        name, _, value = option.partition("=")
        asked[f"slurm_{name}"] = int(value) if value.isdecimal() else value
    try:
        jobs = submit(params, "slurm", asked)
    except (RuntimeError, NameError) as error:  # no srun here; an option that submitit does not know
        raise UserError(f"the jobs cannot be submitted ({error}); submit where sbatch is, with its options") from error
    runs = sum(len(params.seeds_of(variant)) for variant in params.variants)
    print(f"{len(jobs)} of {runs} runs submitted, the others are finished. They go on in {paths.state()}")
    if jobs:
        print(f"Slurm job {jobs[0].job_id.partition('_')[0]}; when it has ended, `dvc repro` trains nothing")
