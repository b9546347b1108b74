"""Amazon: SageMaker training jobs, and multi-node parallel jobs of AWS Batch."""

import re
from collections.abc import Iterable

from bootstrap.errors import IdentityError
from bootstrap.launchers import hostlist
from bootstrap.launchers.document import read_json, unexpected
from bootstrap.launchers.row import Context, Facts, Launcher, number

SAGEMAKER = ("/opt/ml/input/config/resourceconfig.json", "/opt/ml/config/resourceconfig.json")
"""In a training job, and in a processing job, as the containers read it that AWS makes for these
(https://github.com/aws/sagemaker-spark-container)."""


def sagemaker(_found: Facts, context: Context) -> Facts:
    """Derive this node's place among the hosts of the training job: ``algo-1`` is the head, ``algo-10`` comes last.

    Source: https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-training-algo-running-container.html

    :raises IdentityError: if the file is not what is documented.
    """
    path = next((path for path in SAGEMAKER if context.host.path(path).is_file()), SAGEMAKER[0])
    config = read_json(context.host.read(path), path)
    hosts, own = config.get("hosts"), config.get("current_host")
    if not isinstance(hosts, list) or own not in hosts:
        raise unexpected(path, f"hosts={hosts!r}, current_host={own!r}", "a list of names with this host's")
    names = _by_number(map(str, hosts))
    return hostlist.place(names, path, context, own=str(own))


def _by_number(names: Iterable[str]) -> list[str]:
    """Return the names ordered by the numbers in them: ``algo-2`` before ``algo-10``."""
    pairs = {name: re.findall("([^0-9]*)([0-9]*)", name) for name in names}
    return sorted(pairs, key=lambda name: [(text, number(digits)) for text, digits in pairs[name]])


def aws_batch(found: Facts, context: Context) -> Facts:
    """Derive the rank counted from the main node, which need not be the first, and the job's id without the node's.

    The main node has to be the head: the job ends when its container does.

    Source: https://docs.aws.amazon.com/batch/latest/userguide/mnp-env-vars.html
    """
    get = context.host.get
    job = (get("AWS_BATCH_JOB_ID") or "").partition("#")[0]
    facts: Facts = {"run_id": (f"aws-batch-{job}", "AWS_BATCH_JOB_ID")} if job else {}
    values = [get(f"AWS_BATCH_JOB_{name}") or "unset" for name in ("NODE_INDEX", "MAIN_NODE_INDEX", "NUM_NODES")]
    index, main, size = map(number, values)
    if 0 <= index < size and 0 <= main < size:
        facts["rank"] = (str((index - main) % size), f"AWS_BATCH_JOB_NODE_INDEX={index}, main node {main}")
    elif "rank" in found and context.settings.rank is None:
        raise IdentityError(
            f"AWS_BATCH_JOB_NODE_INDEX={values[0]}, AWS_BATCH_JOB_MAIN_NODE_INDEX={values[1]} and"
            f" AWS_BATCH_JOB_NUM_NODES={values[2]}: expected three numbers, the first two below the third",
            hint="--rank=N and --nodes=N; or a multi-node parallel job",
        )
    return facts


ROWS: tuple[Launcher, ...] = (
    Launcher(
        "sagemaker",
        any_of=("TRAINING_JOB_ARN",),
        files=SAGEMAKER,
        built_on=("openmpi", "torchrun", "torch-env"),
        run_name=("sagemaker-{TRAINING_JOB_NAME}",),
        local_rank=("OMPI_COMM_WORLD_LOCAL_RANK", "LOCAL_RANK"),
        local_size=("OMPI_COMM_WORLD_LOCAL_SIZE",),
        derive=sagemaker,
        look="see the CloudWatch streams {TRAINING_JOB_NAME}/algo-N of /aws/sagemaker/TrainingJobs",
    ),
    Launcher(
        "aws-batch",
        rank=("AWS_BATCH_JOB_NODE_INDEX",),
        size=("AWS_BATCH_JOB_NUM_NODES",),
        head=("AWS_BATCH_JOB_MAIN_NODE_PRIVATE_IPV4_ADDRESS",),  # not set on the main node
        attempt=("AWS_BATCH_JOB_ATTEMPT",),  # from 1
        derive=aws_batch,
        look="aws batch describe-jobs --jobs 'ID#N', N of each node; this one: '{AWS_BATCH_JOB_ID}'",
    ),
)
