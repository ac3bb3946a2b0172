"""Names and constants of the activation format; docs/activation_format.md is the normative text."""

FORMAT = "sae-atlas-activations"
FORMAT_VERSION = 1

# Rows of one checksum. Small enough that a random batch verifies little more than it reads.
BLOCK_ROWS = 1024

# Per-row datasets shared by all hooks, and their NumPy types.
ROW_DATASETS = {"tokens": "uint32", "document": "int32", "position": "uint32", "counted": "uint8"}

# Attribute `contents` of a file that has no rows, only what is known of them.
FACTS = "facts"

# On-disk type of each storage dtype: NumPy has no bfloat16, so its bits are kept as uint16 (docs/activation_format.md).
DISK_TYPES = {"bfloat16": "uint16", "float32": "float32"}

# Attributes of the file that say what it is.
IDENTITY = (
    "model",
    "revision",
    "weights_sha256",
    "tokenizer_sha256",
    "corpus",
    "corpus_fingerprint",
    "split",
    "shard",
    "n_shards",
    "context_length",
    "batch_contexts",
    "storage_dtype",
    "shuffle_seed",
    "versions",
)
