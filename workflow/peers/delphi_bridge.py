"""Delphi's own explainer and scorers, with repairs, asking the language model of the process that started this one.

A plain script for Delphi's environment (see peer_job.py):

    ENVIRONMENT/bin/python -I workflow/peers/delphi_bridge.py TASK.json

TASK has `task` (explain, detection, fuzzing), `items` and `concurrency`. An item of explain has `train`: examples with
`tokens` (texts of the tokens) and `activations`; its result is the explanation, null when there is none. An item of the
scorers has a `label`, `per_prompt`, and `examples` with `tokens` and `marks`, the tokens that are highlighted; its
result is a number per example: the probability of yes where it is known, else 1 or 0, and null where nothing could be
read. Lines of JSON go out on standard output, {"ask": n, "messages": …, "n_answers": …} and {"result": n, "value": …},
and come in on standard input: {"ask": n, "text": …, "probabilities": …}, text null for no reply.
"""

import asyncio
import importlib.machinery
import importlib.util
import json
import sys
import threading
import types
from pathlib import Path


class NoReplyError(Exception):
    """The other process has no reply to a request."""


def without_vllm():
    """Delphi imports its vLLM client with everything; here nothing uses it, and vLLM is not installed."""
    if importlib.util.find_spec("vllm") is None:
        offline = types.ModuleType("delphi.clients.offline")
        offline.__spec__ = importlib.machinery.ModuleSpec(offline.__name__, loader=None)
        offline.Offline = None
        sys.modules[offline.__name__] = offline


def bridge_client():
    """A Delphi client whose replies come from the other process."""
    from delphi.clients.client import Client, Response

    class Bridge(Client):
        def __init__(self, loop):
            super().__init__("bridge")
            self.loop, self.asked = loop, {}
            threading.Thread(target=self.listen, daemon=True).start()

        def listen(self):
            for line in sys.stdin:
                reply = json.loads(line)
                self.loop.call_soon_threadsafe(self.asked.pop(reply["ask"]).set_result, reply)

        async def generate(self, prompt, n_answers=0, **options):
            number = self.count = getattr(self, "count", 0) + 1
            # A reply that is kept can come, and be taken from `asked`, before `say` returns.
            answered = self.asked[number] = self.loop.create_future()
            say({"ask": number, "messages": prompt, "n_answers": n_answers})
            reply = await answered
            if reply["text"] is None:
                raise NoReplyError
            return Response(text=reply["text"], logprobs=reply["probabilities"])

    return Bridge


def repaired(scorer):
    """One of Delphi's classifiers, given its samples, with two repairs.

    A last batch shorter than n_examples_shown never parsed, for so many answers were expected: the number is now the
    batch's own. Highlights of negatives, which were always at one place, are given.
    """

    class Repaired(scorer):
        samples = ()

        def _prepare(self, record):
            return list(self.samples)

        async def _generate(self, explanation, batch):
            self.n_examples_shown = len(batch)
            self.generation_kwargs = {"n_answers": len(batch)}
            return await super()._generate(explanation, batch)

        async def _query(self, explanation, batches):
            # One batch at a time: the number of answers belongs to the scorer.
            return [result for batch in batches for result in await self._generate(explanation, batch)]

        def _parse_logprobs(self, logprobs):
            assert len(logprobs) == self.n_examples_shown
            return logprobs

        def _parse(self, string, logprobs=None):
            # A reply without probabilities is still a reply.
            return super()._parse(string, logprobs or None)

    return Repaired


async def explain(item, client):
    """DefaultExplainer's explanation; what it cannot parse is null, not a sentence that says so."""
    import torch
    from delphi.explainers import DefaultExplainer
    from delphi.latents import ActivatingExample, Latent, LatentRecord
    from delphi.latents.samplers import normalize_activations

    if not item["train"]:
        return None
    examples = [
        ActivatingExample(
            tokens=torch.zeros(len(each["tokens"])),
            activations=torch.tensor(each["activations"]),
            str_tokens=each["tokens"],
        )
        for each in item["train"]
    ]
    record = LatentRecord(Latent("latent", 0))
    record.train = normalize_activations(examples, max(example.max_activation for example in examples))
    try:
        found = (await DefaultExplainer(client)(record)).explanation
    except NoReplyError:
        return None
    return None if not found or found == "Explanation could not be parsed." else found


async def score(item, client, name):
    """Numbers of DetectionScorer or FuzzingScorer."""
    from delphi.latents import Latent, LatentRecord
    from delphi.scorers import DetectionScorer, FuzzingScorer
    from delphi.scorers.classifier.sample import ClassifierOutput, Sample, _highlight

    kind = {"detection": DetectionScorer, "fuzzing": FuzzingScorer}[name]
    scorer = repaired(kind)(client, n_examples_shown=item["per_prompt"], log_prob=True)
    scorer.samples = [
        Sample(
            text=_highlight(each["tokens"], each["marks"].__getitem__)
            if name == "fuzzing"
            else "".join(each["tokens"]),
            data=ClassifierOutput(each["tokens"], [], 0, False, prediction=None, probability=None),
        )
        for each in item["examples"]
    ]
    record = LatentRecord(Latent("latent", 0))
    record.explanation = item["label"]
    await scorer(record)
    answers = [sample.data for sample in scorer.samples]
    return [each.probability if each.probability is not None else number(each.prediction) for each in answers]


def number(prediction):
    """1 or 0, null for none."""
    return None if prediction is None else float(prediction)


def say(message):
    """One line of JSON."""
    sys.__stdout__.write(json.dumps(message) + "\n")
    sys.__stdout__.flush()


async def work(task):
    """All items, as many at once as the language model takes."""
    client = bridge_client()(asyncio.get_running_loop())
    free = asyncio.Semaphore(task["concurrency"])

    async def one(place, item):
        async with free:
            value = await (explain(item, client) if task["task"] == "explain" else score(item, client, task["task"]))
            say({"result": place, "value": value})

    await asyncio.gather(*(one(place, item) for place, item in enumerate(task["items"])))


def main(task_file):
    """Run a task; what libraries print goes to standard error."""
    sys.stdout = sys.stderr
    without_vllm()
    asyncio.run(work(json.loads(Path(task_file).read_text(encoding="utf-8"))))


if __name__ == "__main__":
    main(*sys.argv[1:])
