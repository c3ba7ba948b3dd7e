"""The local runtimes for a GGUF model on the same work: load, read, write, choose. One process, all cores.

    python benchmarks/local_llm.py

Palate's runtime (xllamacpp) always runs; llama-cpp-python and transformers run where they are installed. Each
answers the same twelve yes/no questions about the same item (the item is the shared beginning of the prompts), then
writes 64 tokens greedily. Figures are seconds and ratios to xllamacpp; results go to benchmarks/results/.
"""

from __future__ import annotations

import importlib.util
import json
import time
from collections.abc import Callable
from pathlib import Path

from palate.llm.engines.llama import LlamaEngine
from palate.llm.packaged import default_model_path
from palate.llm.request import ListedWork
from palate.testing import ask_user

ITEM = "Item: Toy Story (1995)\nToy Story, a film from 1995. Genres: Adventure, Animation, Children, Comedy.\n\n"
WORDS = ("atmospheric", "quirky", "surreal", "disturbing", "stylized", "bleak")
WORDS += ("tense", "funny", "satirical", "whimsical", "sad", "gritty")
QUESTIONS = [f"{ITEM}Question: Is this film {word}?" for word in WORDS]
WRITE = "Describe a lighthouse in a storm."
Timings = dict[str, float]


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def xllamacpp() -> Timings:
    engine = LlamaEngine()
    load = timed(lambda: engine.address)
    choose = timed(lambda: list(engine.ask(ListedWork(ask_user(q, options=("Yes", "No")) for q in QUESTIONS))))
    write = timed(lambda: list(engine.ask(ListedWork([ask_user(WRITE, max_tokens=64)]))))
    engine.close()
    return {"load": load, "choose": choose, "write": write}


def llama_cpp_python() -> Timings:
    from llama_cpp import Llama

    made: list[Llama] = []
    load = timed(
        lambda: made.append(Llama(str(default_model_path()), n_ctx=4096, logits_all=False, verbose=False, n_batch=512))
    )
    model = made[0]

    def ask(question: str) -> object:
        return model.create_chat_completion([{"role": "user", "content": question}], max_tokens=1, temperature=0)

    choose = timed(lambda: [ask(question) for question in QUESTIONS])
    write = timed(
        lambda: model.create_chat_completion([{"role": "user", "content": WRITE}], max_tokens=64, temperature=0)
    )
    return {"load": load, "choose": choose, "write": write}


def transformers() -> Timings:
    """Reads the same GGUF, de-quantised to float32; no prompt cache between questions, as its `generate` has none."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    path = default_model_path()
    made: list[tuple[AutoTokenizer, AutoModelForCausalLM]] = []

    def open_it() -> None:
        tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
        made.append((tokenizer, AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name)))

    load = timed(open_it)
    tokenizer, model = made[0]

    def ask(question: str, tokens: int) -> object:
        chat = f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
        ids = tokenizer(chat, return_tensors="pt").input_ids
        with torch.inference_mode():
            return model.generate(ids, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False)

    choose = timed(lambda: [ask(question, 1) for question in QUESTIONS])
    return {"load": load, "choose": choose, "write": timed(lambda: ask(WRITE, 64))}


def main() -> None:
    peers = {"xllamacpp": xllamacpp, "llama_cpp": llama_cpp_python, "transformers": transformers}
    found = {name: run() for name, run in peers.items() if importlib.util.find_spec(name)}
    print("| runtime | load s | 12 questions s | 64 tokens s | questions, ratio | writing, ratio |")
    print("|---|--:|--:|--:|--:|--:|")
    ours = found["xllamacpp"]
    for name, row in found.items():
        ratios = f"{row['choose'] / ours['choose']:.1f} | {row['write'] / ours['write']:.1f}"
        print(f"| {name} | {row['load']:.2f} | {row['choose']:.2f} | {row['write']:.2f} | {ratios} |")
    results = Path(__file__).parent / "results"
    results.mkdir(exist_ok=True)
    (results / "local_llm.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
