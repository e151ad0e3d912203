"""A task with tools: the policy thinks, acts, reads what came of it, and answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from heedful.engine.episodes import Step
from heedful.environments import react
from heedful.errors import DataError
from heedful.records import Message, Prompt


def wanted_answers(prompt: Prompt) -> list[str]:
    """The right answers that a prompt's field `answer` names, a text or a list of texts. Raises DataError without one."""
    found = (prompt.model_extra or {}).get("answer")
    answers = [found] if isinstance(found, (str, int, float)) and not isinstance(found, bool) else found
    if not isinstance(answers, list) or not answers or not all(str(answer).strip() for answer in answers):
        raise DataError(
            f"prompt {prompt.id!r}: this environment pays for right answers, and the prompt has no field 'answer' that is a "
            "text or a list of texts; add it, or use environment.kind = 'prompts' with a reward"
        )
    return [str(answer) for answer in answers]


class ToolUse:
    """Reward 1 for a right "Answer:", 0 for a wrong one or none, less call_cost a call. tools: by name, text to text."""

    def __init__(self, tools: Mapping[str, Callable[[str], str]], *, call_cost: float = 0.0, told: bool = True) -> None:
        self.tools, self.call_cost, self.told = tools, call_cost, told
        self.wanted: list[str] = []
        self.calls = self.failed = 0

    def reset(self, prompt: Prompt, *, seed: int) -> tuple[tuple[Message, ...], Mapping[str, float]]:
        self.wanted = wanted_answers(prompt)
        self.calls = self.failed = 0
        about = Message(role="system", content=react.instructions(list(self.tools)))
        return ((about,) if self.told else ()) + prompt.messages, self._info(0.0)

    def step(self, action: str, *, cut: bool = False) -> Step:
        lines = react.whole_lines(action, cut=cut)
        answer = react.answer_of(lines)
        if answer is None and not cut and react.ends_turn(lines):
            return self._called(react.call_of(lines))
        right = answer is not None and any(react.same_answer(answer, wanted) for wanted in self.wanted)
        return Step("", float(right), True, False, self._info(float(right)))

    def _called(self, call: react.Call | None) -> Step:
        found = call_tool(self.tools, call)
        self.calls += 1
        self.failed += found.startswith("error:")
        return Step(react.observation(found), -self.call_cost, False, False, self._info(0.0))

    def _info(self, right: float) -> dict[str, float]:
        used = float(self.calls > self.failed)
        return {"right": right, "right_with_tool": right * used, "calls": float(self.calls), "failed_calls": float(self.failed)}

    def ends_turn(self, written: str) -> bool:
        return react.ends_turn(written)


def call_tool(tools: Mapping[str, Callable[[str], str]], call: react.Call | None) -> str:
    """What a tool answers; what cannot be called is an error that the policy reads."""
    if call is None:
        return react.UNREADABLE
    if call.tool not in tools:
        return f"error: there is no tool of that name, only {', '.join(tools)}"
    return tools[call.tool](call.text)
