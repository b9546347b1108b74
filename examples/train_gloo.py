"""A small training job over all nodes: one worker a node, gradients averaged by Gloo on CPUs, by NCCL on GPUs.

    ray-bootstrap -- python examples/train_gloo.py                             a laptop, or all pods of a Kubernetes Job
    srun --ntasks-per-node=1 ray-bootstrap -- python examples/train_gloo.py    Slurm

STORAGE names the folder for Ray Train's results; with several nodes one that all of them see.
"""

from __future__ import annotations

import os

import ray
import torch
from ray import train
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer, prepare_model


def fit_a_line() -> None:
    """Learn y = 3x - 1 from points that no two workers share."""
    rank = train.get_context().get_world_rank()
    torch.manual_seed(rank)
    model = prepare_model(torch.nn.Linear(1, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
    for _ in range(60):
        x = torch.rand(64, 1, device=next(model.parameters()).device)
        loss = torch.nn.functional.mse_loss(model(x), 3 * x - 1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    # All workers must have arrived at the same weights, or they did not train together.
    weight = next(model.parameters()).detach().clone()
    mean = weight.clone()
    torch.distributed.all_reduce(mean)
    mean /= torch.distributed.get_world_size()
    apart = (weight - mean).abs().max().item()
    if apart > 1e-6 or loss.item() > 0.2:
        raise RuntimeError(f"this did not train: loss {loss.item():.3f}, weights {apart:.1e} off the mean")
    train.report({"loss": loss.item()})


def main() -> None:
    ray.init(logging_level="warning")
    use_gpu = ray.cluster_resources().get("GPU", 0) > 0
    workers = sum(1 for node in ray.nodes() if node["Alive"])
    trainer = TorchTrainer(
        fit_a_line,
        torch_config=TorchConfig(backend="nccl" if use_gpu else "gloo"),
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=use_gpu, placement_strategy="STRICT_SPREAD"),
        run_config=RunConfig(storage_path=os.environ.get("STORAGE", "/tmp/ray-train")),
    )
    trainer.fit()  # raises what a worker raised
    print(f"trained on {workers} nodes")


if __name__ == "__main__":
    main()
