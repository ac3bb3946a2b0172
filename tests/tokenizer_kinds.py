"""Small tokenizers of every kind: SentencePiece (Llama 2, Mistral, T5), WordPiece, and words alone."""

import json

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

SENTENCE = "the cat sat on the mat and was happy"
NINE = SENTENCE.split()
# Of vocabularies that were trained on words, a few more, so that a word has several tokens.
CORPUS = [
    *[SENTENCE] * 20,
    "profit rose",
    "unhappy",
    "matting 3.5% $1.2 .",
    "Profit rose 3.5% to $1.2 billion at Acme.",
]
SPECIALS = ["<unk>", "<s>", "</s>"]
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


def sentencepiece(kind: str) -> Tokenizer:
    """BPE with byte fallback: the spaces are of the normaliser (Llama 2) or of the pre-tokenizer (newer Mistral)."""
    backend = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    trainer = trainers.BpeTrainer(vocab_size=420, special_tokens=SPECIALS + BYTES, show_progress=False)
    backend.train_from_iterator(CORPUS, trainer)
    if kind == "llama":
        backend.pre_tokenizer = None
        backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        backend.decoder = decoders.Sequence(parts)
    else:
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
        parts = [decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="first"), decoders.Fuse()]
        backend.decoder = decoders.Sequence(parts)
    saved = json.loads(backend.to_str())
    saved["added_tokens"] = [token for token in saved["added_tokens"] if token["content"] in SPECIALS]
    return Tokenizer.from_str(json.dumps(saved))  # bytes are entries of the vocabulary, not special tokens


def unigram() -> Tokenizer:
    """As in T5."""
    pieces = [*SPECIALS, "▁", *(f"▁{word}" for word in sorted(set(NINE))), *"abcdefghijklmnopqrstuvwxyz"]
    backend = Tokenizer(models.Unigram([(piece, -float(n)) for n, piece in enumerate(pieces)], unk_id=0))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    return backend


def wordpiece() -> Tokenizer:
    words = [*SPECIALS, *sorted(set(NINE)), "##ing", "un", *(f"##{n}" for n in range(120))]
    backend = Tokenizer(models.WordPiece({word: n for n, word in enumerate(words)}, unk_token="<unk>"))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.BertPreTokenizer(), decoders.WordPiece()
    return backend


def word_level() -> Tokenizer:
    words = [*SPECIALS, *sorted(set(NINE))]
    backend = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return backend


KINDS = {
    "llama": lambda: sentencepiece("llama"),
    "mistral": lambda: sentencepiece("mistral"),
    "unigram": unigram,
    "wordpiece": wordpiece,
    "word_level": word_level,
}


def pairs() -> Tokenizer:
    """Two letters in a token, counted from the beginning of the text."""
    return Tokenizer(models.BPE({"a": 0, "aa": 1}, [("a", "a")]))
