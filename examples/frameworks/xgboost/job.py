"""Train XGBoost with Ray Train, one worker a node; each learns from its own half of the rows.

STORAGE names the folder for Ray Train's results; with several nodes one that all of them see.
"""

from __future__ import annotations

import os

import ray
import xgboost
from ray import train
from ray.train import RunConfig, ScalingConfig
from ray.train.xgboost import RayTrainReportCallback, XGBoostTrainer


def learn() -> None:
    frame = train.get_dataset_shard("train").materialize().to_pandas()
    rows = xgboost.DMatrix(frame[["x", "y"]], label=frame["sum"])
    xgboost.train({"nthread": 1}, rows, 10, evals=[(rows, "train")], callbacks=[RayTrainReportCallback()])


ray.init(logging_level="warning")
nodes = sum(1 for node in ray.nodes() if node["Alive"])
data = ray.data.from_items([{"x": x, "y": y, "sum": x + y} for x in range(50) for y in range(50)])
trainer = XGBoostTrainer(
    learn,
    datasets={"train": data},
    scaling_config=ScalingConfig(num_workers=nodes, placement_strategy="STRICT_SPREAD"),
    run_config=RunConfig(storage_path=os.environ.get("STORAGE", "/tmp/ray-train")),
)
error = trainer.fit().metrics["train-rmse"]
print(f"trained on {nodes} nodes, root mean square error {error:.2f}")
