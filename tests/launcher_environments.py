"""The environment of one worker node under each launcher, complete, as the platform's documentation, its sources or the
program itself gives it; with the identity that it stands for.

The layers beneath are in it: a pod's variables, a batch job's, a container service's. Values are of one and the same
run; ids are the documented samples where there are any.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

NOT_UNIQUE = "is not unique: the next run may have it too"


@dataclass(frozen=True)
class Recorded:
    """One environment, and what is to be found in it."""

    id: str
    launcher: str
    """The row that must recognise it."""
    source: str
    env: Mapping[str, str]
    rank: int | None
    """None where a Ray already runs, and this is no node of ours; the size as well."""
    size: int | None
    run_id: str
    head: str = ""
    """None that the launcher names: a shared folder, or DNS alone, does."""
    attempt: int = 0
    rendezvous: str = "static"
    hostname: str = "node"
    files: Mapping[str, str] = field(default_factory=dict)
    """What the platform writes on the node: absolute path → text."""
    programs: Mapping[str, str] = field(default_factory=dict)
    """The launcher's own command → what it prints."""
    own_addresses: Sequence[str] = ()
    names: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """What the resolver knows: host → addresses."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Settings that the launcher's users have to give."""
    notes: Sequence[str] = ()
    """Parts of the only notes that may appear."""


def variables(text: str) -> dict[str, str]:
    """``NAME=value`` on each line."""
    return dict(line.strip().split("=", 1) for line in text.strip().splitlines())


# What lies beneath.

# https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables; a headless Service has none
POD = variables("""
    KUBERNETES_PORT=tcp://10.96.0.1:443
    KUBERNETES_PORT_443_TCP=tcp://10.96.0.1:443
    KUBERNETES_PORT_443_TCP_ADDR=10.96.0.1
    KUBERNETES_PORT_443_TCP_PORT=443
    KUBERNETES_PORT_443_TCP_PROTO=tcp
    KUBERNETES_SERVICE_HOST=10.96.0.1
    KUBERNETES_SERVICE_PORT=443
    KUBERNETES_SERVICE_PORT_HTTPS=443
""")


def pod_hosts(name: str, domain: str = "") -> dict[str, str]:
    """/etc/hosts as the kubelet writes it (kubelet_pods.go, managedHostsFileContent() and hostsEntry())."""
    full = f"{name}.{domain}\t{name}" if domain else name
    text = f"""# Kubernetes-managed hosts file.
127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::0\tip6-localnet
fe00::0\tip6-mcastprefix
fe00::1\tip6-allnodes
fe00::2\tip6-allrouters
10.244.1.7\t{full}
"""
    return {"/etc/hosts": text}


# Recorded with Slurm 22.05.8: the script's environment, which srun passes on ...
SBATCH = variables("""
    ENVIRONMENT=BATCH
    HOSTNAME=node-0
    SLURM_CLUSTER_NAME=test
    SLURM_CONF=/etc/slurm/slurm.conf
    SLURM_JOB_CPUS_PER_NODE=1(x2)
    SLURM_JOB_GID=0
    SLURM_JOB_ID=3
    SLURM_JOB_NAME=ray.sbatch
    SLURM_JOB_NODELIST=node-[0-1]
    SLURM_JOB_NUM_NODES=2
    SLURM_JOB_PARTITION=main
    SLURM_JOB_UID=0
    SLURM_JOB_USER=root
    SLURM_NODE_ALIASES=(null)
    SLURM_NTASKS_PER_NODE=1
    SLURM_PRIO_PROCESS=0
    SLURM_SUBMIT_DIR=/home/alice
    SLURM_SUBMIT_HOST=node-3
    SLURM_TOPOLOGY_ADDR_PATTERN=node
    SLURM_WORKING_CLUSTER=test:10.77.0.4:6817:9728:109
""")
# ... and that of the second task of an srun in it, of one task on each node.
SRUN = SBATCH | variables("""
    SLURMD_NODENAME=node-1
    SLURM_CPUS_ON_NODE=1
    SLURM_DISTRIBUTION=cyclic
    SLURM_GTIDS=1
    SLURM_JOBID=3
    SLURM_JOB_CPUS_PER_NODE_PACK_GROUP_0=1(x2)
    SLURM_LAUNCH_NODE_IPADDR=10.77.0.1
    SLURM_LOCALID=0
    SLURM_NNODES=2
    SLURM_NODEID=1
    SLURM_NODELIST=node-[0-1]
    SLURM_NPROCS=2
    SLURM_NTASKS=2
    SLURM_PROCID=1
    SLURM_SRUN_COMM_HOST=10.77.0.1
    SLURM_SRUN_COMM_PORT=34883
    SLURM_STEPID=0
    SLURM_STEP_ID=0
    SLURM_STEP_LAUNCHER_PORT=34883
    SLURM_STEP_NODELIST=node-[0-1]
    SLURM_STEP_NUM_NODES=2
    SLURM_STEP_NUM_TASKS=2
    SLURM_STEP_TASKS_PER_NODE=1(x2)
    SLURM_TASKS_PER_NODE=1(x2)
    SLURM_TASK_PID=103
    SLURM_TOPOLOGY_ADDR=node-1
    SLURM_UMASK=0022
    SRUN_DEBUG=3
""")
# mpirun starts its daemons by srun, on all nodes but the first: of two nodes, the second is the step's only one.
DAEMONS = SRUN | variables("""
    SLURM_CPU_BIND=quiet,none
    SLURM_CPU_BIND_LIST=
    SLURM_CPU_BIND_TYPE=none
    SLURM_CPU_BIND_VERBOSE=quiet
    SLURM_GTIDS=0
    SLURM_NNODES=1
    SLURM_NODEID=0
    SLURM_NPROCS=1
    SLURM_NTASKS=1
    SLURM_PROCID=0
    SLURM_STEP_NODELIST=node-1
    SLURM_STEP_NUM_NODES=1
    SLURM_STEP_NUM_TASKS=1
    SLURM_STEP_TASKS_PER_NODE=1
    SLURM_TASKS_PER_NODE=1
""")
# Recorded with Open MPI 4.1.4: `mpirun --map-by ppr:1:node`, the second of two processes.
OPENMPI = variables("""
    HFI_NO_BACKTRACE=1
    IPATH_NO_BACKTRACE=1
    OMPI_APP_CTX_NUM_PROCS=2
    OMPI_ARGV=-m bootstrap
    OMPI_COMMAND=ray-bootstrap
    OMPI_COMM_WORLD_LOCAL_RANK=0
    OMPI_COMM_WORLD_LOCAL_SIZE=1
    OMPI_COMM_WORLD_NODE_RANK=0
    OMPI_COMM_WORLD_RANK=1
    OMPI_COMM_WORLD_SIZE=2
    OMPI_FILE_LOCATION=/tmp/ompi.node-1.0/jf.10750/0/1
    OMPI_FIRST_RANKS=0
    OMPI_MCA_ess=^singleton
    OMPI_MCA_ess_base_jobid=704512001
    OMPI_MCA_ess_base_num_procs=2
    OMPI_MCA_ess_base_vpid=1
    OMPI_MCA_initial_wdir=/home/alice
    OMPI_MCA_mpi_oversubscribe=0
    OMPI_MCA_orte_app_num=0
    OMPI_MCA_orte_bound_at_launch=1
    OMPI_MCA_orte_ess_node_rank=0
    OMPI_MCA_orte_ess_num_procs=2
    OMPI_MCA_orte_hnp_uri=704512000.0;tcp://10.77.0.1:55257
    OMPI_MCA_orte_jobfam_session_dir=/tmp/ompi.node-1.0/jf.10750
    OMPI_MCA_orte_launch=1
    OMPI_MCA_orte_local_daemon_uri=704512000.1;tcp://10.77.0.2:51129
    OMPI_MCA_orte_node_regex=node-[1:0-1]@0(2)
    OMPI_MCA_orte_num_nodes=2
    OMPI_MCA_orte_precondition_transports=f918bbafb7c800f7-ed7628b99a829f1e
    OMPI_MCA_orte_tmpdir_base=/tmp
    OMPI_MCA_orte_top_session_dir=/tmp/ompi.node-1.0
    OMPI_MCA_pmix=^s1,s2,cray,isolated
    OMPI_MCA_rmaps_base_mapping_policy=ppr:1:node
    OMPI_MCA_shmem_RUNTIME_QUERY_hint=mmap
    OMPI_NUM_APP_CTX=1
    OMPI_UNIVERSE_SIZE=2
    PMIX_BFROP_BUFFER_TYPE=PMIX_BFROP_BUFFER_NON_DESC
    PMIX_DSTORE_21_BASE_PATH=/tmp/ompi.node-1.0/jf.10750/pmix_dstor_ds21_140
    PMIX_DSTORE_ESH_BASE_PATH=/tmp/ompi.node-1.0/jf.10750/pmix_dstor_ds12_140
    PMIX_GDS_MODULE=ds21,ds12,hash
    PMIX_HOSTNAME=node-1
    PMIX_ID=704512001.1
    PMIX_MCA_mca_base_component_show_load_errors=1
    PMIX_NAMESPACE=704512001
    PMIX_RANK=1
    PMIX_SECURITY_MODE=munge,native
    PMIX_SERVER_TMPDIR=/tmp/ompi.node-1.0/jf.10750
    PMIX_SERVER_URI2=704512000.1;tcp4://127.0.0.1:42275
    PMIX_SERVER_URI21=704512000.1;tcp4://127.0.0.1:42275
    PMIX_SERVER_URI3=704512000.1;tcp4://127.0.0.1:42275
    PMIX_SERVER_URI4=704512000.1;tcp4://127.0.0.1:42275
    PMIX_SERVER_URI41=704512000.1;tcp4://127.0.0.1:42275
    PMIX_SYSTEM_TMPDIR=/tmp
    PMIX_VERSION=4.2.2rc2
""")
SSH = {"SSH_CONNECTION": "10.77.0.1 51332 10.77.0.2 22"}
# Recorded with MPICH 4.0.2: `mpiexec -ppn 1 -n 2`, the second of two processes.
HYDRA = variables("""
    GFORTRAN_UNBUFFERED_PRECONNECTED=y
    MPIR_CVAR_CH3_INTERFACE_HOSTNAME=node-1
    MPI_LOCALNRANKS=1
    MPI_LOCALRANKID=0
    PMI_FD=11
    PMI_RANK=1
    PMI_SIZE=2
""")
# torch/distributed/elastic/agent/server/local_elastic_agent.py, LocalElasticAgent._start_workers: 8 processes a node
# would be LOCAL_WORLD_SIZE=8; here `torchrun --nproc-per-node=1`
TORCHRUN = variables("""
    GROUP_RANK=1
    GROUP_WORLD_SIZE=2
    LOCAL_RANK=0
    LOCAL_WORLD_SIZE=1
    MASTER_ADDR=10.0.0.4
    MASTER_PORT=29500
    OMP_NUM_THREADS=1
    RANK=1
    ROLE_NAME=default
    ROLE_RANK=1
    ROLE_WORLD_SIZE=2
    TORCHELASTIC_ERROR_FILE=/tmp/torchelastic_5x/7_q/attempt_2/0/error.json
    TORCHELASTIC_MAX_RESTARTS=3
    TORCHELASTIC_RESTART_COUNT=2
    TORCHELASTIC_RUN_ID=7
    TORCHELASTIC_USE_AGENT_STORE=True
    TORCH_NCCL_ASYNC_ERROR_HANDLING=1
    WORLD_SIZE=2
""")
# openpbs/openpbs doc/man1/qsub.1B (PBS_O_*) and src/resmom/start_exec.c, finish_exec(): the job's script
PBS_SCRIPT = variables("""
    ENVIRONMENT=BATCH
    NCPUS=8
    OMP_NUM_THREADS=8
    PBS_ENVIRONMENT=PBS_BATCH
    PBS_JOBCOOKIE=3E0D7C1A1F5B2F0E1D5B6F2C3A4B5C6D
    PBS_JOBDIR=/home/alice
    PBS_JOBID=1234.pbs
    PBS_JOBNAME=ray
    PBS_MOMPORT=15003
    PBS_NODEFILE=/var/spool/pbs/aux/1234.pbs
    PBS_NODENUM=0
    PBS_O_HOME=/home/alice
    PBS_O_HOST=login1.example
    PBS_O_LANG=en_US.UTF-8
    PBS_O_LOGNAME=alice
    PBS_O_PATH=/usr/bin:/bin
    PBS_O_QUEUE=workq
    PBS_O_SHELL=/bin/bash
    PBS_O_SYSTEM=Linux
    PBS_O_WORKDIR=/home/alice
    PBS_QUEUE=workq
    PBS_TASKNUM=1
    TMPDIR=/var/tmp/pbs.1234.pbs
""")
# A task of TM on the second host (start_exec.c, start_process()): PBS_TASKNUM in eight digits, the host's number on top
# (mom_comm.c, momtask_create()); PBS_NODEFILE by mom_comm.c, IM_JOIN_JOB.
PBS_TASK = PBS_SCRIPT | {"PBS_NODENUM": "1", "PBS_TASKNUM": "40000001"}
PBS_FILE = {"/var/spool/pbs/aux/1234.pbs": "x1001\nx1001\nx1002\nx1002\n"}  # one line for each MPI process
# https://www.ibm.com/docs/en/spectrum-lsf/10.1.0?topic=variables-environment-set-job-execution, and the `env` of a job
# on the Open MPI users list, 2009-04 (8842)
LSF = variables("""
    BINARY_TYPE_HPC=
    EGO_BINDIR=/opt/lsf/10.1/linux3.10-glibc2.17-x86_64/bin
    EGO_CONFDIR=/opt/lsf/conf/ego/cluster1/kernel
    EGO_TOP=/opt/lsf
    HOSTTYPE=X86_64
    LSB_ACCT_FILE=/tmp/.1239206877.748.acct
    LSB_BATCH_JID=748
    LSB_CHKFILENAME=/home/alice/.lsbatch/1239206877.748
    LSB_DJOB_HB_INTERVAL=15
    LSB_DJOB_HOSTFILE=/home/alice/.lsbatch/1239206877.748.hostfile
    LSB_DJOB_NUMPROC=3
    LSB_DJOB_RANKFILE=/home/alice/.lsbatch/1239206877.748.hostfile
    LSB_DJOB_RU_INTERVAL=15
    LSB_EEXEC_REAL_GID=
    LSB_EEXEC_REAL_UID=
    LSB_EXEC_CLUSTER=cluster1
    LSB_EXIT_PRE_ABORT=99
    LSB_HOSTS=grid01 grid03 grid05
    LSB_JOBEXIT_STAT=0
    LSB_JOBFILENAME=/home/alice/.lsbatch/1239206877.748
    LSB_JOBID=748
    LSB_JOBINDEX=0
    LSB_JOBNAME=ray
    LSB_JOBRES_CALLBACK=45290@grid01
    LSB_JOBRES_PID=11809
    LSB_JOB_EXECUSER=alice
    LSB_MAX_NUM_PROCESSORS=3
    LSB_MCPU_HOSTS=grid01 1 grid03 1 grid05 1
    LSB_QUEUE=normal
    LSB_SUB_HOST=grid03
    LSB_TRAPSIGS=trap # 15 10 12 2 1
    LSB_UNIXGROUP_INT=users
    LSFUSER=alice
    LSF_BINDIR=/opt/lsf/10.1/linux3.10-glibc2.17-x86_64/bin
    LSF_EAUTH_CLIENT=user
    LSF_EAUTH_SERVER=mbatchd@cluster1
    LSF_ENVDIR=/opt/lsf/conf
    LSF_INVOKE_CMD=bsub
    LSF_LIBDIR=/opt/lsf/10.1/linux3.10-glibc2.17-x86_64/lib
    LSF_LIM_API_NTRIES=1
    LSF_LOGDIR=/opt/lsf/log
    LSF_SERVERDIR=/opt/lsf/10.1/linux3.10-glibc2.17-x86_64/etc
    LSF_VERSION=34
    LS_EXEC_T=START
    LS_JOBPID=11809
    LS_SUBCWD=/home/alice
    SBD_KRB5CCNAME_VAL=
    XLSF_UIDDIR=/opt/lsf/10.1/linux3.10-glibc2.17-x86_64/lib/uid
""")
LSF_FILE = {"/home/alice/.lsbatch/1239206877.748.hostfile": "grid01\ngrid03\ngrid05\n"}

# pkg/controllers/job/plugins/env/env.go and svc/svc.go of volcano-sh/volcano: a Job of a master and two workers
VOLCANO = POD | variables("""
    HOSTNAME=ray-worker-1
    VC_MASTER_HOSTS=ray-master-0.ray
    VC_MASTER_NUM=1
    VC_TASK_INDEX=1
    VC_WORKER_HOSTS=ray-worker-0.ray,ray-worker-1.ray
    VC_WORKER_NUM=2
    VK_TASK_INDEX=1
""")
VOLCANO_FILES = {
    **pod_hosts("ray-worker-1", "ray.default.svc.cluster.local"),
    "/etc/volcano/VC_MASTER_HOSTS": "ray-master-0.ray",
    "/etc/volcano/VC_MASTER_NUM": "1",
    "/etc/volcano/VC_WORKER_HOSTS": "ray-worker-0.ray,ray-worker-1.ray",
    "/etc/volcano/VC_WORKER_NUM": "2",
    "/etc/volcano/master.host": "ray-master-0.ray",
    "/etc/volcano/worker.host": "ray-worker-0.ray\nray-worker-1.ray",
}

# Recorded with Son of Grid Engine 8.1.9: a task of `qrsh -inherit -v PE_HOSTFILE=COPY` on the second host
GRID_ENGINE = variables("""
    ARC=lx-amd64
    ENVIRONMENT=BATCH
    HOSTNAME=node-0
    JOB_ID=1
    JOB_NAME=petask
    JOB_SCRIPT=QRSH
    NHOSTS=1
    NQUEUES=1
    NSLOTS=1
    PE=ray
    PE_HOSTFILE=/home/alice/hosts.1
    QRSH_COMMAND=ray-bootstrap
    QRSH_PORT=node-1:43133
    QUEUE=all.q
    REQNAME=petask
    REQUEST=petask
    RESTARTED=0
    SGE_ACCOUNT=sge
    SGE_ARCH=lx-amd64
    SGE_BINARY_PATH=/usr/lib/gridengine/lx-amd64
    SGE_CELL=default
    SGE_CWD_PATH=/home/alice
    SGE_JOB_SPOOL_DIR=/run/sge/node-0/active_jobs/1.1/1.node-0
    SGE_O_HOME=/home/alice
    SGE_O_HOST=node-1
    SGE_O_LOGNAME=alice
    SGE_O_PATH=/tmp/1.1.all.q:/usr/local/bin:/bin:/usr/bin
    SGE_O_SHELL=/bin/bash
    SGE_O_WORKDIR=/home/alice
    SGE_ROOT=/opt/sge
    SGE_RSH_COMMAND=builtin
    SGE_STDERR_PATH=/home/alice/petask.o1
    SGE_STDIN_PATH=/dev/null
    SGE_STDOUT_PATH=/home/alice/petask.o1
    SGE_TASK_FIRST=undefined
    SGE_TASK_ID=undefined
    SGE_TASK_LAST=undefined
    SGE_TASK_STEPSIZE=undefined
    TMP=/tmp/1.1.all.q
    TMPDIR=/tmp/1.1.all.q
""")

# https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-metadata-endpoint-v4.html and its neighbours
ECS = variables("""
    AWS_CONTAINER_CREDENTIALS_RELATIVE_URI=/v2/credentials/5b2e8f1c-0000-4000-8000-000000000007
    AWS_DEFAULT_REGION=us-east-1
    AWS_EXECUTION_ENV=AWS_ECS_EC2
    AWS_REGION=us-east-1
    ECS_AGENT_URI=http://169.254.170.2/api/9493d6ad
    ECS_CONTAINER_METADATA_URI=http://169.254.170.2/v3/9493d6ad
    ECS_CONTAINER_METADATA_URI_V4=http://169.254.170.2/v4/9493d6ad
""")

# harness/determined/_info.py, master/pkg/tasks/{task,task_trial}.go, agent/internal/containers/spec.go of
# determined-ai/determined
DETERMINED = variables("""
    DET_AGENT_ID=agent-2
    DET_ALLOCATION_ID=17.3f1c0c52-6a32-4c5c-9f0e-2d4e1c9a7b11.2
    DET_CLUSTER_ID=d2a9e7b4-5d1f-4b9b-9d0a-1a2b3c4d5e6f
    DET_CONTAINER_ID=5b0d7c8e-1111-4c4c-8d8d-000000000002
    DET_EXPERIMENT_CONFIG={"name": "ray", "resources": {"slots_per_trial": 16}}
    DET_EXPERIMENT_ID=17
    DET_HPARAMS={}
    DET_MASTER=http://10.0.0.2:8080
    DET_MASTER_ADDR=10.0.0.2
    DET_MASTER_HOST=10.0.0.2
    DET_MASTER_ID=0c1d2e3f
    DET_MASTER_PORT=8080
    DET_RESOURCES_ID=5b0d7c8e-1111-4c4c-8d8d-000000000002
    DET_RESOURCES_TYPE=docker-container
    DET_RUN_DIR=/run/determined
    DET_SEGMENT_ENABLED=false
    DET_SESSION_TOKEN=v2.public.x
    DET_SLOT_IDS=[0,1,2,3,4,5,6,7]
    DET_STEPS_COMPLETED=0
    DET_TASK_ID=17.3f1c0c52-6a32-4c5c-9f0e-2d4e1c9a7b11
    DET_TASK_TYPE=TRIAL
    DET_TRIAL_ID=23
    DET_TRIAL_RUN_ID=2
    DET_TRIAL_SEED=12345
    DET_USER=alice
    DET_USER_TOKEN=v2.public.y
    DET_USE_TLS=false
    DET_WORKDIR=/run/determined/workdir
""")
DETERMINED_FILE = {
    "/run/determined/info/rendezvous.json": json.dumps(
        {"container_addrs": ["10.0.0.4", "10.0.0.5"], "container_rank": 1, "container_slot_counts": [8, 8]}
    )
}

# https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-training-algo-running-container.html: names in the
# order of the alphabet, of which the sample has three
SAGEMAKER = variables("""
    TRAINING_JOB_ARN=arn:aws:sagemaker:us-east-1:111122223333:training-job/ray-2026-08-20-06-27-15-511
    TRAINING_JOB_NAME=ray-2026-08-20-06-27-15-511
""")
SAGEMAKER_PATH = "/opt/ml/input/config/resourceconfig.json"
SAGEMAKER_SAMPLE = """{
    "current_host": "algo-2",
    "hosts": ["algo-1","algo-2","algo-3"],
    "network_interface_name":"eth1"
}"""
_ALGOS = sorted(f"algo-{n}" for n in range(1, 12))
_RESOURCES = {
    "current_host": "algo-10",
    "current_instance_type": "ml.g5.xlarge",
    "current_group_name": "homogeneousCluster",
    "hosts": _ALGOS,
    "instance_groups": [
        {"instance_group_name": "homogeneousCluster", "instance_type": "ml.g5.xlarge", "hosts": _ALGOS}
    ],
    "network_interface_name": "eth0",
}
# aws/sagemaker-training-toolkit ENVIRONMENT_VARIABLES.md and src/sagemaker_training/environment.py, to_env_vars()
SAGEMAKER_TOOLKIT = SAGEMAKER | {
    "SM_CHANNELS": "[]",
    "SM_CURRENT_HOST": "algo-10",
    "SM_CURRENT_INSTANCE_GROUP": "homogeneousCluster",
    "SM_CURRENT_INSTANCE_GROUP_HOSTS": json.dumps(_ALGOS),
    "SM_CURRENT_INSTANCE_TYPE": "ml.g5.xlarge",
    "SM_DISTRIBUTION_INSTANCE_GROUPS": "[]",
    "SM_FRAMEWORK_MODULE": "sagemaker_pytorch_container.training:main",
    "SM_FRAMEWORK_PARAMS": "{}",
    "SM_HOSTS": json.dumps(_ALGOS),
    "SM_HPS": '{"epochs":1}',
    "SM_HP_EPOCHS": "1",
    "SM_INPUT_CONFIG_DIR": "/opt/ml/input/config",
    "SM_INPUT_DATA_CONFIG": "{}",
    "SM_INPUT_DIR": "/opt/ml/input",
    "SM_INSTANCE_GROUPS": '["homogeneousCluster"]',
    "SM_INSTANCE_GROUPS_DICT": json.dumps({"homogeneousCluster": _RESOURCES["instance_groups"]}),
    "SM_IS_HETERO": "false",
    "SM_LOG_LEVEL": "20",
    "SM_MODEL_DIR": "/opt/ml/model",
    "SM_MODULE_DIR": "s3://bucket/ray-2026-08-20-06-27-15-511/source/sourcedir.tar.gz",
    "SM_MODULE_NAME": "train",
    "SM_NETWORK_INTERFACE_NAME": "eth0",
    "SM_NUM_CPUS": "4",
    "SM_NUM_GPUS": "1",
    "SM_NUM_NEURONS": "0",
    "SM_OUTPUT_DATA_DIR": "/opt/ml/output/data",
    "SM_OUTPUT_DIR": "/opt/ml/output",
    "SM_OUTPUT_INTERMEDIATE_DIR": "/opt/ml/output/intermediate",
    "SM_RESOURCE_CONFIG": json.dumps(_RESOURCES),
    "SM_TRAINING_ENV": json.dumps(
        {
            "current_host": "algo-10",
            "hosts": _ALGOS,
            "job_name": "ray-2026-08-20-06-27-15-511",
            "network_interface_name": "eth0",
            "num_gpus": 1,
            "resource_config": _RESOURCES,
        }
    ),
    "SM_USER_ARGS": '["--epochs","1"]',
    "SM_USER_ENTRY_POINT": "train.py",
}
SAGEMAKER_FILE = {SAGEMAKER_PATH: json.dumps(_RESOURCES)}

# docs.cloud.google.com/vertex-ai/docs/training/distributed-training, its sample without the pools 2 and 3
_POOLS = {
    "workerpool0": ["cmle-training-workerpool0-ab-0:2222"],
    "workerpool1": ["cmle-training-workerpool1-ab-0:2222", "cmle-training-workerpool1-ab-1:2222"],
}


def vertex(pools: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """CLUSTER_SPEC and TF_CONFIG of the second worker; service links of the pods of its run."""
    spec = {"cluster": pools, "environment": "cloud", "task": {"type": "workerpool1", "index": 1}, "job": {}}
    roles = {"workerpool0": "chief", "workerpool1": "worker", "workerpool2": "ps"}
    cluster = {roles[pool]: hosts for pool, hosts in pools.items() if pool in roles}
    config = {"cluster": cluster, "environment": "cloud", "task": {"type": "worker", "index": 1, "cloud": "x"}}
    links = {
        f"CMLE_TRAINING_WORKERPOOL{pool}_AB_{index}_SERVICE_{name}": value
        for pool, index in ((0, 0), (1, 0), (1, 1))
        for name, value in (("HOST", "10.12.0.81"), ("PORT", "2222"), ("PORT_TF_PORT", "2222"))
    }
    aip = variables("""
        AIP_CHECKPOINT_DIR=gs://bucket/out/checkpoints/
        AIP_MODEL_DIR=gs://bucket/out/model/
        AIP_TENSORBOARD_LOG_DIR=gs://bucket/out/logs/
        CLOUD_ML_JOB_ID=5942175266485829632
        HOSTNAME=cmle-training-workerpool1-ab-1-cd5sv
    """)
    return POD | links | aip | {"CLUSTER_SPEC": json.dumps(spec), "TF_CONFIG": json.dumps(config)}


# Azure ML's compute: names as microsoft/ray-on-aml (src/ray_on_aml/core.py), Azure's samples
# (azureml-examples, azureml_adapter.py) and PyMarlin (utils/fabrics, utils/distributed) read them
AZUREML = variables("""
    AZUREML_ARM_RESOURCEGROUP=rg
    AZUREML_ARM_SUBSCRIPTION=00000000-0000-4000-8000-000000000000
    AZUREML_ARM_WORKSPACE_NAME=ws
    AZUREML_CR_NODE_RANK=1
    AZUREML_NODE_COUNT=2
    AZUREML_RUN_ID=dreamy_sun_x7f0q8z2
    AZ_BATCHAI_GPU_COUNT=2
    AZ_BATCHAI_JOB_MASTER_NODE_IP=10.0.0.4
    AZ_BATCHAI_TASK_INDEX=1
    AZ_BATCH_HOST_LIST=10.0.0.4,10.0.0.5
    AZ_BATCH_IS_CURRENT_NODE_MASTER=false
    AZ_BATCH_MASTER_NODE=10.0.0.4:6000
    AZ_BATCH_NODE_LIST=10.0.0.4;10.0.0.5
    NCCL_SOCKET_IFNAME=^docker0,lo
""")

# flux-core doc/man7/flux-environment.rst, src/shell/{shell,task,tmpdir}.c, src/shell/pmi/pmi.c: `flux run -N3 -n3`
FLUX = variables("""
    CUDA_DEVICE_ORDER=PCI_BUS_ID
    CUDA_VISIBLE_DEVICES=0
    FLUX_JOB_ID=ƒ2YPThUs
    FLUX_JOB_ID_PATH=/ƒ2YPThUs
    FLUX_JOB_NNODES=3
    FLUX_JOB_SIZE=3
    FLUX_JOB_TMPDIR=/tmp/flux-XyZ/jobtmp-1-ƒ2YPThUs
    FLUX_KVS_NAMESPACE=job-85312143360
    FLUX_PMI_LIBRARY_PATH=/usr/lib64/flux/libpmi.so
    FLUX_TASK_LOCAL_ID=0
    FLUX_TASK_RANK=1
    FLUX_URI=local:///run/flux/local
    HOSTNAME=tuolumne1002
    LD_LIBRARY_PATH=/usr/lib64/flux
    PMI_FD=25
    PMI_RANK=1
    PMI_SIZE=3
""")
# RFC 20 (R, version 1), as `flux job info ID R` prints it
FLUX_R = json.dumps(
    {
        "version": 1,
        "execution": {
            "R_lite": [{"rank": "0-2", "children": {"core": "0-95", "gpu": "0-3"}}],
            "nodelist": ["tuolumne[1001-1003]"],
            "starttime": 1787222400.0,
            "expiration": 1787226000.0,
        },
    }
)

# The variables of HPE's launchers (flux-framework/flux-core#3825, flux-coral2#79) under mpiexec --ppn 1
PALS = variables("""
    PALS_APID=8c3b5f0e-2f6c-4d4e-8f5a-0d7e6c5b4a39
    PALS_APINFO=/var/run/palsd/8c3b5f0e-2f6c-4d4e-8f5a-0d7e6c5b4a39/apinfo
    PALS_DEPTH=1
    PALS_FD=4
    PALS_LOCAL_RANKID=0
    PALS_LOCAL_SIZE=1
    PALS_NODEID=1
    PALS_RANKID=1
    PALS_SPOOL_DIR=/var/run/palsd/8c3b5f0e-2f6c-4d4e-8f5a-0d7e6c5b4a39
    PALS_TRANSFER=0
""")

# sources/core/tools/job_resource_manager_cgroups.pl of oar-team/oar writes them on each node, oarsh_shell reads them
OAR = variables("""
    OAR_ARRAYID=1234
    OAR_ARRAYINDEX=1
    OAR_ARRAY_ID=1234
    OAR_ARRAY_INDEX=1
    OAR_CPUSET=/oar/alice_1234
    OAR_FILE_NODES=/tmp/oar_runtime/1234
    OAR_JOBID=1234
    OAR_JOB_ID=1234
    OAR_JOB_NAME=ray
    OAR_JOB_USER=alice
    OAR_JOB_WALLTIME=2:0:0
    OAR_JOB_WALLTIME_SECONDS=7200
    OAR_NODEFILE=/tmp/oar_runtime/1234
    OAR_NODE_FILE=/tmp/oar_runtime/1234
    OAR_O_WORKDIR=/home/alice
    OAR_PROJECT_NAME=default
    OAR_RESOURCE_FILE=/tmp/oar_runtime/1234_resources
    OAR_RESOURCE_PROPERTIES_FILE=/tmp/oar_runtime/1234_resources
    OAR_STDERR=/home/alice/OAR.ray.1234.stderr
    OAR_STDOUT=/home/alice/OAR.ray.1234.stdout
    OAR_USER=alice
    OAR_WORKDIR=/home/alice
    OAR_WORKING_DIRECTORY=/home/alice
""")

# https://docs.skypilot.co/en/latest/running-jobs/environment-variables.html
SKYPILOT = variables("""
    SKYPILOT_CLUSTER_INFO={"cluster_name": "train", "cloud": "AWS", "region": "us-east-1", "zone": "us-east-1a"}
    SKYPILOT_NODE_RANK=1
    SKYPILOT_NUM_GPUS_PER_NODE=8
    SKYPILOT_NUM_NODES=2
    SKYPILOT_TASK_ID=sky-2026-08-20-10-11-12-345678_train_2
    SKYPILOT_USER=alice
""") | {"SKYPILOT_NODE_IPS": "10.0.0.4\n10.0.0.5"}

# runner/internal/runner/executor/executor.go of dstackai/dstack, execJob()
DSTACK = variables("""
    DSTACK_GPUS_NUM=16
    DSTACK_GPUS_PER_NODE=8
    DSTACK_JOB_ID=0c8e7b52-0000-4000-8000-00000000000b
    DSTACK_MASTER_NODE_IP=10.0.0.4
    DSTACK_MPI_HOSTFILE=/root/.dstack/mpi/hostfile
    DSTACK_NODES_NUM=2
    DSTACK_NODE_RANK=1
    DSTACK_REPO_DIR=/workflow
    DSTACK_REPO_ID=ray
    DSTACK_RUN_ID=5e2c9d17-0000-4000-8000-00000000000a
    DSTACK_RUN_NAME=ray
    DSTACK_WORKING_DIR=/workflow
""") | {"DSTACK_NODES_IPS": "10.0.0.4\n10.0.0.5"}

# https://docs.nvidia.com/dgx-cloud/lepton/features/batch-job/predefined-env-vars; the pods are those of an Indexed Job
LEPTON = POD | variables("""
    HOSTNAME=env-job-98bw-1
    JOB_COMPLETION_INDEX=1
    LEPTON_JOB_FAILURE_COUNT=0
    LEPTON_JOB_NAME=env-job-98bw
    LEPTON_JOB_SERVICE_PREFIX=env-job-98bw
    LEPTON_JOB_TOTAL_WORKERS=3
    LEPTON_JOB_WORKER_HOSTNAME_PREFIX=worker
    LEPTON_JOB_WORKER_INDEX=1
    LEPTON_JOB_WORKER_PREFIX=worker
    LEPTON_RESOURCE_ACCELERATOR_NUM=1
    LEPTON_RESOURCE_ACCELERATOR_TYPE=NVIDIA-A100-80GB
    LEPTON_SUBDOMAIN=env-job-98bw-job-svc
    LEPTON_VIRTUAL_ENV=/opt/lepton/venv
    LEPTON_WORKER_ID=env-job-98bw-1-2nm7s
    LEPTON_WORKSPACE_ID=prod01awsuswest
""")

MODELARTS = tuple(
    "modelarts-job-{0}-worker-{1}.modelarts-job-{0}".format("a0978141-1712-4f9b-8a83-000000000000", n) for n in range(2)
)

KUBERNETES_RECORDED = (
    Recorded(
        "kubeflow-trainer",
        "kubeflow-trainer",
        "kubeflow/trainer pkg/runtime/framework/plugins/torch/torch.go, EnforceMLPolicy(); an Indexed Job's pod",
        POD
        | variables("""
            HOSTNAME=llama-node-0-1
            JOB_COMPLETION_INDEX=1
            PET_MASTER_ADDR=llama-node-0-0.llama
            PET_MASTER_PORT=29500
            PET_NNODES=3
            PET_NODE_RANK=1
            PET_NPROC_PER_NODE=8
        """),
        1,
        3,
        "kubeflow-llama-node-0-0.llama",
        "llama-node-0-0.llama",
        rendezvous="dns",
        hostname="llama-node-0-1",
        files=pod_hosts("llama-node-0-1", "llama.default.svc.cluster.local"),
        notes=(NOT_UNIQUE,),
    ),
    Recorded(
        "jobset",
        "jobset",
        "labels and annotations of https://jobset.sigs.k8s.io/docs/reference, through the downward API",
        POD
        | variables("""
            HOSTNAME=ray-node-2-0
            JOBSET_COORDINATOR=ray-node-0-0.ray
            JOBSET_GLOBAL_REPLICAS=3
            JOBSET_JOB_GLOBAL_INDEX=2
            JOBSET_NAME=ray
            JOBSET_PODS_PER_JOB=1
            JOBSET_RESTART_ATTEMPT=1
            JOBSET_UID=8f14e45f-0000-4000-8000-000000000003
            JOB_COMPLETION_INDEX=0
        """),
        2,
        3,
        "jobset-8f14e45f-0000-4000-8000-000000000003",
        "ray-node-0-0.ray",
        attempt=1,
        rendezvous="dns",
        hostname="ray-node-2-0",
        files=pod_hosts("ray-node-2-0", "ray.default.svc.cluster.local"),
        options={"nodes": 3},
    ),
    Recorded(
        "leaderworkerset-tpu",
        "leaderworkerset",
        "kubernetes-sigs/lws pkg/utils/pod/pod_utils.go, AddLWSVariables(); pkg/utils/accelerators/tpu.go",
        POD
        | variables("""
            HOSTNAME=vllm-0-1
            LWS_GROUP_SIZE=4
            LWS_LEADER_ADDRESS=vllm-0.vllm.default
            LWS_WORKER_INDEX=1
            TPU_NAME=vllm-0
            TPU_PROCESS_ADDRESSES=vllm-0.vllm:8476,vllm-0-1.vllm:8476,vllm-0-2.vllm:8476,vllm-0-3.vllm:8476
            TPU_WORKER_HOSTNAMES=vllm-0.vllm,vllm-0-1.vllm,vllm-0-2.vllm,vllm-0-3.vllm
            TPU_WORKER_ID=1
        """),
        1,
        4,
        "lws-vllm-0.vllm.default",
        "vllm-0.vllm.default",
        rendezvous="dns",
        hostname="vllm-0-1",
        files=pod_hosts("vllm-0-1", "vllm.default.svc.cluster.local"),
        notes=(NOT_UNIQUE,),
    ),
    Recorded(
        "kubernetes",
        "kubernetes",
        "https://kubernetes.io/docs/concepts/workloads/controllers/job/#completion-mode",
        POD | {"HOSTNAME": "ray-1", "JOB_COMPLETION_INDEX": "1"},
        1,
        3,
        "job-ray",
        "ray-0.ray.default.svc.cluster.local",
        rendezvous="dns",
        hostname="ray-1",
        files=pod_hosts("ray-1", "ray.default.svc.cluster.local"),
        options={"nodes": 3},
        notes=(NOT_UNIQUE,),
    ),
    Recorded(
        "volcano",
        "volcano",
        "volcano-sh/volcano pkg/controllers/job/plugins/{env/env,svc/svc}.go",
        VOLCANO,
        2,
        3,
        "volcano-ray",
        "ray-master-0.ray",
        rendezvous="dns",
        hostname="ray-worker-1",
        files=VOLCANO_FILES,
        notes=(NOT_UNIQUE,),
    ),
    Recorded(
        "volcano-one-task",
        "volcano",
        "the same without a master",
        {name: value for name, value in VOLCANO.items() if "MASTER" not in name},
        1,
        2,
        "volcano-ray",
        "ray-worker-0.ray",
        rendezvous="dns",
        hostname="ray-worker-1",
        files={path: text for path, text in VOLCANO_FILES.items() if "master" not in path.lower()},
        notes=(NOT_UNIQUE,),
    ),
    Recorded(
        "volcano-pytorch",
        "pytorchjob",
        "volcano-sh/volcano pkg/controllers/job/plugins/distributed-framework/pytorch/pytorch.go",
        VOLCANO | {"MASTER_ADDR": "ray-master-0.ray", "MASTER_PORT": "23456", "RANK": "2", "WORLD_SIZE": "3"},
        2,
        3,
        "pytorchjob-ray-master-0.ray",
        "ray-master-0.ray",
        rendezvous="dns",
        hostname="ray-worker-1",
        files=VOLCANO_FILES,
        notes=(NOT_UNIQUE,),
    ),
    Recorded(
        "modelarts",
        "volcano",
        "https://support.huaweicloud.com/drawer-modelarts/ma_drawer_129.html",
        POD
        | variables("""
            HOSTNAME=modelarts-job-a0978141-1712-4f9b-8a83-000000000000-worker-1
            MA_CURRENT_IP=192.168.23.38
            MA_HOME=/home/ma-user
            MA_JOB_DIR=/home/ma-user/modelarts/user-job-dir
            MA_LOG_DIR=/home/ma-user/modelarts/log
            MA_MOUNT_PATH=/home/ma-user/modelarts
            MA_NUM_GPUS=8
            MA_NUM_HOSTS=2
            MA_TASK_NAME=worker
            MA_VJ_NAME=modelarts-job-a0978141-1712-4f9b-8a83-000000000000
            VC_TASK_INDEX=1
            VC_WORKER_NUM=2
            VK_TASK_INDEX=1
        """)
        | {"VC_WORKER_HOSTS": ",".join(MODELARTS)},
        1,
        2,
        "volcano-modelarts-job-a0978141-1712-4f9b-8a83-000000000000",
        MODELARTS[0],
        rendezvous="dns",
        hostname="modelarts-job-a0978141-1712-4f9b-8a83-000000000000-worker-1",
        notes=(NOT_UNIQUE,),
    ),
)

TORCH_RECORDED = (
    Recorded(
        "pytorchjob-1.6",
        "pytorchjob",
        "kubeflow/training-operator pkg/controller.v1/pytorch/{envvar,master}.go @1417bbc (up to 1.6)",
        POD
        | variables("""
            HOSTNAME=ray-worker-0
            MASTER_ADDR=ray-master-0
            MASTER_PORT=23456
            PYTHONUNBUFFERED=0
            RANK=1
            WORLD_SIZE=3
        """),
        1,
        3,
        "pytorchjob-ray-master-0",
        "ray-master-0",
        rendezvous="dns",
        hostname="ray-worker-0",
        files=pod_hosts("ray-worker-0"),
        notes=(NOT_UNIQUE,),
    ),
    Recorded(
        "pytorchjob-1.9",
        "pytorchjob",
        "kubeflow/training-operator pkg/controller.v1/pytorch/envvar.go since 1.7, setPodEnv(): nprocPerNode is 8",
        POD
        | variables("""
            HOSTNAME=ray-worker-0
            MASTER_ADDR=ray-master-0
            MASTER_PORT=23456
            PET_NNODES=3
            PET_NODE_RANK=1
            PET_NPROC_PER_NODE=8
            PYTHONUNBUFFERED=1
            RANK=1
            WORLD_SIZE=24
        """),
        1,
        3,
        "pytorchjob-ray-master-0",
        "ray-master-0",
        rendezvous="dns",
        hostname="ray-worker-0",
        files=pod_hosts("ray-worker-0"),
        notes=(NOT_UNIQUE,),
    ),
    Recorded(
        "alibaba-pai",
        "pytorchjob",
        "https://www.alibabacloud.com/help/en/pai/user-guide/general-environment-variables (DLC, PyTorch)",
        POD
        | variables("""
            HOSTNAME=dlc18isgeayd0000-worker-0
            MASTER_ADDR=dlc18isgeayd0000-master-0
            MASTER_PORT=23456
            NPROC_PER_NODE=8
            RANK=1
            WORLD_SIZE=2
        """),
        1,
        2,
        "pytorchjob-dlc18isgeayd0000-master-0",
        "dlc18isgeayd0000-master-0",
        rendezvous="dns",
        hostname="dlc18isgeayd0000-worker-0",
        files=pod_hosts("dlc18isgeayd0000-worker-0"),
        notes=(NOT_UNIQUE,),
    ),
    Recorded(
        "torchrun",
        "torchrun",
        "torch/distributed/elastic/agent/server/local_elastic_agent.py, _start_workers()",
        TORCHRUN,
        1,
        2,
        "torchrun-7-10.0.0.4-29500",
        "10.0.0.4",
        attempt=2,
    ),
    Recorded(
        "azureml-pytorch",
        "azureml",
        "https://learn.microsoft.com/azure/machine-learning/how-to-train-distributed-gpu#pytorch",
        AZUREML
        | variables("""
            LOCAL_RANK=0
            MASTER_ADDR=10.0.0.4
            MASTER_PORT=6105
            NODE_RANK=1
            RANK=1
            WORLD_SIZE=2
        """),
        1,
        2,
        "azureml-dreamy_sun_x7f0q8z2",
        "10.0.0.4",
        notes=(NOT_UNIQUE,),
    ),
    Recorded(
        "azureml-kubernetes",
        "torchrun",
        "https://learn.microsoft.com/azure/machine-learning/how-to-train-distributed-gpu#pytorch on Kubernetes, whose"
        " extension makes a Job of Volcano (how-to-deploy-kubernetes-extension, volcanoScheduler)",
        VOLCANO
        | variables("""
            AZUREML_NODE_COUNT=3
            AZUREML_RUN_ID=dreamy_sun_x7f0q8z2
            LOCAL_RANK=0
            MASTER_ADDR=ray-master-0.ray
            MASTER_PORT=6105
            NODE_RANK=2
            RANK=2
            WORLD_SIZE=3
        """),
        2,
        3,
        "torchrun-ray-master-0.ray-6105",
        "ray-master-0.ray",
        hostname="ray-worker-1",
        files=VOLCANO_FILES,
        notes=(NOT_UNIQUE,),
    ),
    Recorded(
        "xtuner-cluster",
        "torchrun",
        "InternLM/xtuner examples/v1/scripts/run_rl.sh reads NODE_COUNT and NODE_RANK; in pods",
        POD
        | variables("""
            HOSTNAME=rl-worker-1
            MASTER_ADDR=10.1.0.4
            MASTER_PORT=29500
            NODE_COUNT=2
            NODE_RANK=1
            PROC_PER_NODE=8
            WORLD_SIZE=2
        """),
        1,
        2,
        "torchrun-10.1.0.4-29500",
        "10.1.0.4",
        hostname="rl-worker-1",
        files=pod_hosts("rl-worker-1"),
        notes=(NOT_UNIQUE,),
    ),
    Recorded(
        "mosaicml",
        "torchrun",
        "mosaicml/composer composer/cli/launcher.py; lightning.ai/docs/platform (Multi-node Inference)",
        POD
        | variables("""
            HOSTNAME=llm-7b-x0abcd-1-f7k2p
            LOCAL_WORLD_SIZE=8
            MASTER_ADDR=10.2.0.4
            MASTER_PORT=7501
            MOSAICML_LOG_DIR=/databricks/customer-logs
            MOSAICML_PLATFORM=true
            NODE_RANK=1
            NUM_NODES=2
            POD_RANK=1
            RUN_NAME=llm-7b-x0abcd
            WORLD_SIZE=16
        """),
        1,
        2,
        "torchrun-10.2.0.4-7501",
        "10.2.0.4",
        hostname="llm-7b-x0abcd-1-f7k2p",
        notes=(NOT_UNIQUE,),
    ),
    Recorded(
        "torch-env",
        "torch-env",
        "https://pytorch.org/docs/stable/distributed.html#environment-variable-initialization",
        {"MASTER_ADDR": "10.0.0.4", "MASTER_PORT": "29500", "RANK": "1", "WORLD_SIZE": "2"},
        1,
        2,
        "torch-10.0.0.4-29500",
        "10.0.0.4",
        notes=(NOT_UNIQUE,),
    ),
)

MPI_RECORDED = (
    Recorded(
        "openmpi-ssh",
        "openmpi",
        "recorded with Open MPI 4.1.4, mpirun over a remote shell",
        OPENMPI
        | SSH
        | variables("""
            OMPI_MCA_orte_parent_uri=704512000.0;tcp://10.77.0.1:55257
            OMPI_MCA_plm=rsh
            OMPI_MCA_routed=radix
        """),
        1,
        2,
        "openmpi-f918bbafb7c800f7-ed7628b99a829f1e",
        rendezvous="file",
        hostname="node-1",
    ),
    Recorded(
        "mpi-operator",
        "openmpi",
        "kubeflow/mpi-operator pkg/controller/mpi_job_controller.go, ompiEnvVars; sshd passes no pod's on",
        OPENMPI
        | SSH
        | variables("""
            OMPI_MCA_orte_default_hostfile=/etc/mpi/hostfile
            OMPI_MCA_orte_keep_fqdn_hostnames=true
            OMPI_MCA_plm_rsh_args=-o ConnectionAttempts=10
        """),
        1,
        2,
        "openmpi-f918bbafb7c800f7-ed7628b99a829f1e",
        rendezvous="file",
        hostname="ray-worker-1",
        files=pod_hosts("ray-worker-1", "ray.default.svc.cluster.local"),
    ),
    Recorded(
        "slurm-openmpi",
        "openmpi",
        "recorded with Slurm 22.05.8 and Open MPI 4.1.4, mpirun in an sbatch script",
        DAEMONS | OPENMPI,
        1,
        2,
        "openmpi-f918bbafb7c800f7-ed7628b99a829f1e",
        rendezvous="file",
        hostname="node-1",
    ),
    Recorded(
        "pbs-openmpi",
        "openmpi",
        "orte/mca/plm/tm/plm_tm_module.c: the daemons have mpirun's environment, the script's variables among it",
        PBS_SCRIPT | OPENMPI,
        1,
        2,
        "openmpi-f918bbafb7c800f7-ed7628b99a829f1e",
        rendezvous="file",
        hostname="x1002",
        files=PBS_FILE,
    ),
    Recorded(
        "pals-openmpi",
        "openmpi",
        "openpmix/prrte src/mca/plm/pals: PALS starts the daemons, which pass its variables on",
        PBS_SCRIPT | PALS | {"PALS_NODEID": "0", "PALS_RANKID": "0"} | OPENMPI,
        1,
        2,
        "openmpi-f918bbafb7c800f7-ed7628b99a829f1e",
        rendezvous="file",
        hostname="x1002",
        files=PBS_FILE,
    ),
    Recorded(
        "hydra-ssh",
        "hydra",
        "recorded with MPICH 4.0.2, mpiexec over a remote shell",
        HYDRA | SSH,
        1,
        2,
        "job-17",
        rendezvous="file",
        hostname="node-1",
        options={"run_id": "job-17"},
    ),
    Recorded(
        "slurm-hydra",
        "hydra",
        "recorded with Slurm 22.05.8 and MPICH 4.0.2, mpiexec in an sbatch script, whose variables win over srun's",
        SRUN | HYDRA | {"SLURMD_NODENAME": "node-0", "SLURM_GTIDS": "0", "SLURM_TOPOLOGY_ADDR": "node-0"},
        1,
        2,
        "slurm-3",
        rendezvous="file",
        hostname="node-1",
        notes=(NOT_UNIQUE,),
    ),
    Recorded(
        "pbs-intelmpi",
        "hydra",
        "Intel MPI's Hydra over ssh passes mpirun's environment on; the same names in huggingface/accelerate",
        PBS_SCRIPT
        | HYDRA
        | SSH
        | variables("""
            I_MPI_HYDRA_BOOTSTRAP=ssh
            I_MPI_MPIRUN=mpirun
            I_MPI_ROOT=/opt/intel/oneapi/mpi/2021.15
        """),
        1,
        2,
        "pbs-1234.pbs",
        rendezvous="file",
        hostname="x1002",
        files=PBS_FILE,
        notes=(NOT_UNIQUE,),
    ),
    Recorded(
        "mvapich-hydra",
        "mvapich",
        "MVAPICH2 2.3.7 src/pm/hydra/pm/pmiserv/pmip_cb.c",
        HYDRA
        | SSH
        | variables("""
            MV2_COMM_WORLD_LOCAL_RANK=0
            MV2_COMM_WORLD_LOCAL_SIZE=1
            MV2_COMM_WORLD_RANK=1
            MV2_COMM_WORLD_SIZE=2
        """),
        1,
        2,
        "job-17",
        rendezvous="file",
        hostname="node-1",
        options={"run_id": "job-17"},
    ),
    Recorded(
        "mvapich-mpirun-rsh",
        "mvapich",
        "MVAPICH2 2.3.7 src/pm/mpirun/mpispawn.c, setup_global_environment() and setup_local_environment()",
        SSH
        | variables("""
            MPIRUN_ID=24135
            MPIRUN_MPD=0
            MPIRUN_NPROCS=2
            MV2_COMM_WORLD_LOCAL_RANK=0
            MV2_COMM_WORLD_LOCAL_SIZE=1
            MV2_COMM_WORLD_RANK=1
            MV2_COMM_WORLD_SIZE=2
            MV2_NODE_ID=1
            MV2_NUM_NODES_IN_JOB=2
            PMI_ID=1
            PMI_PORT=node-1:41207
            USE_TOTALVIEW=0
        """),
        1,
        2,
        "job-17",
        rendezvous="file",
        hostname="node-1",
        options={"run_id": "job-17"},
    ),
)

BATCH_RECORDED = (
    Recorded(
        "slurm",
        "slurm",
        "recorded with Slurm 22.05.8",
        SRUN,
        1,
        2,
        "slurm-3.0",
        "node-0",
        rendezvous="slurm",
        hostname="node-1",
    ),
    Recorded(
        "slurm-pmi2-requeued",
        "slurm",
        "recorded with Slurm 22.05.8, srun --mpi=pmi2; SLURM_RESTART_COUNT by sbatch(1)",
        SRUN
        | variables("""
            PMI_FD=10
            PMI_JOBID=3.0
            PMI_RANK=1
            PMI_SIZE=2
            SLURM_MPI_TYPE=pmi2
            SLURM_RESTART_COUNT=1
        """),
        1,
        2,
        "slurm-3.0",
        "node-0",
        attempt=1,
        rendezvous="slurm",
        hostname="node-1",
    ),
    Recorded(
        "slurm-torchrun",
        "slurm",
        "srun --ntasks-per-node=1 torchrun --nproc-per-node=1 --no-python ray-bootstrap ...",
        SRUN | TORCHRUN,
        1,
        2,
        "slurm-3.0",
        "node-0",
        rendezvous="slurm",
        hostname="node-1",
        notes=("also matches torchrun",),
    ),
    Recorded(
        "flux",
        "flux",
        "flux-framework/flux-core doc/man7/flux-environment.rst and src/shell",
        FLUX,
        1,
        3,
        "flux-/ƒ2YPThUs",
        "tuolumne1001",
        hostname="tuolumne1002",
        programs={"flux": FLUX_R},
    ),
    Recorded(
        "flux-spectrum",
        "flux",
        "flux-core src/shell/lua.d/mpi/spectrum.lua (flux run -o mpi=spectrum)",
        FLUX
        | variables("""
            OMPI_COMM_WORLD_RANK=1
            OMPI_MCA_btl=self
            OMPI_MCA_coll_hcoll_enable=0
            OMPI_MCA_osc=pt2pt
            OMPI_MCA_pml=yalla
        """),
        1,
        3,
        "flux-/ƒ2YPThUs",
        "tuolumne1001",
        hostname="tuolumne1002",
        programs={"flux": FLUX_R},
    ),
    Recorded(
        "flux-cray-pals",
        "flux",
        "flux-framework/flux-coral2 src/shell/plugins/cray_pals.c (flux run -o pmi=cray-pals)",
        {name: value for name, value in FLUX.items() if not name.startswith("PMI_")}
        | variables("""
            PALS_APID=85312143360
            PALS_APINFO=/var/tmp/alice/jobtmp-1-ƒ2YPThUs/libpals_apinfo
            PALS_NODEID=1
            PALS_RANKID=1
            PALS_SPOOL_DIR=/var/tmp/alice/jobtmp-1-ƒ2YPThUs
            PMI_CONTROL_PORT=11998,11999
            PMI_SHARED_SECRET=6629298181938118656
        """),
        1,
        3,
        "flux-/ƒ2YPThUs",
        "tuolumne1001",
        hostname="tuolumne1002",
        programs={"flux": FLUX_R},
    ),
    Recorded(
        "pals-aurora",
        "pals",
        "Aurora's mpiexec, PALS_PMI=pmix: meta-pytorch/torchcomms#79, kokkos/kokkos#8889, ALCF user-guides docs/aurora",
        PBS_SCRIPT
        | PALS
        | variables("""
            PALS_PMI=pmix
            PMIX_NAMESPACE=8c3b5f0e-2f6c-4d4e-8f5a-0d7e6c5b4a39
            PMIX_RANK=1
        """),
        1,
        2,
        "pals-8c3b5f0e-2f6c-4d4e-8f5a-0d7e6c5b4a39",
        "x1001",
        hostname="x1002",
        files=PBS_FILE,
    ),
    Recorded(
        "pals-polaris",
        "pals",
        "Polaris' mpiexec, PALS_PMI=cray: ALCF user-guides docs/polaris/running-jobs/using-gpus.md",
        PBS_SCRIPT
        | PALS
        | variables("""
            PALS_PMI=cray
            PMI_CONTROL_PORT=10000
            PMI_LOCAL_RANK=0
            PMI_LOCAL_SIZE=1
            PMI_RANK=1
            PMI_SHARED_SECRET=6629298181938118656
            PMI_SIZE=2
        """),
        1,
        2,
        "pals-8c3b5f0e-2f6c-4d4e-8f5a-0d7e6c5b4a39",
        "x1001",
        hostname="x1002",
        files=PBS_FILE,
    ),
    Recorded(
        "jsrun",
        "jsrun",
        "lightning.ai LSFEnvironment (JSM_*); Spectrum MPI's OMPI_* as Summit's scripts read them",
        LSF
        | variables("""
            JSM_JSRUN_NO_WARN_OVERSUBSCRIBE=1
            JSM_NAMESPACE_LOCAL_RANK=0
            JSM_NAMESPACE_LOCAL_SIZE=1
            JSM_NAMESPACE_RANK=1
            JSM_NAMESPACE_SIZE=2
            LSB_HOSTS=batch1 h01n01 h01n02
            LSB_MCPU_HOSTS=batch1 1 h01n01 42 h01n02 42
            OMPI_COMM_WORLD_LOCAL_RANK=0
            OMPI_COMM_WORLD_LOCAL_SIZE=1
            OMPI_COMM_WORLD_RANK=1
            OMPI_COMM_WORLD_SIZE=2
            OMPI_COMM_WORLD_NODE_RANK=0
            PMIX_NAMESPACE=2
            PMIX_RANK=1
        """),
        1,
        2,
        "lsf-748.0",
        "h01n01",
        hostname="h01n02",
        files={"/home/alice/.lsbatch/1239206877.748.hostfile": "batch1\nh01n01\nh01n02\n"},
        notes=(NOT_UNIQUE,),
    ),
    Recorded(
        "lsf-blaunch",
        "lsf",
        "IBM's list of a job's variables; LSF_PM_* by RES (open-mpi/ompi orte/mca/ess/lsf/ess_lsf_module.c)",
        LSF | {"LSF_PM_SOCKFD": "5", "LSF_PM_TASKID": "2"},
        1,
        3,
        "lsf-748.0",
        "grid01",
        hostname="grid03.example",
        files=LSF_FILE,
        notes=(NOT_UNIQUE,),
    ),
    Recorded(
        "pbs-pbsdsh",
        "pbs",
        "openpbs/openpbs src/resmom/start_exec.c, start_process(); mom_comm.c, IM_JOIN_JOB",
        PBS_TASK,
        1,
        2,
        "pbs-1234.pbs",
        "x1001",
        hostname="x1002",
        files=PBS_FILE,
        notes=(NOT_UNIQUE,),
    ),
    Recorded(
        "oar-oarsh",
        "oar",
        "oar-team/oar sources/core/tools/{job_resource_manager_cgroups.pl,oarsh/oarsh_shell.in}",
        OAR,
        1,
        2,
        "oar-1234",
        "idpot1.grid",
        hostname="idpot5",
        files={"/tmp/oar_runtime/1234": "idpot1.grid\nidpot1.grid\nidpot5.grid\nidpot5.grid\n"},
        notes=(NOT_UNIQUE,),
    ),
    Recorded(
        "gridengine-qrsh",
        "gridengine",
        "Son of Grid Engine 8.1.9; the script has copied $PE_HOSTFILE, which lies on the first host alone",
        GRID_ENGINE,
        1,
        2,
        "gridengine-1.undefined",
        "node-1",
        hostname="node-0",
        files={"/home/alice/hosts.1": "node-1 1 all.q@node-1 UNDEFINED\nnode-0 1 all.q@node-0 UNDEFINED\n"},
        notes=(NOT_UNIQUE,),
    ),
)

CLOUD_RECORDED = (
    Recorded(
        "skypilot",
        "skypilot",
        "https://docs.skypilot.co/en/latest/running-jobs/environment-variables.html",
        SKYPILOT,
        1,
        2,
        "sky-2026-08-20-10-11-12-345678_train_2",
        "10.0.0.4",
    ),
    Recorded(
        "skypilot-kubernetes",
        "skypilot",
        "the same in a pod",
        POD | SKYPILOT | {"HOSTNAME": "train-2ea4-worker1"},
        1,
        2,
        "sky-2026-08-20-10-11-12-345678_train_2",
        "10.0.0.4",
        hostname="train-2ea4-worker1",
        files=pod_hosts("train-2ea4-worker1"),
    ),
    Recorded(
        "skypilot-slurm",
        "skypilot",
        "skypilot-org/skypilot sky/skylet/executor/slurm.py: the job's variables stay, the step's are unset",
        SBATCH | SKYPILOT,
        1,
        2,
        "sky-2026-08-20-10-11-12-345678_train_2",
        "10.0.0.4",
        hostname="node-1",
    ),
    Recorded(
        "dstack",
        "dstack",
        "dstackai/dstack runner/internal/runner/executor/executor.go, execJob()",
        DSTACK,
        1,
        2,
        "5e2c9d17-0000-4000-8000-00000000000a",
        "10.0.0.4",
        files={"/root/.dstack/mpi/hostfile": "10.0.0.4 slots=8\n10.0.0.5 slots=8\n"},
    ),
    Recorded(
        "dstack-kubernetes",
        "dstack",
        "the same in a pod, of dstack's Kubernetes backend",
        POD | DSTACK | {"HOSTNAME": "ray-1-0-x7p2q"},
        1,
        2,
        "5e2c9d17-0000-4000-8000-00000000000a",
        "10.0.0.4",
        hostname="ray-1-0-x7p2q",
        files={"/root/.dstack/mpi/hostfile": "10.0.0.4 slots=8\n10.0.0.5 slots=8\n"} | pod_hosts("ray-1-0-x7p2q"),
    ),
    Recorded(
        "beaker",
        "beaker",
        "allenai/beaker-gantry gantry/entrypoint.sh, gantry/commands/run.py (leader selection and host networking)",
        variables("""
            BEAKER_ASSIGNED_CPU_COUNT=31
            BEAKER_ASSIGNED_GPU_COUNT=8
            BEAKER_EXPERIMENT_ID=01K3AZ7Q0000000000000000EX
            BEAKER_JOB_ID=01K3AZ7R0000000000000000J1
            BEAKER_JOB_KIND=execution
            BEAKER_LEADER_REPLICA_HOSTNAME=jupiter-cs-aus-101.reviz.ai2.in
            BEAKER_LEADER_REPLICA_JOB_ID=01K3AZ7R0000000000000000J0
            BEAKER_LEADER_REPLICA_NODE_ID=01J5X0000000000000000000N0
            BEAKER_NODE_HOSTNAME=jupiter-cs-aus-102.reviz.ai2.in
            BEAKER_NODE_ID=01J5X0000000000000000000N1
            BEAKER_REPLICA_COUNT=2
            BEAKER_REPLICA_RANK=1
            BEAKER_RESULT_DATASET_ID=01K3AZ7S0000000000000000DS
            BEAKER_TASK_ID=01K3AZ7Q0000000000000000T0
            BEAKER_TOKEN=x
            BEAKER_WORKLOAD_ID=01K3AZ7Q0000000000000000EX
        """),
        1,
        2,
        "beaker-01K3AZ7R0000000000000000J0",
        "jupiter-cs-aus-101.reviz.ai2.in",
        hostname="jupiter-cs-aus-102.reviz.ai2.in",
    ),
    Recorded(
        "lepton",
        "lepton",
        "https://docs.nvidia.com/dgx-cloud/lepton/features/batch-job/predefined-env-vars",
        LEPTON,
        1,
        3,
        "lepton-env-job-98bw",
        "env-job-98bw-0.env-job-98bw-job-svc",
        rendezvous="dns",
        hostname="env-job-98bw-1",
        files=pod_hosts("env-job-98bw-1", "env-job-98bw-job-svc.ws-prod01awsuswest.svc.cluster.local"),
        notes=(NOT_UNIQUE,),
    ),
    Recorded(
        "lepton-template",
        "lepton",
        "https://docs.nvidia.com/dgx-cloud/lepton/features/batch-job/templates (Torchrun, MPI)",
        LEPTON
        | variables("""
            HOSTFILE=/tmp/hostfile.txt
            HOST_ADDRS=env-job-98bw-0.env-job-98bw-job-svc,env-job-98bw-1.env-job-98bw-job-svc
            HOST_IPS=10.244.0.4,10.244.1.7
            MASTER_ADDR=env-job-98bw-0.env-job-98bw-job-svc
            MASTER_IP=10.244.0.4
            MASTER_PORT=29400
            NGPUS=1
            NNODES=3
            NODE_RANK=1
            THIS_ADDR=env-job-98bw-1.env-job-98bw-job-svc
        """),
        1,
        3,
        "lepton-env-job-98bw",
        "env-job-98bw-0.env-job-98bw-job-svc",
        rendezvous="dns",
        hostname="env-job-98bw-1",
        files=pod_hosts("env-job-98bw-1", "env-job-98bw-job-svc.ws-prod01awsuswest.svc.cluster.local"),
        notes=(NOT_UNIQUE,),
    ),
    Recorded(
        "volcengine",
        "volcengine",
        "https://volcengine.com/docs/6459/75329",
        variables("""
            GLOO_SOCKET_IFNAME=eth0
            MLP_HOST=10.128.0.5
            MLP_IFNAME=eth0
            MLP_PRIMARY_HOST=192.168.0.5
            MLP_RACK_TOPO_FILE=/ml_platform/rack_topo
            MLP_ROLE=WORKER
            MLP_ROLE_INDEX=1
            MLP_TASK_ARGS=--key1 value1 --key2 value2
            MLP_TASK_CMD=python3 /root/code/main.py
            MLP_TASK_ID=t-20210924211641-nznsh
            MLP_TASK_IMAGE=cr-cn-beijing.ivolces/ml_platform/python:2.7_3.7
            MLP_TASK_NAME=mnist
            MLP_TASK_OWNER=username
            MLP_WORKER_0_HOST=10.128.0.4
            MLP_WORKER_0_PORT=9006
            MLP_WORKER_0_PRIMARY_HOST=192.168.0.4
            MLP_WORKER_1_HOST=10.128.0.5
            MLP_WORKER_1_PORT=9006
            MLP_WORKER_1_PRIMARY_HOST=192.168.0.5
            MLP_WORKER_ALL_HOSTS=10.128.0.4,10.128.0.5
            MLP_WORKER_ALL_PRIMARY_HOSTS=192.168.0.4,192.168.0.5
            MLP_WORKER_CPU=2
            MLP_WORKER_GPU=3
            MLP_WORKER_MEM=10240
            MLP_WORKER_NUM=2
            MLP_WORKER_RACK_RANK_INDEX=1
            MLP_WORKER_RACK_SW_ID=febd30c7302dda1fae1399fe0266930f
        """),
        1,
        2,
        "volcengine-t-20210924211641-nznsh",
        "10.128.0.4",
        hostname="t-20210924211641-nznsh-worker-1",
    ),
    Recorded(
        "sagemaker",
        "sagemaker",
        "https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-training-algo-running-container.html",
        SAGEMAKER,
        1,
        3,
        "sagemaker-ray-2026-08-20-06-27-15-511",
        "algo-1",
        hostname="ip-10-2-81-77.ec2.internal",
        files={SAGEMAKER_PATH: SAGEMAKER_SAMPLE},
        notes=(NOT_UNIQUE,),
    ),
    Recorded(
        "sagemaker-toolkit",
        "sagemaker",
        "aws/sagemaker-training-toolkit ENVIRONMENT_VARIABLES.md, environment.py; of eleven hosts algo-10 has rank 9",
        SAGEMAKER_TOOLKIT,
        9,
        11,
        "sagemaker-ray-2026-08-20-06-27-15-511",
        "algo-1",
        hostname="ip-10-2-81-77.ec2.internal",
        files=SAGEMAKER_FILE,
        notes=(NOT_UNIQUE,),
    ),
    Recorded(
        "sagemaker-mpi",
        "sagemaker",
        "aws/sagemaker-training-toolkit src/sagemaker_training/mpi.py, MasterRunner: mpirun over ssh",
        SAGEMAKER_TOOLKIT
        | OPENMPI
        | SSH
        | {"OMPI_COMM_WORLD_RANK": "9", "OMPI_COMM_WORLD_SIZE": "11", "PMIX_RANK": "9"},
        9,
        11,
        "sagemaker-ray-2026-08-20-06-27-15-511",
        "algo-1",
        hostname="ip-10-2-81-77.ec2.internal",
        files=SAGEMAKER_FILE,
        notes=(NOT_UNIQUE,),
    ),
    Recorded(
        "vertex",
        "vertex",
        "https://cloud.google.com/vertex-ai/docs/training/distributed-training; CLOUD_ML_JOB_ID by python-aiplatform",
        vertex(_POOLS),
        2,
        3,
        "vertex-5942175266485829632",
        "cmle-training-workerpool0-ab-0",
        hostname="cmle-training-workerpool1-ab-1-cd5sv",
        files=pod_hosts("cmle-training-workerpool1-ab-1-cd5sv"),
    ),
    Recorded(
        "vertex-with-reducers",
        "vertex",
        "the same page: the third pool has parameter servers or reducers",
        vertex(_POOLS | {"workerpool2": ["cmle-training-workerpool2-ab-0:2222"]}),
        2,
        3,
        "vertex-5942175266485829632",
        "cmle-training-workerpool0-ab-0",
        hostname="cmle-training-workerpool1-ab-1-cd5sv",
        files=pod_hosts("cmle-training-workerpool1-ab-1-cd5sv"),
    ),
    Recorded(
        "aws-batch",
        "aws-batch",
        "https://docs.aws.amazon.com/batch/latest/userguide/{job_env_vars,mnp-env-vars}.html; the third node is main",
        ECS
        | variables("""
            AWS_BATCH_CE_NAME=ce
            AWS_BATCH_JOB_ATTEMPT=2
            AWS_BATCH_JOB_ID=a7182d0e-7e9e-44a1-8417-3b7d8dac9a42#0
            AWS_BATCH_JOB_MAIN_NODE_INDEX=2
            AWS_BATCH_JOB_MAIN_NODE_PRIVATE_IPV4_ADDRESS=10.0.0.6
            AWS_BATCH_JOB_NODE_INDEX=0
            AWS_BATCH_JOB_NUM_NODES=3
            AWS_BATCH_JQ_NAME=queue
        """),
        1,
        3,
        "aws-batch-a7182d0e-7e9e-44a1-8417-3b7d8dac9a42",
        "10.0.0.6",
        attempt=2,
        hostname="ip-10-0-0-4.ec2.internal",
    ),
    Recorded(
        "aws-batch-eks",
        "aws-batch",
        "the same on Amazon EKS, in a pod",
        POD
        | variables("""
            AWS_BATCH_CE_NAME=ce
            AWS_BATCH_JOB_ATTEMPT=1
            AWS_BATCH_JOB_ID=a7182d0e-7e9e-44a1-8417-3b7d8dac9a42#1
            AWS_BATCH_JOB_KUBERNETES_NODE_UID=0d7a2c5e-0000-4000-8000-000000000009
            AWS_BATCH_JOB_MAIN_NODE_INDEX=0
            AWS_BATCH_JOB_MAIN_NODE_PRIVATE_IPV4_ADDRESS=10.0.0.4
            AWS_BATCH_JOB_NODE_INDEX=1
            AWS_BATCH_JOB_NUM_NODES=2
            AWS_BATCH_JQ_NAME=queue
            HOSTNAME=aws-batch.5b2e8f1c
        """),
        1,
        2,
        "aws-batch-a7182d0e-7e9e-44a1-8417-3b7d8dac9a42",
        "10.0.0.4",
        attempt=1,
        hostname="aws-batch.5b2e8f1c",
    ),
    Recorded(
        "azureml-mpi",
        "azureml",
        "Azure's azureml_adapter.py; https://microsoft.github.io/PyMarlin/docs/reference/utils/fabrics",
        AZUREML | OPENMPI | {"AZ_BATCHAI_MPI_MASTER_NODE": "10.0.0.4"},
        1,
        2,
        "azureml-dreamy_sun_x7f0q8z2",
        "10.0.0.4",
        notes=(NOT_UNIQUE,),
    ),
    Recorded(
        "azureml-no-distribution",
        "azureml",
        "microsoft/ray-on-aml src/ray_on_aml/core.py",
        AZUREML,
        1,
        2,
        "azureml-dreamy_sun_x7f0q8z2",
        "10.0.0.4",
        notes=(NOT_UNIQUE,),
    ),
    Recorded(
        "determined",
        "determined",
        "determined-ai/determined harness/determined/_info.py, master/pkg/tasks, agent/internal/containers/spec.go",
        DETERMINED,
        1,
        2,
        "determined-17.3f1c0c52-6a32-4c5c-9f0e-2d4e1c9a7b11.2",
        "10.0.0.4",
        attempt=2,
        files=DETERMINED_FILE,
    ),
    Recorded(
        "determined-kubernetes",
        "determined",
        "determined-ai/determined master/internal/rm/kubernetesrm/spec.go",
        POD
        | DETERMINED
        | variables("""
            DET_KUBERNETES_JOB_PARALLELISM=2
            DET_KUBERNETES_POD_IP=10.0.0.5
            DET_RESOURCES_TYPE=k8s-job
            HOSTNAME=exp-17-trial-23-x7p2q
        """),
        1,
        2,
        "determined-17.3f1c0c52-6a32-4c5c-9f0e-2d4e1c9a7b11.2",
        "10.0.0.4",
        attempt=2,
        hostname="exp-17-trial-23-x7p2q",
        files=DETERMINED_FILE | pod_hosts("exp-17-trial-23-x7p2q"),
    ),
    Recorded(
        "determined-slurm",
        "determined",
        "determined-ai/determined master/pkg/tasks/dispatcher_task.go: srun starts the containers",
        SRUN | DETERMINED | {"DET_LOCALTMP": "/tmp", "DET_RESOURCES_TYPE": "slurm-job", "DET_SLOT_TYPE": "cuda"},
        1,
        2,
        "determined-17.3f1c0c52-6a32-4c5c-9f0e-2d4e1c9a7b11.2",
        "10.0.0.4",
        attempt=2,
        hostname="node-1",
        files=DETERMINED_FILE,
    ),
)

# https://github.com/ray-project/kuberay v1.7.0 ray-operator/controllers/ray/common/pod.go, setContainerEnvVars()
KUBERAY = POD | variables("""
    FQ_RAY_IP=ray-head-svc.default.svc.cluster.local
    HOSTNAME=ray-cpu-worker-x7k2p
    KUBERAY_GEN_RAY_START_CMD=ray start  --address=ray-head-svc.default.svc.cluster.local:6379  --block  --num-cpus=1
    RAY_ADDRESS=ray-head-svc.default.svc.cluster.local:6379
    RAY_CLOUD_INSTANCE_ID=ray-cpu-worker-x7k2p
    RAY_CLUSTER_NAME=ray
    RAY_CLUSTER_NAMESPACE=default
    RAY_DASHBOARD_ENABLE_K8S_DISK_USAGE=1
    RAY_IP=ray-head-svc
    RAY_NODE_TYPE_NAME=cpu
    RAY_PORT=6379
    RAY_USAGE_STATS_KUBERAY_IN_USE=1
""")
ATTACHED_RECORDED = (
    Recorded(
        "kuberay-worker",
        "ray",
        "KubeRay's container of Ray, in which a shell was opened",
        KUBERAY,
        None,
        None,
        "job-17",
        "ray-head-svc.default.svc.cluster.local:6379",
        hostname="ray-cpu-worker-x7k2p",
        files=pod_hosts("ray-cpu-worker-x7k2p"),
        options={"run_id": "job-17"},
    ),
    Recorded(
        "kuberay-job",
        "ray",
        "the entrypoint of a RayJob, in the head's container: ray/dashboard/modules/job/job_supervisor.py, run()",
        {name: value for name, value in KUBERAY.items() if name not in ("FQ_RAY_IP", "RAY_IP")}
        | variables("""
            CUDA_VISIBLE_DEVICES=
            HOSTNAME=ray-head-8qwkz
            KUBERAY_GEN_RAY_START_CMD=ray start --head  --block  --dashboard-host=0.0.0.0  --num-cpus=0
            PYTHONUNBUFFERED=1
            RAY_ADDRESS=10.244.1.7:6379
            RAY_CLOUD_INSTANCE_ID=ray-head-8qwkz
            RAY_JOB_CONFIG_JSON_ENV_VAR={"runtime_env": {}, "metadata": {"job_submission_id": "ray-4bq7x"}}
            RAY_NODE_TYPE_NAME=headgroup
            RAY_USAGE_STATS_EXTRA_TAGS=kuberay_version=v1.7.0;kuberay_crd=RayJob
        """),
        None,
        None,
        "job-17",
        "10.244.1.7:6379",
        hostname="ray-head-8qwkz",
        files=pod_hosts("ray-head-8qwkz"),
        options={"run_id": "job-17"},
    ),
)

OPTION_RECORDED = (
    Recorded(
        "hostfile",
        "hostfile",
        "a loop of ssh over a list of addresses, as in THUDM/slime docs/en/get_started/quick_start.md",
        SSH,
        1,
        2,
        "job-17",
        "10.77.0.1",
        hostname="worker.example",
        files={"/shared/hosts": "10.77.0.1\n10.77.0.2\n"},
        own_addresses=("127.0.0.1", "10.77.0.2"),
        options={"hostfile": "/shared/hosts", "run_id": "job-17"},
    ),
)

RECORDED: tuple[Recorded, ...] = (
    *CLOUD_RECORDED,
    *KUBERNETES_RECORDED,
    *MPI_RECORDED,
    *BATCH_RECORDED,
    *TORCH_RECORDED,
    *ATTACHED_RECORDED,
    *OPTION_RECORDED,
)
