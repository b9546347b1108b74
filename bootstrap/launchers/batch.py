"""The batch systems, in whose jobs also mpirun is called and lists of hosts are made."""

from bootstrap.launchers import gridengine, lsf, oar, pbs, slurm
from bootstrap.launchers.row import Launcher

ROWS: tuple[Launcher, ...] = (*gridengine.ROWS, *oar.ROWS, *pbs.ROWS, *slurm.ROWS, *lsf.ROWS)
NAMES = tuple(row.name for row in ROWS)
RUN_NAMES = tuple(template for row in ROWS for template in row.run_name)
"""Names for a run that is started by hand within a batch job; the next run in the job has the same."""
