"""The launchers' table, in order of precedence: the first row that matches decides.

An option wins over every variable. A cloud's container may be a pod, and its own variables know more. ``flux run`` and
jsrun set Open MPI's variables, too. mpirun comes before the batch system under which it runs: that has started mpirun's
daemons, on all nodes but the first, and we inherit its variables (SLURM_NODEID), which number other nodes than the
ranks do. PyTorch's variables come last: users export them for their programs, too. A Ray that already runs is used only
where nothing numbers this node: what does so has given the run its machines.
"""

from bootstrap.launchers import attached, aws, batch, cloud, flux, jsrun, kubernetes, mpi, options, pytorch, volcano
from bootstrap.launchers.row import Launcher

LAUNCHERS: tuple[Launcher, ...] = (
    *options.FIRST,
    *cloud.ROWS,
    *aws.ROWS,
    *kubernetes.ROWS,
    *volcano.ROWS,
    *flux.ROWS,
    *jsrun.ROWS,
    *mpi.ROWS,
    *batch.ROWS,
    *pytorch.ROWS,
    *options.BY_ADDRESS,
    attached.ROW,
    *options.LAST,
)
