"""Modal, which numbers containers in Python alone, hence by options:  modal run examples/launchers/on_modal.py.

https://modal.com/docs/sdk/py/latest/clustered
"""

import subprocess
import uuid

import modal

app = modal.App("ray")
image = modal.Image.from_registry("REGISTRY/my-image").entrypoint([]).add_local_file("train.py", "/root/train.py")


@app.function(image=image, gpu="H100:8", timeout=3600, secrets=[modal.Secret.from_name("ray-bootstrap")])
@modal.clustered(size=2, rdma=True)
def train(run: str) -> None:
    cluster = modal.Cluster.from_context()
    rank, addresses = cluster.container_rank(), cluster.container_ips(family="ipv4")
    node = [f"--rank={rank}", f"--nodes={len(addresses)}", f"--node-ip={addresses[rank]}", f"--run-id={run}"]
    subprocess.run(["ray-bootstrap", *node, f"--head-address={addresses[0]}", "--", "python", "train.py"], check=True)


@app.local_entrypoint()
def main() -> None:
    train.remote(f"modal-{uuid.uuid4()}")
