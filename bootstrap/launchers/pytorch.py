"""PyTorch's variables: set by torchrun, by the controllers and platforms that imitate it, or by hand."""

from bootstrap import net
from bootstrap.launchers.kubernetes import pods
from bootstrap.launchers.row import Context, Facts, Launcher


def pytorchjob(found: Facts, context: Context) -> Facts:
    """Derive the run's name from the master's, which some versions call ``localhost`` on the master itself."""
    head = found.get("head", ("", ""))[0]
    on_master = not head or net.is_loopback(head)
    return {"run_name": (f"pytorchjob-{context.host.hostname if on_master else head}", "MASTER_ADDR")}


ROWS: tuple[Launcher, ...] = (
    Launcher(
        "pytorchjob",
        all_of=("KUBERNETES_SERVICE_HOST",),
        none_of=("GROUP_RANK", "NODE_RANK", "LOCAL_RANK"),
        built_on=("torch-env",),
        rank=("RANK", "PET_NODE_RANK"),
        # Since version 1.7 WORLD_SIZE counts processes (setPodEnv in pkg/controller.v1/pytorch/envvar.go).
        size=("PET_NNODES", "WORLD_SIZE"),
        head=("MASTER_ADDR", "PET_MASTER_ADDR"),
        rendezvous="dns",
        requeues=True,
        derive=pytorchjob,
        look=pods("training.kubeflow.org/job-name={name}", "pytorchjob {name}"),
        name_in=("MASTER_ADDR", r"(.+)-master-0.*"),
    ),
    Launcher(
        "torchrun",
        any_of=("GROUP_RANK", "GROUP_WORLD_SIZE", "NODE_RANK", "NNODES"),
        built_on=("torch-env",),
        rank=("GROUP_RANK", "NODE_RANK"),
        # torchrun's, DeepSpeed's, Azure ML's, Shanghai AI Lab's (Xtuner), MosaicML's
        size=("GROUP_WORLD_SIZE", "NNODES", "AZUREML_NODE_COUNT", "NODE_COUNT", "NUM_NODES"),
        head=("MASTER_ADDR",),
        attempt=("TORCHELASTIC_RESTART_COUNT",),
        run_id=("torchrun-{TORCHELASTIC_RUN_ID}-{MASTER_ADDR}-{MASTER_PORT}",),  # the id alone is often "none"
        run_name=("torchrun-{MASTER_ADDR}-{MASTER_PORT}", "torchrun-{MASTER_ADDR}", "torchrun-{TORCHELASTIC_RUN_ID}"),
        local_rank=("LOCAL_RANK",),
        local_hint="torchrun --nproc-per-node=1 ...",
        look="see the output of torchrun on the node of rank {ranks}",
    ),
    # The variables of torch.distributed's env://, set by hand; with LOCAL_RANK they would number processes.
    Launcher(
        "torch-env",
        all_of=("RANK", "WORLD_SIZE", "MASTER_ADDR"),
        none_of=("LOCAL_RANK",),
        rank=("RANK",),
        size=("WORLD_SIZE",),
        head=("MASTER_ADDR",),
        run_name=("torch-{MASTER_ADDR}-{MASTER_PORT}", "torch-{MASTER_ADDR}"),
    ),
)
