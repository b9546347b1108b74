"""A training that goes on when a node is lost, or is stopped: it saves a checkpoint after each epoch.

    ray-bootstrap rehearse --nodes 3 --head-cpus 0 --num-cpus 2 --kill 2@workload+40s -- python examples/train_on.py
    ray-bootstrap rehearse --nodes 2 --stop 0@workload+40s -- python examples/train_on.py

The first loses one of two nodes that train, and goes on with the other; the second is preempted, and has saved. STORAGE
is a folder that all nodes see: started again, the training goes on after its last checkpoint there. WORKERS is how many
processes train (default 2), EPOCHS how long (default 30, of some 2 s).
"""

from __future__ import annotations

import os
import signal
import tempfile
from pathlib import Path

import ray
import torch
from ray import train
from ray.train import Checkpoint, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer, prepare_model


def fit_a_line(config: dict[str, int]) -> None:
    """Learn y = 3x - 1, from the last checkpoint on."""
    model = prepare_model(torch.nn.Linear(1, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    epoch = 0
    if (checkpoint := train.get_checkpoint()) is not None:
        with checkpoint.as_directory() as folder:
            saved = torch.load(Path(folder, "state.pt"))
        model.load_state_dict(saved["model"])
        epoch = saved["epoch"]
        print(f"goes on after epoch {epoch}", flush=True)
    while epoch < config["epochs"]:
        x = torch.rand(64, 1)
        loss = torch.nn.functional.mse_loss(model(x), 3 * x - 1)
        optimizer.zero_grad()
        loss.backward()  # Gloo averages the gradients of all workers here
        optimizer.step()
        epoch += 1
        with tempfile.TemporaryDirectory() as folder:
            first = train.get_context().get_world_rank() == 0
            if first:
                torch.save({"model": model.state_dict(), "epoch": epoch}, Path(folder, "state.pt"))
            train.report({"epoch": epoch}, checkpoint=Checkpoint.from_directory(folder) if first else None)


def main() -> None:
    ray.init(logging_level="warning")
    # A preemption: each epoch is saved already, so what is left is to say so, and to end in time. Ray has set a handler
    # of its own until here.
    signal.signal(signal.SIGTERM, lambda *_: (print("stopped; the last epoch is saved", flush=True), os._exit(0)))
    trainer = TorchTrainer(
        fit_a_line,
        train_loop_config={"epochs": int(os.environ.get("EPOCHS", "30"))},
        # Spread if there are nodes enough; after a loss two may share one.
        scaling_config=ScalingConfig(num_workers=int(os.environ.get("WORKERS", "2")), placement_strategy="SPREAD"),
        run_config=RunConfig(
            name="train-on",
            storage_path=os.environ.get("STORAGE", "/shared/train"),
            failure_config=FailureConfig(max_failures=3),
        ),
    )
    result = trainer.fit()
    print(f"trained to epoch {result.metrics['epoch']}", flush=True)


if __name__ == "__main__":
    main()
