"""Labels and scores of planted latents in a process of its own, which a test can kill.

python label_job.py FOLDER BASE_URL CONCURRENCY: replies are kept in FOLDER/replies; the result is printed as JSON.
"""

import json
import sys
import tempfile
from pathlib import Path

from label_scene import LabelScene

from atlas.autointerp.clients import ClientFiles, make_client
from atlas.autointerp.judge import judge_labels
from atlas.autointerp.prompts import detection, max_activation
from atlas.autointerp.protocol import Client
from atlas.autointerp.tools import LatentExamples, ScorerTools
from atlas.config.autointerp import LabelClient

CHOSEN = (0, 1, 2)
FEW = {"test_examples": 10, "random_negatives": 10, "hard_negatives": 10, "swaps": 1}


def label_and_score(client: Client) -> dict[str, list]:
    """What a model behind the client says of three latents."""
    with tempfile.TemporaryDirectory() as folder:
        scene = LabelScene(Path(folder), client=client, **FEW)
        examples = scene.examples()
        labels = max_activation([LatentExamples(own, ()) for own in examples.latents], scene.tools)
        scorer = detection(ScorerTools(scene.tools, None, None))
        judged = judge_labels(labels, examples, CHOSEN, scene.windows, scorer, scene.settings, samples=50, seed=0)
    return {"labels": labels, "scores": judged.rows.score.tolist()}


if __name__ == "__main__":
    spec = LabelClient(kind="openai", model="m", base_url=sys.argv[2], concurrency=int(sys.argv[3]))
    print(json.dumps(label_and_score(make_client(spec, ClientFiles(Path(sys.argv[1]) / "replies")))))
