"""MPI's own starters, mpirun and mpiexec: one process on each node, each with the variables of its rank."""

from bootstrap.launchers import batch
from bootstrap.launchers.row import Launcher

ROWS: tuple[Launcher, ...] = (
    Launcher(
        "openmpi",
        built_on=batch.NAMES,
        rank=("OMPI_COMM_WORLD_RANK",),
        size=("OMPI_COMM_WORLD_SIZE",),
        # Version 4: 128 random bits. The namespace is mpirun's host and process id, in version 4 hashed to 16 bits:
        # both repeat, in a container each time (orte/mca/plm/base/plm_base_jobid.c, and PRRTE's).
        run_id=("openmpi-{OMPI_MCA_orte_precondition_transports}",),
        run_name=("openmpi-{PMIX_NAMESPACE}",),
        local_rank=("OMPI_COMM_WORLD_LOCAL_RANK",),
        local_size=("OMPI_COMM_WORLD_LOCAL_SIZE",),
        rendezvous="file",
        replaced_nodes="none",
        local_hint="mpirun --map-by ppr:1:node --bind-to none ray-bootstrap ...",
        run_id_hint="mpirun -x RAY_BOOTSTRAP_RUN_ID=$(date +%s)-$$ ... ray-bootstrap ...",
        look="see the output of mpirun (with --tag-output each line has its rank) for rank {ranks}",
    ),
    Launcher(
        "mvapich",
        built_on=("hydra", *batch.NAMES),
        rank=("MV2_COMM_WORLD_RANK",),
        size=("MV2_COMM_WORLD_SIZE",),
        run_name=batch.RUN_NAMES,
        local_rank=("MV2_COMM_WORLD_LOCAL_RANK",),
        local_size=("MV2_COMM_WORLD_LOCAL_SIZE",),
        rendezvous="file",
        replaced_nodes="none",
        local_hint="mpiexec -ppn 1 ray-bootstrap ..., or mpirun_rsh with each host once",
        run_id_hint="mpiexec -genv RAY_BOOTSTRAP_RUN_ID $(date +%s)-$$ ray-bootstrap ...",
        look="see the output of mpiexec (with -prepend-rank each line has its rank) for rank {ranks}",
    ),
    # Hydra, the starter of MPICH and of Intel MPI. PMI_RANK alone may be Slurm's, Flux' or PALS's.
    Launcher(
        "hydra",
        any_of=("MPI_LOCALRANKID", "MPI_LOCALNRANKS"),
        built_on=batch.NAMES,
        rank=("PMI_RANK",),
        size=("PMI_SIZE",),
        run_id=("hydra-{I_MPI_HYDRA_UUID}",),  # Intel MPI
        run_name=batch.RUN_NAMES,
        local_rank=("MPI_LOCALRANKID",),
        local_size=("MPI_LOCALNRANKS",),
        rendezvous="file",
        replaced_nodes="none",
        local_hint="mpiexec -ppn 1 ray-bootstrap ...",
        run_id_hint="mpiexec -genv RAY_BOOTSTRAP_RUN_ID $(date +%s)-$$ ray-bootstrap ...",
        look="see the output of mpiexec (with -prepend-rank each line has its rank) for rank {ranks}",
    ),
)
