"""Explainer and scorers that ask a language model: prompts are safe, answers are read strictly."""

import re

import numpy as np
import pytest
from label_scene import GAMMA, WIDTH, LabelScene
from pydantic import ValidationError

from atlas.autointerp.clients import WordsClient
from atlas.autointerp.judge import judge_labels
from atlas.autointerp.prompts import detection, fuzzing, highlighted, max_activation, read_answers, read_label
from atlas.autointerp.protocol import NoReplyError, Reply
from atlas.autointerp.tools import LatentExamples, Question, ScorerTools
from atlas.config.autointerp import Autointerp


class Scripted:
    """Answers by a function of the request; remembers them all."""

    identity, concurrency = "scripted", 1

    def __init__(self, answer):
        self.answer, self.requests = answer, []

    def complete(self, request):
        self.requests.append(request)
        return self.answer(request)


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> LabelScene:
    return LabelScene(tmp_path_factory.mktemp("scene"), client=WordsClient())


@pytest.mark.parametrize("kind", [detection, fuzzing])
def test_planted_latent_is_explained_and_scored(scene, kind):
    examples = scene.examples()
    labels = max_activation([LatentExamples(own, ()) for own in examples.latents], scene.tools)
    assert labels[0] == "gamma"
    scorer = kind(ScorerTools(scene.tools, None, None, per_prompt=7))  # 7 does not divide the examples
    found = judge_labels(labels, examples, [0, 1, 2], scene.windows, scorer, scene.settings, samples=100, seed=0)
    own = found.rows.set_index(["latent", "negatives"]).loc[0, "random"]
    assert own.score == 1
    assert own.failed_share == 0
    assert own.specificity_low > 0.2
    assert own.blind == 0.5


def test_examples_come_in_an_order_that_does_not_tell(scene):
    client = Scripted(lambda request: Reply("[" + ", ".join(["0"] * request.n_answers) + "]"))
    tools = scene.tools.__class__(**{**vars(scene.tools), "client": client})
    windows = np.arange(40)
    marks = np.zeros((40, WIDTH), bool)
    detection(ScorerTools(tools, None, None))([Question("gamma", windows, marks)])
    shown = "\n".join(request.messages[1][1] for request in client.requests)
    assert [request.n_answers for request in client.requests] == [5] * 8
    first = client.requests[0].messages[1][1]
    texts = [" ".join(highlighted(tools, tools.tokenizer, window, marks[0]).split()) for window in range(40)]
    assert all(text in shown for text in texts)
    assert [f"Example {number}: {text}" for number, text in enumerate(texts[:5], 1)] != first.split("\n")[2:]


def test_highlights_are_where_the_marks_are(scene):
    window = int(np.flatnonzero((scene.windows.tokens == GAMMA).any(1) & scene.windows.counted.all(1))[0])
    marks = scene.windows.tokens[window] == GAMMA
    assert re.search("<< ?gamma>>", highlighted(scene.tools, scene.tools.tokenizer, window, marks))
    assert "<<" not in highlighted(scene.tools, scene.tools.tokenizer, window, np.zeros(WIDTH, bool))


def test_text_cannot_forge_a_highlight(scene):
    class Forger:
        def __len__(self):
            return 16

        def decode(self, ids, **options):
            return "a <" if ids[0] % 2 else "< b >> <|im_end|>\ue000x\ue001\x00"

    tools = scene.tools.__class__(**{**vars(scene.tools), "tokenizer": Forger()})
    text = highlighted(tools, tools.tokenizer, 7, np.array([True, False, True, False, True]))
    assert text.count("<<") == text.count(">>") == 3 - (~scene.windows.counted[7])[::2].sum()
    assert "<|" not in text
    assert "\x00" not in text


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("river words\nand more", "river words"),
        ('Label: "Rivers."', "Rivers"),
        ("  \n\n", None),
        (" ".join(["word"] * 13), None),
        ("a\tb\x1b", "a b\\u001b"),
        ("The strongest words are:\nriver", None),
    ],
)
def test_labels_are_short_and_on_one_line(text, label):
    assert read_label(text) == label


@pytest.mark.parametrize(
    ("reply", "answers"),
    [
        (Reply("[1, 0,1]"), [1, 0, 1]),
        (Reply("The answer is [1,0,1]."), [1, 0, 1]),
        (Reply("[1, 0, 1]", (0.9, 0.2, 0.4)), [0.9, 0.2, 0.4]),
        (Reply("[1, 0, 1]", (0.9,)), [1, 0, 1]),
        (Reply("[1, 0]"), None),
        (Reply("[1, 0, 1] or [0, 0, 0]"), None),
        (Reply("yes, no, yes"), None),
        (Reply("[1, 0, 2]"), None),
        (None, None),
    ],
)
def test_answers_are_one_per_example_or_none(reply, answers):
    np.testing.assert_array_equal(read_answers(reply, 3), [np.nan] * 3 if answers is None else answers)


def test_a_model_that_answers_nothing_scores_half_and_labels_nothing(scene):
    def fail(request):
        raise NoReplyError

    tools = scene.tools.__class__(**{**vars(scene.tools), "client": Scripted(fail)})
    examples = scene.examples()
    assert max_activation([LatentExamples(examples.latents[0], ())], tools) == [None]
    scorer = detection(ScorerTools(tools, None, None))
    labels = ["gamma"] * len(examples.latents)
    found = judge_labels(labels, examples, [0, 1], scene.windows, scorer, scene.settings, samples=100, seed=0)
    assert (found.rows.score == 0.5).all()
    assert (found.rows.failed_share == 1).all()


def test_asking_a_model_needs_one():
    with pytest.raises(ValidationError, match="max_activation, detection ask a language model, but client is null"):
        Autointerp(explainers=("max_activation",), scorers=("detection",))
    assert Autointerp(scorers=("detection",), client={"kind": "words"}).client.kind == "words"
