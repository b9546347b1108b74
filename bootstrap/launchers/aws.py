"""Amazon: SageMaker training jobs, and multi-node parallel jobs of AWS Batch."""

from bootstrap.errors import IdentityError
from bootstrap.launchers import hostlist
from bootstrap.launchers.document import read_json, unexpected
from bootstrap.launchers.row import Context, Facts, Launcher

SAGEMAKER = "/opt/ml/input/config/resourceconfig.json"


def sagemaker(_found: Facts, context: Context) -> Facts:
    """Derive this node's place among the hosts of the training job: ``algo-1`` is the head, ``algo-10`` comes last.

    Source: https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-training-algo-running-container.html

    :raises IdentityError: if the file is not what is documented.
    """
    config = read_json(context.host.read(SAGEMAKER), SAGEMAKER)
    hosts, own = config.get("hosts"), config.get("current_host")
    if not isinstance(hosts, list) or own not in hosts:
        raise unexpected(SAGEMAKER, f"hosts={hosts!r}, current_host={own!r}", "a list of names with this host's")
    names = hostlist.by_number(map(str, hosts))
    return hostlist.place(names, SAGEMAKER, context, own=str(own))


def aws_batch(found: Facts, context: Context) -> Facts:
    """Derive the rank counted from the main node, which need not be the first, and the job's id without the node's.

    The main node has to be the head: the job ends when its container does.

    Source: https://docs.aws.amazon.com/batch/latest/userguide/mnp-env-vars.html
    """
    get = context.host.get
    job = (get("AWS_BATCH_JOB_ID") or "").partition("#")[0]
    facts: Facts = {"run_id": (f"aws-batch-{job}", "AWS_BATCH_JOB_ID")} if job else {}
    index, main, size = (get(f"AWS_BATCH_JOB_{name}") or "" for name in ("NODE_INDEX", "MAIN_NODE_INDEX", "NUM_NODES"))
    if all(map(str.isdecimal, (index, main, size))) and int(main) < int(size) and int(index) < int(size):
        rank = (int(index) - int(main)) % int(size)
        facts["rank"] = (str(rank), f"AWS_BATCH_JOB_NODE_INDEX={index}, main node {main}")
    elif "rank" in found and context.settings.rank is None:
        raise IdentityError(
            f"AWS_BATCH_JOB_NODE_INDEX={index!r}, AWS_BATCH_JOB_MAIN_NODE_INDEX={main!r} and"
            f" AWS_BATCH_JOB_NUM_NODES={size!r}: expected three numbers, the first two below the third",
            hint="--rank=N and --nodes=N; or a multi-node parallel job",
        )
    return facts


ROWS: tuple[Launcher, ...] = (
    Launcher(
        "sagemaker",
        any_of=("TRAINING_JOB_ARN",),
        file=SAGEMAKER,
        built_on=("openmpi", "torchrun", "torch-env"),
        run_name=("sagemaker-{TRAINING_JOB_NAME}",),
        local_rank=("OMPI_COMM_WORLD_LOCAL_RANK", "LOCAL_RANK"),
        local_size=("OMPI_COMM_WORLD_LOCAL_SIZE",),
        derive=sagemaker,
        look="see the CloudWatch streams {TRAINING_JOB_NAME}/algo-N of /aws/sagemaker/TrainingJobs",
    ),
    Launcher(
        "aws-batch",
        any_of=("AWS_BATCH_JOB_NODE_INDEX",),
        rank=("AWS_BATCH_JOB_NODE_INDEX",),
        size=("AWS_BATCH_JOB_NUM_NODES",),
        head=("AWS_BATCH_JOB_MAIN_NODE_PRIVATE_IPV4_ADDRESS",),  # not set on the main node
        attempt=("AWS_BATCH_JOB_ATTEMPT",),  # from 1
        derive=aws_batch,
        look="aws batch describe-jobs --jobs 'ID#N', N of each node; this one: '{AWS_BATCH_JOB_ID}'",
    ),
)
