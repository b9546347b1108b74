"""SageMaker training on two instances, with boto3:  python examples/launchers/sagemaker/launch.py.

Without ContainerArguments SageMaker runs the image with the argument `train`, which is the same as `-- train`: the
program of that name in the image. https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateTrainingJob.html
"""

import secrets
import time

import boto3

boto3.client("sagemaker").create_training_job(
    TrainingJobName=f"ray-{int(time.time())}",
    AlgorithmSpecification={
        "TrainingImage": "ACCOUNT.dkr.ecr.REGION.amazonaws.com/ray",
        "TrainingInputMode": "File",
        "ContainerArguments": ["--", "python", "train.py"],
    },
    Environment={"RAY_BOOTSTRAP_SECRET": secrets.token_hex()},
    RoleArn="arn:aws:iam::ACCOUNT:role/SageMakerRole",
    ResourceConfig={"InstanceType": "ml.p5.48xlarge", "InstanceCount": 2, "VolumeSizeInGB": 200},
    OutputDataConfig={"S3OutputPath": "s3://BUCKET/ray"},
    StoppingCondition={"MaxRuntimeInSeconds": 3600},
)
