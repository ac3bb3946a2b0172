"""A chat model in this process as a client: no server, no network, answers that always have the asked form."""

from pathlib import Path

import torch

from atlas.autointerp.protocol import Reply, Request
from atlas.autointerp.reasoning import end_of_open_thought, has_thought, without_thought
from atlas.chat_template import CHAT_DATE, uses_date, write_chat
from atlas.errors import EvaluationError
from atlas.models.load import load_model


class LocalModelClient:
    """A prepared causal model, greedy, that answers without thinking first where its template knows of thought.

    With choices, decoding is constrained: between the brackets of the list stands whichever choice is likelier, and the
    probability of the first choice among them is known for every answer.
    """

    concurrency = 1

    def __init__(self, folder: Path, device: torch.device):
        self.loaded = load_model(folder, device)
        known = self.loaded.identity
        if self.loaded.objective != "causal_lm" or not self.loaded.tokenizer.chat_template:
            raise EvaluationError(
                f"{folder}: a model of objective {self.loaded.objective!r}, chat template "
                f"{bool(self.loaded.tokenizer.chat_template)}, cannot answer prompts; name a chat model (causal_lm) in "
                "autointerp.client.model"
            )
        self.identity = f"local-1 {known['weights_sha256']} {known['tokenizer_sha256']} {known['dtype']}"
        self.identity += f" {CHAT_DATE}" if uses_date(self.loaded.tokenizer) else ""
        if "think" in str(self.loaded.tokenizer.chat_template).lower():
            self.identity += " without thought"

    @torch.inference_mode()
    def complete(self, request: Request) -> Reply:
        """The reply to a conversation; text beyond the model's context is an EvaluationError."""
        ids = self._ids(self._prompt(request))
        most = getattr(self.loaded.model.config, "max_position_embeddings", None)
        if most is not None and ids.shape[1] + request.max_tokens > most:
            raise EvaluationError(
                f"a prompt of {ids.shape[1]} tokens and {request.max_tokens} to answer exceed the {most} of "
                f"{self.loaded.identity['name']}: lower autointerp.per_prompt or train_examples"
            )
        return self._choose(ids, request) if request.choices else self._write(ids, request)

    def _prompt(self, request: Request) -> str:
        messages = [{"role": role, "content": content} for role, content in request.messages]
        written = write_chat(self.loaded.tokenizer, messages, add_generation_prompt=True, enable_thinking=False)
        end = end_of_open_thought(written)
        # As templates write an empty thought where thinking is switched off.
        return written if end is None else f"{written.rstrip()}\n\n{end}\n\n"

    def _write(self, ids: torch.Tensor, request: Request) -> Reply:
        tokenizer = self.loaded.tokenizer
        out = self.loaded.model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=request.max_tokens,
            do_sample=False,
            pad_token_id=tokenizer.eos_token_id,
        )
        own = out[0, ids.shape[1] :]
        cut = len(own) == request.max_tokens and own[-1].item() not in self._ends()
        return Reply(self._text(own), None, ids.shape[1], len(own), cut)

    def _text(self, ids: torch.Tensor) -> str:
        # Tags of thought are special tokens in some tokenizers: without them a thought would pass for an answer.
        whole = self.loaded.tokenizer.decode(ids)
        if not has_thought(whole):
            return self.loaded.tokenizer.decode(ids, skip_special_tokens=True)
        answer = without_thought(whole)
        for token in self.loaded.tokenizer.added_tokens_decoder.values():
            answer = answer.replace(token.content, "") if token.special else answer
        return answer.strip()

    def _ends(self) -> set[int]:
        """Tokens that end a reply."""
        ends = self.loaded.model.generation_config.eos_token_id
        ends = ends if isinstance(ends, list) else [ends]
        return {each for each in (*ends, self.loaded.tokenizer.eos_token_id) if each is not None}

    def _choose(self, ids: torch.Tensor, request: Request) -> Reply:
        options = torch.tensor([self._ids(choice)[0, -1].item() for choice in request.choices], device=ids.device)
        following, cache, probabilities, chosen = torch.cat([ids, self._ids("[")], dim=1), None, [], []
        for number in range(request.n_answers):
            out = self.loaded.model(following, past_key_values=cache, use_cache=True)
            cache = out.past_key_values
            shares = out.logits[0, -1].float()[options].softmax(0)
            probabilities.append(shares[0].item())
            chosen.append(request.choices[int(shares.argmax())])
            last = number == request.n_answers - 1
            following = self._ids(chosen[-1] + ("]" if last else ", "))
        return Reply(f"[{', '.join(chosen)}]", tuple(probabilities), ids.shape[1], 3 * request.n_answers)

    def _ids(self, text: str) -> torch.Tensor:
        # Special tokens of the template are meant; the text between them has none (atlas.autointerp.safe).
        ids = self.loaded.tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
        return ids.to(self.loaded.device)
