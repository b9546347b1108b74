"""Serve a text model over HTTP: FastAPI in front, replicas that come and go with the load, on all nodes of the cluster.

    ray-bootstrap -- python examples/serve_text.py                             a laptop, or all pods of a Kubernetes Job
    srun --ntasks-per-node=1 ray-bootstrap -- python examples/serve_text.py    Slurm
    curl -X POST http://HEAD:8000/text/simple-gen -H 'Content-Type: application/json' -d '{"input": "the ray"}'

The model is made on the spot, of the text below; a real one would be loaded in ``__init__``, once per replica.
KubeRay's RayService imports ``app`` (k8s/overlays/kuberay/service).
"""

import collections
import os
import random
import signal

from fastapi import FastAPI
from pydantic import BaseModel
from ray import serve

TEXT = """
the ray of light meets the sea and the sea gives back the light to the sky and the sky sends a ray of rain to the sea
"""
http = FastAPI(title="text")
# No postponed annotations here: FastAPI could not look `Prompt` up in a class that Ray has pickled.


class Prompt(BaseModel):
    """The beginning of a text."""

    input: str
    words: int = 8


@serve.deployment(
    ray_actor_options={"num_cpus": 0.1},
    autoscaling_config={"min_replicas": 1, "max_replicas": 4, "target_ongoing_requests": 8},
)
@serve.ingress(http)
class Text:
    """A first-order Markov chain over words."""

    def __init__(self) -> None:
        words = TEXT.split()
        self.followers: dict[str, list[str]] = collections.defaultdict(list)
        for word, follower in zip(words, words[1:] + words[:1], strict=True):
            self.followers[word].append(follower)

    @http.post("/text/simple-gen")
    def simple_gen(self, prompt: Prompt) -> dict[str, str]:
        """The prompt and what is likely to follow; the same for the same prompt."""
        dice = random.Random(prompt.input)
        words = prompt.input.split() or ["the"]
        for _ in range(prompt.words):
            words.append(dice.choice(self.followers.get(words[-1], ["the"])))
        return {"text": " ".join(words)}


app = Text.bind()


def main() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})  # until sigwait, so that none is missed
    serve.start(http_options={"host": "0.0.0.0", "port": int(os.environ.get("PORT", "8000"))})
    serve.run(app, name="text")
    print("serving", flush=True)
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    serve.shutdown()


if __name__ == "__main__":
    main()
