"""An engine for fault injection only: it counts, fails and stops where it is told to."""

from collections.abc import Iterator, Sequence

from palate.llm.request import Answer, Request


class FakeEngine:
    name = "fake"
    model = "fake-1"

    def __init__(self, answers: dict[str, str] | None = None, stop_after: int | None = None, backwards: bool = False):
        self.answers = answers or {}
        self.asked: list[Request] = []
        self.stop_after = stop_after
        self.backwards = backwards

    def close(self) -> None:
        pass

    def ask(self, requests: Sequence[Request]) -> Iterator[tuple[int, Answer]]:
        order = list(enumerate(requests))
        for done, (index, request) in enumerate(reversed(order) if self.backwards else order):
            if done == self.stop_after:
                raise KeyboardInterrupt
            self.asked.append(request)
            text = self.answers.get(request.messages[-1].content, "ok")
            error = "broken" if text == "FAIL" else None
            shares = tuple(1 / len(request.options) for _ in request.options) if request.options else None
            yield (
                index,
                Answer(
                    text=text,
                    error=error,
                    probabilities=shares,
                    tokens_in=10,
                    tokens_out=2,
                    cost=0.5,
                    model=self.model,
                    engine=self.name,
                ),
            )
