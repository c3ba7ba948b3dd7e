"""The command that a vLLM server is started with."""

import json
import shlex

from palate.llm.decoding.drafting import DraftConfig
from palate.llm.decoding.pools import DecodingConfig
from palate.llm.decoding.vllm import serve_command


def spoken(config: DecodingConfig) -> dict[str, object]:
    words = shlex.split(serve_command("a model", config))
    assert words[:3] == ["vllm", "serve", "a model"]
    return dict(json.loads(words[words.index("--speculative-config") + 1]))


def test_a_pool_is_suffix_decoding_and_none_is_prompt_lookup():
    drafts = DraftConfig(most=20, depth=9)
    found = spoken(DecodingConfig(drafts=drafts, most_tokens=5000))
    assert found["method"] == "suffix"
    assert (found["num_speculative_tokens"], found["suffix_decoding_max_tree_depth"]) == (20, 9)
    assert found["suffix_decoding_max_cached_requests"] == 50
    assert spoken(DecodingConfig(pool="none", drafts=drafts))["method"] == "ngram"
