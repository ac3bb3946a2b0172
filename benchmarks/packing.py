"""Measure time and memory of making a token file, and of reading one shard of it, at growing numbers of tokens.

    python benchmarks/packing.py --million 4 16 64
    python benchmarks/packing.py --million 4 16 64 --library <another checkout>/workflow

Text is made up, 512 words a document, with a tokenizer that has one token a word: reading, packing and writing take the
time. `mb` is the peak of a process above what its imports took, without pages of files that the system may drop;
`mapped_mb` are those. A library of another commit is measured by the second call; compare within one hour.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

_WORDS = 512
_LENGTH, _SHARD = 1024, 1 << 18


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--million", type=int, nargs="+", default=[4, 16])
    parser.add_argument("--library", type=Path, default=Path(__file__).parents[1] / "workflow")
    parser.add_argument("--stage", choices=("write", "read"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    sys.path.insert(0, str(arguments.library))
    if arguments.stage:
        print(json.dumps(_stage(arguments.stage, arguments.folder, arguments.million[0] * 10**6)))
        return
    for million in arguments.million:
        with tempfile.TemporaryDirectory() as folder:
            _make(Path(folder), million * 10**6)
            for stage in ("write", "read"):
                call = [sys.executable, __file__, "--stage", stage, "--folder", folder, "--million", str(million)]
                done = subprocess.run(
                    [*call, "--library", str(arguments.library)], capture_output=True, text=True, check=False
                )
                if done.returncode:
                    sys.exit(done.stderr[-3000:])
                print(f"{million:>6} million tokens, {stage}: {done.stdout.splitlines()[-1]}", flush=True)


def _make(folder: Path, n_tokens: int) -> None:
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    from atlas.files import write_json

    words = [f"word{index}" for index in range(1000)]
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(["[SEP]", *words])}, "[SEP]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, sep_token="[SEP]").save_pretrained(folder)
    rng = np.random.default_rng(0)
    schema = pa.schema([("document_id", pa.string()), ("split", pa.string()), ("text", pa.string())])
    with pq.ParquetWriter(folder / "documents.parquet", schema) as writer:
        for first in range(0, n_tokens // _WORDS, 4096):
            drawn = rng.integers(0, len(words), (4096, _WORDS))
            texts = [" ".join([words[index] for index in row]) for row in drawn.tolist()]
            names = [f"{first + index:09d}" for index in range(4096)]
            writer.write_table(pa.table([names, ["train"] * 4096, texts], schema=schema))
    write_json(folder / "corpus.json", {"name": "made", "fingerprint": {"train": "made"}})


def _stage(stage: str, folder: Path, n_tokens: int) -> dict[str, float]:
    from atlas.activations.harvest import arrange_rows, shard_contexts
    from atlas.config.corpora import Corpus
    from atlas.config.data import Harvest, TokenBudget
    from atlas.corpora.tokens import read_tokens, tokenise_corpus

    source = {"kind": "path", "path": "made", "licence": "made"}
    corpus = Corpus.model_validate({"source": source, "format": "txt", "template": "plain"})
    n_tokens = n_tokens // _SHARD * _SHARD
    budget = {"context_length": _LENGTH, "train_tokens": n_tokens, "eval_tokens": _LENGTH}
    before = _status()
    with _Peak() as peak:
        started = time.perf_counter()
        if stage == "write":
            tokenise_corpus(folder, folder, corpus, TokenBudget(**budget), ["train"], folder / "tokens.h5")
        else:
            harvest = Harvest(**budget, shard_tokens=_SHARD, batch_contexts=1)
            split = read_tokens(folder / "tokens.h5", "train")
            arrange_rows(split, shard_contexts(split, 1, harvest), 1)
        seconds = time.perf_counter() - started
    anonymous, mapped = (max(each) - start for each, start in zip(zip(*peak.seen, strict=True), before, strict=True))
    return {"s": round(seconds, 2), "mb": round(anonymous / 1e3), "mapped_mb": round(mapped / 1e3)}


class _Peak:
    """Watches the memory of this process every few milliseconds."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, int]] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> "_Peak":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.005):
            self.seen.append(_status())
        self.seen.append(_status())


def _status() -> tuple[int, int]:
    """KiB that only this process has, and KiB of mapped files."""
    found = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":\t" in line)
    return int(found["RssAnon"].split()[0]), int(found["RssFile"].split()[0])


if __name__ == "__main__":
    main()
