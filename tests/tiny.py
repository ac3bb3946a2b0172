"""Tiny random models with tokenizers, saved as a local model folder would be: shared by all test folders.

Each is large enough to have structure (several blocks, weights wide enough that a block matters to the output)
and small enough that a forward pass takes a millisecond.
"""

import copy
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertModel,
    LlamaConfig,
    LlamaForCausalLM,
    NemotronHConfig,
    NemotronHForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from atlas.config.data import Model
from atlas.models.load import LoadedModel, load_model
from atlas.models.prepare import prepare_model

SPECIALS = ["<pad>", "<s>", "</s>", "<mask>", "<|user|>", "<|assistant|>"]
VOCABULARY = len(SPECIALS) + 256
CHAT_TEMPLATE = "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}</s>{% endfor %}"
# Random weights of the usual 0.02 make blocks that change almost nothing; these make every block matter.
WEIGHT_SCALE = 0.2
LETTERS = "abcdefghijklmnopqrstuvwxyz "
_KNOWN = 4.0


def tiny_llama(folder: Path, seed: int = 0, **overrides) -> Path:
    """Llama of 4 blocks, d_model 32, float32; `overrides` are fields of LlamaConfig. Returns `folder`."""
    fields = dict(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        initializer_range=WEIGHT_SCALE,
        **_special_ids(),
    )
    torch.manual_seed(seed)
    return _save(LlamaForCausalLM(LlamaConfig(**(fields | overrides))), folder, tiny_tokenizer())


def tiny_bert(folder: Path, seed: int = 0, objective: str = "embedding", **overrides) -> Path:
    """BERT of 3 blocks, d_model 32, float32, with the head of `objective`. Returns `folder`."""
    fields = dict(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=512,
        initializer_range=WEIGHT_SCALE,
        num_labels=3,
        **_special_ids(),
    )
    heads = {
        "embedding": BertModel,
        "masked_lm": BertForMaskedLM,
        "sequence_classification": BertForSequenceClassification,
    }
    torch.manual_seed(seed)
    return _save(heads[objective](BertConfig(**(fields | overrides))), folder, tiny_tokenizer(frame=True))


def tiny_nemotron_h(folder: Path, seed: int = 0, **overrides) -> Path:
    """Hybrid of 4 blocks (Mamba, MLP, attention, Mamba), d_model 32, float32. Returns `folder`."""
    fields = dict(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        layers_block_type=["linear_attention", "mlp", "full_attention", "linear_attention"],
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        ssm_state_size=8,
        mamba_num_heads=4,
        mamba_head_dim=16,
        n_groups=2,
        chunk_size=16,
        max_position_embeddings=512,
        initializer_range=WEIGHT_SCALE,
        **_special_ids(),
    )
    torch.manual_seed(seed)
    return _save(NemotronHForCausalLM(NemotronHConfig(**(fields | overrides))), folder, tiny_tokenizer())


def tiny_tokenizer(frame: bool = False) -> PreTrainedTokenizerFast:
    """One token per byte: any text survives a round trip. With `frame`, texts are put between <s> and </s>."""
    symbols = SPECIALS + sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={symbol: index for index, symbol in enumerate(symbols)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    if frame:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        cls_token="<s>" if frame else None,
        sep_token="</s>" if frame else None,
        mask_token="<mask>" if frame else None,
        additional_special_tokens=["<|user|>", "<|assistant|>"],
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def describe_model(folder: Path, n_layers: int, **fields) -> Model:
    """A config row for the tiny model in `folder`; `fields` are keys of the row."""
    known = {
        "source": {"kind": "path", "path": str(folder), "licence": "CC0-1.0"},
        "dtype": "float32",
        "n_layers": n_layers,
        "d_model": 32,
        "hooks": ["resid_post.0"],
        "harvest": {"context_length": 8, "train_tokens": 8, "eval_tokens": 8},
    }
    return Model.model_validate(known | fields)


def prepare_and_load(source: Path, target: Path, n_layers: int, **fields) -> LoadedModel:
    """What the workflow does with a model: prepare `source` into `target`, then load that on the CPU."""
    row = describe_model(source, n_layers, **fields)
    prepare_model(source.name, row, None, target, target.parent / "lock.yaml")
    return load_model(target, torch.device("cpu"))


def _special_ids() -> dict[str, int]:
    return {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


def _save(model: PreTrainedModel, folder: Path, tokenizer: PreTrainedTokenizerFast) -> Path:
    folder = Path(folder)
    _teach_letters(model.eval(), tokenizer)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@torch.no_grad()
def _teach_letters(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    """What the model knows: text is of small letters and spaces. Its loss on such text is below that of a guess.

    Only the head is changed, by a row that adds the same to the logit of each, whatever comes before.
    """
    head = model.get_output_embeddings()
    letters = torch.tensor(tokenizer(LETTERS, add_special_tokens=False).input_ids)
    if head is None or model.config.vocab_size <= int(letters.max()):
        return
    if head.bias is not None:
        head.bias[letters] += _KNOWN
        return
    if head.weight is model.get_input_embeddings().weight:
        return
    text = letters[torch.randint(len(letters), (16, 64), generator=torch.Generator().manual_seed(0))]
    # In float64 and then rounded: the same weights in every process, whatever its kernels and threads.
    hidden = copy.deepcopy(model.base_model).double()(text).last_hidden_state.flatten(0, 1)
    constant = torch.linalg.lstsq(hidden, torch.ones(len(hidden), 1).double()).solution[:, 0]
    head.weight[letters] += _KNOWN * (constant * 1024).round().div(1024).to(head.weight.dtype)
