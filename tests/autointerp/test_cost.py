"""What labelling costs is known before: from the settings, as many requests as are made then."""

import pytest
from label_scene import LabelScene
from project import make_project, read_config, snakemake, write_config

from atlas.autointerp.clients import WordsClient
from atlas.autointerp.cost import Cost, cost
from atlas.autointerp.judge import judge_labels
from atlas.autointerp.prompts import detection, max_activation
from atlas.autointerp.tools import LatentExamples, ScorerTools
from atlas.config.autointerp import Autointerp


class Counting(WordsClient):
    def __init__(self):
        self.asked = []

    def complete(self, request):
        self.asked.append(request)
        return super().complete(request)


def test_as_many_requests_as_were_estimated(tmp_path):
    client = Counting()
    asking = {"explainers": ("max_activation",), "scorers": ("detection",), "per_prompt": 7, "seeds": (0,)}
    scene = LabelScene(tmp_path, client=client, n_latents=5, swaps=2, **asking)
    examples = scene.examples()
    max_activation([LatentExamples(own, ()) for own in examples.latents], scene.tools)
    scorer = detection(ScorerTools(scene.tools, None, None, per_prompt=7))
    labels = [f"label {number}" for number in range(5)]
    judge_labels(labels, examples, range(5), scene.windows, scorer, scene.settings, samples=10, seed=0)
    estimated = cost(scene.settings, 5)
    assert estimated.requests == 2 * len(client.asked) == 2 * 5 * (1 + 4 * 22)  # two dictionaries; 150 windows by 7
    said = sum(len(content) for request in client.asked for _, content in request.messages) / 4
    assert estimated.tokens > 2 * said


def test_a_sample_and_few_latents_bound_the_cost():
    settings = Autointerp(explainers=("lexical",), scorers=("fuzzing",), client={"kind": "words"}, sample=4, swaps=10)
    assert cost(settings, 1200).requests == 2 * 4 * (1 + 3 + 1) * 30
    assert cost(settings, 1).requests == 2 * (1 + 1 + 1) * 30


def test_without_a_language_model_nothing_is_asked():
    assert cost(Autointerp(), 1200) == Cost()
    assert str(Cost()) == "asks no language model"


@pytest.mark.slow
def test_a_dry_run_says_it(tmp_path):
    folder = make_project(tmp_path, {"llama": "llama"})
    asking = {"scorers": ["detection"], "client": {"kind": "words"}, "sample": 3, "swaps": 1}
    write_config(folder, read_config(folder) | {"autointerp": asking})
    printed = snakemake(folder, "results/llama_study_autointerp.csv", "--dry-run")
    assert "labelling asks a language model at most 1,080 times" in printed  # two SAEs
    assert printed.count("seed 0: asks a language model at most 540 times, for about ") == 2
