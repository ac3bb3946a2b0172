# ruff: noqa: E402 - vLLM, which Delphi imports with everything, is replaced before the first import
"""What Delphi 0.1.3 does by itself, run in its own environment: the faults that ours is free of. Prints JSON."""

import asyncio
import importlib.machinery
import json
import sys
import types

offline = types.ModuleType("delphi.clients.offline")
offline.__spec__ = importlib.machinery.ModuleSpec(offline.__name__, loader=None)
offline.Offline = None
sys.modules[offline.__name__] = offline

import torch
from delphi.clients.client import Client, Response
from delphi.config import SamplerConfig
from delphi.explainers import DefaultExplainer
from delphi.latents import ActivatingExample, Latent, LatentRecord, NonActivatingExample
from delphi.latents.samplers import normalize_activations, sampler
from delphi.scorers import DetectionScorer, FuzzingScorer
from sklearn.metrics import roc_auc_score

WIDTH = 32


class No(Client):
    """Answers no to every example, as asked; to anything else, nothing useful."""

    def __init__(self):
        super().__init__("no")

    async def generate(self, prompt, **options):
        examples = prompt[-1]["content"].partition("Text examples:")[2].count("Example ")
        return Response(text=str([0] * examples) if examples else "no idea")


def record(n, generator):
    """Examples that are activated at one random place each, and silent ones."""
    found = LatentRecord(Latent("latent", 0))
    found.explanation = "anything"
    words = [f" w{i}" for i in range(WIDTH)]
    found.examples, found.not_active = [], []
    for number in range(n):
        values = torch.zeros(WIDTH)
        values[torch.randint(WIDTH, (1,), generator=generator)] = n - number
        tokens = torch.full((WIDTH,), number)
        found.examples.append(ActivatingExample(tokens, values, str_tokens=words))
        found.not_active.append(NonActivatingExample(tokens, torch.zeros(WIDTH), str_tokens=words, distance=-1))
    found.test = normalize_activations(list(found.examples), n)
    return found


class OneText:
    """As a tokenizer of transformers 5: ids in one dimension make one text."""

    def batch_decode(self, ids, **options):
        return "".join(map(str, ids.tolist())) if ids.ndim == 1 else [self.batch_decode(row) for row in ids]


def main():
    generator = torch.Generator().manual_seed(0)
    few = record(7, generator)
    few.not_active = []
    ragged = asyncio.run(DetectionScorer(No(), n_examples_shown=5)(few)).score
    many = record(200, generator)
    samples = FuzzingScorer(No())._prepare(many)
    marked = [sample.text.split("<<")[1].startswith(f" w{WIDTH - WIDTH // 4}") for sample in samples]
    truth = [not sample.data.activating for sample in samples]
    drawn = sampler(record(200, generator), SamplerConfig(n_examples_train=40, n_examples_test=50), OneText())
    train, test = ({int(each.tokens[0]) for each in part} for part in (drawn.train, drawn.test))
    few.train = few.test
    lost = asyncio.run(DefaultExplainer(No())(few)).explanation
    return {
        "answers_of_a_short_batch": sum(each.prediction is not None for each in ragged),
        "auc_of_the_highlighted_place": roc_auc_score(truth, marked),
        "train_and_test_overlap": len(train & test) / len(test),
        "tokens_as_one_text": isinstance(drawn.test[0].str_tokens, str),
        "explanation_of_nothing": lost,
    }


print("FOUND " + json.dumps(main()))
