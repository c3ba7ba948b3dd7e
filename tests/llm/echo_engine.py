"""An engine that answers with the last word of the question, in any order, and writes down what it was asked."""

import random
import time
from collections.abc import Iterator
from pathlib import Path

from palate.llm.request import Answer, Bound, Request, Work


class EchoEngine:
    """`log`: a file with one line for each call, shared by processes. `places`: most in flight."""

    name, model = "echo", "echo-1"

    def __init__(self, log: Path, places: int = 4, pause: float = 0.0, seed: int = 0) -> None:
        self.log, self.places, self.pause, self.random = log, places, pause, random.Random(seed)
        self.most_taken = 0

    def bound(self, request: Request) -> Bound:
        return Bound(tokens=10, money=0.001)

    def ask(self, work: Work) -> Iterator[list[tuple[int, Answer]]]:
        flying: list[tuple[int, Request]] = []
        while True:
            taken = work.take(self.places - len(flying))
            with self.log.open("a") as log:
                log.writelines(f"{request.messages[-1].text}\n" for _, request in taken)
            flying += taken
            self.most_taken = max(self.most_taken, len(flying))
            if not flying:
                return
            time.sleep(self.pause)
            self.random.shuffle(flying)
            done = [flying.pop() for _ in range(self.random.randint(1, len(flying)))]
            yield [(number, self._answer(request)) for number, request in done]

    def close(self) -> None:
        pass

    def asked(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []

    def _answer(self, request: Request) -> Answer:
        text = request.messages[-1].text.split()[-1]
        return Answer(text, tokens_in=6, tokens_out=2, cost=0.0005, model=self.model, engine=self.name)
