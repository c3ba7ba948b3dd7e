"""An engine for fault injection only: it counts, fails and stops where it is told to."""

from collections.abc import Iterator

from palate.llm.request import Answer, Bound, Request, Work


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

    def bound(self, request: Request) -> Bound:
        return Bound(20, 0.5)

    def ask(self, work: Work) -> Iterator[list[tuple[int, Answer]]]:
        while taken := work.take(4):
            for number, request in reversed(taken) if self.backwards else taken:
                if len(self.asked) == self.stop_after:
                    raise KeyboardInterrupt
                self.asked.append(request)
                yield [(number, self._answer(request))]

    def _answer(self, request: Request) -> Answer:
        text = self.answers.get(request.messages[-1].text, "ok")
        error = "broken" if text == "FAIL" else None
        shares = tuple(1 / len(request.options) for _ in request.options) if request.options else None
        counts = {"tokens_in": 10, "tokens_out": 2, "cost": 0.5}
        return Answer(text, error=error, probabilities=shares, model=self.model, engine=self.name, **counts)
