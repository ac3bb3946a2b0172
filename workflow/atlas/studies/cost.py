"""Estimate what a job needs: floating-point operations, bytes, and from these memory, time and disk.

A model of a few lines, whose constants are written out below; `benchmarks/resources.py` sets its numbers beside what
finished jobs took. It plans, and never decides a result: too little is asked for again with more, at each attempt.

Counts are those of the usual rules of thumb: a block of a transformer has 12 d² weights, a forward pass takes two
operations per weight and token, a training step three times a forward pass (Kaplan et al. 2020, section 2.1).
"""

from collections.abc import Sequence
from dataclasses import dataclass

# Operations a second that a job reaches at the least. One core with AVX512-bf16, on a machine that others used too,
# reached 129 GFLOP/s (harvest of SmolLM2-135M); one without takes a fifth. A data-centre GPU at a tenth of the
# 312 TFLOP/s of an A100.
CPU_FLOPS = 20e9
GPU_FLOPS = 30e12
# Bytes a second to and from a shared file system, which many jobs use at once.
DISK_BYTES = 100e6
# Importing torch and transformers on a cold file system, reading the configuration, three Python processes.
START_SECONDS = 120
# Runs vary; a job that is ended at its limit costs more than one that waits a little longer in the queue.
SAFETY = 3.0
# Python, torch, the libraries and their buffers.
BASE_MB = 2000
# Tokens a second that a job makes of text and packs; two threads reached 450,000 on a busy machine.
TOKENS_A_SECOND = 1e5
# Memory that packing takes, whatever the number of tokens (seen: 104 MB), and bytes of each token that are moved for
# it: text, the token file, and the file again for its fingerprint.
PACKING, PACKED_BYTES = 200e6, 24
# Bytes of columns that a job keeps of each token that it runs a model over: of a shard (seen: 41), and of a whole
# corpus where SAEs are trained in the same job.
SHARD_BYTES, STREAMED_BYTES = 48, 12
# Bytes of columns that a job keeps of each row: a training whether it counts, its norms and its place in the pool (9; a
# transcoder's 13), an evaluation all columns of what it judges (17 or 21).
TRAINED_BYTES, JUDGED_BYTES = 16, 24
# Rows on which the reading of a published SAE is audited.
AUDITED_ROWS = 4096
# Bytes of what is computed of a block of rows and all latents, or of latents and all others: 32 MiB each, ten at once.
LATENT_BLOCKS = 10 * 2**25
# Seconds of a training step on a GPU, however small: some hundred kernels are started one after the other.
GPU_STEP_SECONDS = 0.02
# Weights above this many bytes are taken to be run on a GPU, and by jobs of several cores.
LARGE_MODEL = 1e9
# Tokens of the largest vocabulary of the registered families (Gemma 3); the configuration does not say a model's own.
LARGEST_VOCABULARY = 262_144
# Times that embedding and head are in memory while they load: once, and in part as pages of the file.
VOCABULARY_COPIES = 1.5


@dataclass(frozen=True)
class ModelSize:
    """Sizes of a model that decide the cost of a forward pass."""

    n_layers: int
    d_model: int
    bytes_per_value: int
    vocabulary: int = LARGEST_VOCABULARY

    @property
    def weights(self) -> int:
        """Weights of all blocks; embedding and head are counted by `vocabulary_bytes`."""
        return 12 * self.n_layers * self.d_model**2

    @property
    def bytes(self) -> int:
        """Bytes of these weights."""
        return self.weights * self.bytes_per_value

    @property
    def vocabulary_bytes(self) -> int:
        """Bytes of an embedding and of a head of its own."""
        return 2 * self.vocabulary * self.d_model * self.bytes_per_value

    @property
    def is_large(self) -> bool:
        """Return whether jobs are planned for a GPU and several cores."""
        return self.bytes >= LARGE_MODEL

    @property
    def flops(self) -> float:
        """Operations a second that its jobs are planned with."""
        return GPU_FLOPS if self.is_large else CPU_FLOPS

    def forward(self, tokens: int) -> float:
        """Operations of a forward pass over `tokens`, all layers."""
        return 2.0 * self.weights * tokens


def minutes(flop: float, flops: float, moved_bytes: float, attempt: int, least: int = 10) -> int:
    """Time limit in minutes: work, reading and writing, with a margin; doubled, tripled at later attempts.

    `least` is for what grows with nothing that is counted here.
    """
    seconds = START_SECONDS + SAFETY * (flop / flops + moved_bytes / DISK_BYTES)
    return attempt * max(least, -(-int(seconds) // 60))


def training_minutes(n_latents: int, d_model: int, steps: int, batch_size: int, on_gpu: bool, attempt: int) -> int:
    """Time limit of a training that draws `steps` batches, each row read once.

    Small dictionaries on a CPU spend `training_flop`'s overhead a row, on a GPU at least the start of their kernels.
    """
    rows = steps * batch_size
    flops = GPU_FLOPS if on_gpu else CPU_FLOPS
    flop = max(training_flop(n_latents, d_model, rows), steps * GPU_STEP_SECONDS * flops if on_gpu else 0.0)
    return minutes(flop, flops, store_bytes(rows, d_model, 1), attempt)


def stream_seconds(
    size: ModelSize, tokens: int, trainings: Sequence[tuple[int, int, int]], on_gpu: bool
) -> tuple[float, float]:
    """Seconds of a forward pass over `tokens`, and of all trainings, which follow one another on one device.

    A training is (n_latents, steps, batch_size). Nothing is read from or written to a store.
    """
    flops = GPU_FLOPS if on_gpu else CPU_FLOPS
    updates = 0.0
    for n_latents, steps, batch_size in trainings:
        seconds = training_flop(n_latents, size.d_model, steps * batch_size) / flops
        updates += max(seconds, steps * GPU_STEP_SECONDS if on_gpu else 0.0)
    return size.forward(tokens) / size.flops, updates


def stream_minutes(
    size: ModelSize, tokens: int, trainings: Sequence[tuple[int, int, int]], on_gpu: bool, attempt: int
) -> int:
    """Time limit of a group that trains from one pass over `tokens`; see `stream_seconds`."""
    seconds = sum(stream_seconds(size, tokens, trainings, on_gpu))
    return minutes(seconds, 1.0, size.bytes, attempt)


def facts_bytes(tokens: int, n_hooks: int) -> int:
    """Bytes of a file of facts: columns of every row, and its norm at each hook."""
    return tokens * (13 + 4 * n_hooks)


def megabytes(used: float, attempt: int) -> int:
    """Memory in MB for `used` bytes beside the libraries; doubled, tripled at later attempts."""
    return int(attempt * (BASE_MB + used / 1e6))


def model_memory_mb(size: ModelSize, attempt: int, columns: int = 0) -> int:
    """Memory of a job that runs a model: its blocks' weights twice while they load, embedding, head, activations.

    Losses take chunks of logits of a few MB, whatever the vocabulary. `columns` are the bytes of what is kept of
    tokens. Seen: 994 MB for an audit with a vocabulary of 262,144, d_model 640, bfloat16, 336 MB of embedding.
    """
    weights = 2.5 * size.bytes + VOCABULARY_COPIES * size.vocabulary_bytes
    return megabytes(500e6 + weights + columns, attempt)


def fetching_memory_mb(values: int, attempt: int) -> int:
    """Memory of a job that brings and reads a published SAE with so many weights: as stored, in float32, checks."""
    return megabytes(3 * 4 * values, attempt)


def publishing_memory_mb(values: int, d_model: int, n_hooks: int, attempt: int) -> int:
    """Memory of a job that audits the reading of a published SAE, and writes it.

    The SAE as it is read and as it is written, another reading of it, sampled rows of all hooks, blocks of latents.
    """
    rows = 2 * 4 * AUDITED_ROWS * d_model * n_hooks
    return megabytes(4 * 4 * values + rows + LATENT_BLOCKS, attempt)


def evaluation_memory_mb(size: ModelSize, values: int, tokens: int, attempt: int) -> int:
    """Memory of a job that judges an SAE with so many weights on `tokens`: model, SAE, and a random one beside it.

    What grows with the latents besides is held a block at a time: rows times latents, and latents times latents.
    """
    used = 2 * 4 * values + JUDGED_BYTES * tokens + LATENT_BLOCKS
    return model_memory_mb(size, attempt) + int(attempt * used / 1e6)


def packing_memory_mb(attempt: int) -> int:
    """Memory of a job that packs tokens, which it writes block by block."""
    return megabytes(PACKING, attempt)


def packing_minutes(tokens: int, attempt: int) -> int:
    """Time limit of a job that tokenises and packs so many tokens."""
    return minutes(tokens, TOKENS_A_SECOND, PACKED_BYTES * tokens, attempt)


def store_bytes(tokens: int, d_model: int, n_hooks: int, bytes_per_value: int = 2) -> int:
    """Bytes of an activation file: one row a token and hook; tokens, documents, positions and norms come to 24 more."""
    return tokens * n_hooks * (d_model * bytes_per_value + 24)


def dictionary_values(n_latents: int, d_model: int) -> int:
    """Weights of an SAE's encoder and decoder."""
    return 2 * n_latents * d_model


def cosines_flop(values: int, n_latents: int, n_nulls: int) -> float:
    """Operations of the cosines of all pairs of decoder rows: of an SAE, the random one beside it, and the nulls."""
    return (2 + n_nulls) * 0.5 * values * n_latents


def training_flop(n_latents: int, d_model: int, rows: int) -> float:
    """Operations of a training on `rows`: forward and backward through dense encoder and decoder.

    Sparse decoders take less. 5e6 operations a row stand for what small dictionaries spend beside the products.
    """
    return rows * (6.0 * dictionary_values(n_latents, d_model) + 5e6)
