"""The same drafts in a vLLM server, which has its own: what to start it with."""

from __future__ import annotations

import json
import shlex

from palate.llm.decoding.pools import DecodingConfig

_ANSWER = 100  # tokens, about


def serve_command(model: str, config: DecodingConfig) -> str:
    """`vllm serve` with drafts from the request's own text (`ngram`), or from all that it wrote before (`suffix`).

    vLLM verifies strictly and keeps one pool; `suffix` needs the package arctic-inference.
    """
    drafts = config.drafts
    if config.pool == "none":
        found = {
            "method": "ngram",
            "num_speculative_tokens": drafts.most,
            "prompt_lookup_max": 4,
            "prompt_lookup_min": 1,
        }
    else:
        found = {
            "method": "suffix",
            "num_speculative_tokens": drafts.most,
            "suffix_decoding_max_tree_depth": drafts.depth,
            "suffix_decoding_max_cached_requests": config.most_tokens // _ANSWER,
        }
    return f"vllm serve {shlex.quote(model)} --speculative-config {shlex.quote(json.dumps(found))}"
