"""The torch engine: a causal language model in transformers, batched, on CPU or GPU, with its inner states at hand."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from palate.data.dataset import FloatArray
from palate.errors import InputError
from palate.llm.adapters import adapter_hash
from palate.llm.decoding.pools import DecodingConfig, GroupOf, Pools
from palate.llm.decoding.rows import Beginning
from palate.llm.decoding.rules import rule_of
from palate.llm.decoding.speculative import Prompt, Written, decode
from palate.llm.decoding.store import tokenizer_digest
from palate.llm.packaged import default_model_path
from palate.llm.prices import Prices, bound_of
from palate.llm.prompts import defused
from palate.llm.request import Answer, Bound, Drafts, Request, Work
from palate.llm.torch_load import Dtype, loaded

if TYPE_CHECKING:
    from torch import Tensor

Told = dict[str, Any]  # fields of an answer


class TorchEngine:
    """Free text, one of a list of strings, and exact probabilities of options; no JSON Schema, no images.

    Args:
        path: A GGUF file (its weights are de-quantised) or a folder of transformers; None: the packaged SmolLM2.
        device: As torch names it; None: the first GPU, if there is one, else the CPU.
        batch_size: Requests computed together; options of one request count one each.
        dtype: Of the weights. bfloat16 halves what is read for a token, and on a CPU or GPU that computes in it drafts
            cost a third; its rounding hangs on how many tokens are computed together, so that strict is greedy up to
            ties in eight bits. `model` names it.
        adapter: A folder of LoRA weights in peft's format (`palate.models.finetune` writes them), merged into the
            model when it is loaded. Their hash is part of `model`: what a tuned model says is kept apart.
        decoding: Write with drafts from earlier answers (`palate.llm.decoding`); None: as transformers does. Answers
            of the relaxed mode differ from the model's own, and `model` says so.
        group_of: The group of a request, for pools by group (`palate.knowledge.draft_groups`).
        drafts: A folder that pools are read from, and written to by `close`.

    Raises:
        InputError: No such file or folder.
        EngineError: transformers is not installed, or cannot read the model.
    """

    name = "torch"

    def __init__(
        self,
        path: Path | str | None = None,
        device: str | None = None,
        batch_size: int = 16,
        dtype: Dtype = "float32",
        adapter: Path | str | None = None,
        decoding: DecodingConfig | None = None,
        group_of: GroupOf | None = None,
        drafts: Path | None = None,
    ) -> None:
        self.path = Path(path) if path is not None else default_model_path()
        if not self.path.exists():
            raise InputError("The language model does not exist.", where=str(self.path), hint="Check llm.model.")
        self.adapter = None if adapter is None else Path(adapter)
        self.model = self.path.stem if self.adapter is None else f"{self.path.stem}+{adapter_hash(self.adapter)}"
        if dtype != "float32":
            self.model += f"+{dtype}"
        if decoding is not None and decoding.mode == "relaxed":
            self.model += f"+relaxed-{decoding.rank}-{decoding.floor:g}"
        self._device, self._batch_size, self._dtype = device, batch_size, dtype
        self._decoding, self._group_of, self._drafts = decoding, group_of, drafts
        self._pools: Pools | None = None
        self._beginning = Beginning()
        self._network: Any = None
        self._tokenizer: Any = None
        self._ready: bool | None = None  # None: as loaded

    def bound(self, request: Request) -> Bound:
        return bound_of(request, Prices())

    def close(self) -> None:
        """Give the model's memory back. A later ask loads it again."""
        if self._pools is not None and self._drafts is not None:
            self._pools.save(self._drafts)
        self._pools = None
        self._network = self._tokenizer = self._ready = None
        self._beginning = Beginning()

    def ask(self, work: Work) -> Iterator[list[tuple[int, Answer]]]:
        while taken := work.take(self._batch_size):
            self._prepare()
            for group in _alike(taken):
                started = time.perf_counter()
                requests = [request for _, request in group]
                try:
                    found = self._choose(requests) if requests[0].options else self._generate(requests)
                except ValueError as problem:
                    found = [{"error": str(problem), "free": True}] * len(group)
                each = (time.perf_counter() - started) / len(group)
                told: Told = {"seconds": each, "model": self.model, "engine": self.name}
                yield [(number, Answer(**one, **told)) for (number, _), one in zip(group, found, strict=True)]

    @property
    def network(self) -> Any:
        """The transformers model as it was loaded, which the engine answers with from now on.

        Who trains it takes an engine of its own. Otherwise the engine makes ready what it loads (`palate.llm.packed`).
        """
        self._load()
        if self._ready:
            from palate.llm.packed import unpack

            unpack(self._network)
        self._ready = False
        return self._network

    @property
    def pools(self) -> Pools:
        """What drafts come from; empty until something was written. Only where `decoding` is set."""
        if self._decoding is None:
            raise InputError("This engine writes without drafts.", hint="Give it decoding=DecodingConfig().")
        if self._pools is None:
            self._load()
            self._pools = Pools(self._decoding, tokenizer_digest(self._tokenizer), self._group_of)
            if self._drafts is not None:
                self._pools.load(self._drafts)
        return self._pools

    def hidden_states(self, texts: Sequence[str], pooling: Literal["mean", "last"] = "mean") -> FloatArray:
        """The last layer's states of each text, float32 [n, d]: their mean, or that of the last token."""
        import torch

        self._prepare()
        parts = [np.zeros((0, self._network.config.hidden_size), dtype=np.float32)]
        for start in range(0, len(texts), self._batch_size):
            ids, mask = self.padded(
                [self._tokenizer(t).input_ids or [0] for t in texts[start : start + self._batch_size]]
            )
            with torch.inference_mode():
                states = self._network(ids, attention_mask=mask, output_hidden_states=True).hidden_states[-1].float()
            weights = mask.float()
            if pooling == "last":
                weights = torch.zeros_like(weights)
                weights[:, -1] = 1.0  # padding stands at the left
            pooled = (states * weights[:, :, None]).sum(1) / weights.sum(1, keepdim=True)
            parts.append(pooled.cpu().numpy())
        return np.concatenate(parts)

    def _choose(self, requests: Sequence[Request]) -> list[Told]:
        """log p(option | prompt), summed over its tokens, as shares of the options.

        Options that differ in their last token alone are read off one pass.
        """
        prompts = [self.prompt_tokens(request) for request in requests]
        options = [[self.tokens(option) for option in request.options or ()] for request in requests]
        stems = [list(dict.fromkeys(tuple(tokens[:-1]) for tokens in listed)) for listed in options]
        rows = [(p, list(stem)) for p, own in zip(prompts, stems, strict=True) for stem in own]
        passes = [
            one for i in _steps(rows, self._batch_size) for one in self._next_logs(rows[i : i + self._batch_size])
        ]
        found, place = [], 0
        for prompt, request, listed, own in zip(prompts, requests, options, stems, strict=True):
            logs = dict(zip(own, passes[place : place + len(own)], strict=True))
            place += len(own)
            sums = np.array([logs[tuple(tokens[:-1])][tokens[-1]] for tokens in listed])
            shares = np.exp(sums - sums.max())
            shares /= shares.sum()
            counts = {"tokens_in": sum(len(prompt) + len(stem) for stem in own), "tokens_out": 1}
            best = (request.options or ())[int(shares.argmax())]
            found.append({"text": best, "probabilities": tuple(shares.tolist()), "method": "exact", **counts})
        return found

    def _next_logs(self, rows: Sequence[tuple[list[int], list[int]]]) -> list[FloatArray]:
        """Of each prompt and beginning of an answer: log p of that beginning and then of each token, [vocabulary]."""
        import torch

        ids, mask = self.padded([prompt + stem for prompt, stem in rows])
        longest = max(len(stem) for _, stem in rows)
        with torch.inference_mode():
            logits = self._network(ids, attention_mask=mask, logits_to_keep=longest + 1).logits.float()
        logs = logits.log_softmax(-1).cpu().numpy()
        found = []
        for own, (_, stem) in zip(logs, rows, strict=True):
            said = sum(own[longest - len(stem) + place, token] for place, token in enumerate(stem))
            found.append(own[-1] + said)
        return found

    def _generate(self, requests: Sequence[Request]) -> list[Told]:
        """Requests of equal settings, as `_alike` groups them."""
        import torch

        if self._decoding is not None and not any(r.trie or r.logprobs for r in requests):
            return self._with_drafts(requests)
        first, end = requests[0], self._tokenizer.eos_token_id
        prompts = [self.prompt_tokens(request) for request in requests]
        ids, mask = self.padded(prompts)
        settings: dict[str, Any] = {"max_new_tokens": first.max_tokens, "do_sample": first.temperature > 0}
        if first.temperature > 0:
            torch.manual_seed(first.seed or 0)
            settings |= {"temperature": first.temperature, "top_p": first.top_p or 1.0}
        if first.trie is not None:
            allowed = [[*self.tokens(text), end] for text in first.trie]
            start = ids.shape[1]
            settings["prefix_allowed_tokens_fn"] = lambda _, so_far: _next(allowed, so_far[start:].tolist()) or [end]
        with torch.inference_mode():
            out = self._network.generate(
                ids, attention_mask=mask, pad_token_id=end, return_dict_in_generate=True, output_logits=True, **settings
            )
        written, logits = out.sequences[:, ids.shape[1] :], torch.stack(out.logits, 1)
        return [self._told(r, p, written[i], logits[i]) for i, (r, p) in enumerate(zip(requests, prompts, strict=True))]

    def _with_drafts(self, requests: Sequence[Request]) -> list[Told]:
        """Each by its own rule; what was written is learned from."""
        config, end = self.pools.config, self._tokenizer.eos_token_id
        prompts = []
        for number, request in enumerate(requests):
            rule = rule_of(config, request.temperature, request.top_p, (request.seed or 0) + number)
            tokens, drafter = self.prompt_tokens(request), self.pools.of(request)
            prompts.append(Prompt(tokens, rule, request.max_tokens, drafter, self._stopped(request)))
        written = decode(self._network, prompts, [] if end is None else [end], self._beginning)
        good = [i for i, one in enumerate(written) if one.error is None]
        self.pools.add([requests[i] for i in good], [written[i].tokens for i in good])
        return [
            self._drafted(request, prompt, one) for request, prompt, one in zip(requests, prompts, written, strict=True)
        ]

    def _drafted(self, request: Request, prompt: Prompt, one: Written) -> Told:
        if one.error is not None:
            return {"error": one.error, "free": True}
        mode = "sampled" if request.temperature > 0 else self.pools.config.mode
        told = self._text_of(request, prompt.tokens, one.tokens)
        return told | {"drafts": Drafts(mode, one.drafted, one.accepted, one.passes, one.unlike)}

    def _stopped(self, request: Request) -> Callable[[list[int]], bool]:
        if not request.stop:
            return lambda written: False
        return lambda written: any(stop in self._tokenizer.decode(written) for stop in request.stop)

    def _told(self, request: Request, prompt: list[int], written: Tensor, logits: Tensor) -> Told:
        tokens = written.tolist()
        told = self._text_of(request, prompt, tokens)
        if request.logprobs:
            n = tokens.index(self._tokenizer.eos_token_id) if self._tokenizer.eos_token_id in tokens else len(tokens)
            logs = logits[:n].float().log_softmax(-1)
            told["logprobs"] = tuple(self._likeliest(logs[k], tokens[k], request.logprobs) for k in range(n))
        return told

    def _text_of(self, request: Request, prompt: list[int], tokens: list[int]) -> Told:
        """Text up to the end or a stop, and counts."""
        end = self._tokenizer.eos_token_id
        ended = end in tokens
        n = tokens.index(end) if ended else len(tokens)
        text = self._tokenizer.decode(tokens[:n], skip_special_tokens=True)
        cuts = [text.index(stop) for stop in request.stop if stop in text]
        told = {"text": text[: min(cuts)] if cuts else text, "finish_reason": "stop" if ended or cuts else "length"}
        return told | {"tokens_in": len(prompt), "tokens_out": min(n + ended, len(tokens))}

    def _likeliest(self, logs: Tensor, chosen: int, n: int) -> tuple[tuple[str, float], ...]:
        top = [chosen, *(i for i in logs.topk(n).indices.tolist() if i != chosen)][:n]
        return tuple((self._tokenizer.decode([i]), float(logs[i])) for i in top)

    def prompt_tokens(self, request: Request) -> list[int]:
        """What the model reads for `request`, up to where its answer begins.

        Raises:
            ValueError: A request that this engine does not take.
        """
        if request.schema is not None or request.body is not None or any(m.images for m in request.messages):
            raise ValueError("this engine takes no JSON Schema, no raw bodies and no images")
        messages = [{"role": m.role, "content": defused(m.text)} for m in request.messages]
        self._load()
        text = self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return self.tokens(text)

    def answer_tokens(self, text: str) -> list[int]:
        """What the model writes to answer `text`: its tokens and the end of the turn."""
        self._load()
        return [*self.tokens(text), self._tokenizer.eos_token_id]

    def tokens(self, text: str) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=False).input_ids)

    def padded(self, rows: Sequence[list[int]]) -> tuple[Tensor, Tensor]:
        """Ids and mask [n, longest], padded at the left."""
        import torch

        longest = max(len(row) for row in rows)
        ids = torch.zeros(len(rows), longest, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for place, row in enumerate(rows):
            ids[place, longest - len(row) :], mask[place, longest - len(row) :] = torch.tensor(row), 1
        return ids.to(self._network.device), mask.to(self._network.device)

    def _load(self) -> None:
        if self._network is None:
            self._tokenizer, self._network = loaded(self.path, self._dtype, self._device, self.adapter)

    def _prepare(self) -> None:
        """Load it and, where it is on a CPU and nobody has it, lay its weights out for answering."""
        self._load()
        if self._ready is None:
            from palate.llm.packed import pack

            self._ready = self._network.device.type == "cpu" and pack(self._network)


def _alike(taken: Sequence[tuple[int, Request]]) -> Iterator[list[tuple[int, Request]]]:
    """Groups that can be computed together: choices, and generations of equal settings."""
    groups: dict[object, list[tuple[int, Request]]] = {}
    for number, request in taken:
        settings = (request.max_tokens, request.temperature, request.top_p, request.seed, request.trie)
        refused = request.schema is not None or request.body is not None or any(m.images for m in request.messages)
        key: object = number if refused else "choice" if request.options else settings
        groups.setdefault(key, []).append((number, request))
    yield from groups.values()


def _next(allowed: Sequence[list[int]], so_far: list[int]) -> list[int]:
    """Tokens that may follow `so_far`, so that one of the lists is kept to."""
    n = len(so_far)
    return sorted({tokens[n] for tokens in allowed if len(tokens) > n and tokens[:n] == so_far})


def _steps(rows: Sequence[object], size: int) -> range:
    return range(0, len(rows), size)
