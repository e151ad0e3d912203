"""What is said of answers in the terminal's chat: /up, /down and /fix, kept in the run's folder of feedback."""

from __future__ import annotations

import getpass
import hashlib
import json
import uuid
from datetime import UTC, datetime
from pathlib import Path

from heedful.engine.conversation import Conversation
from heedful.opinions import FOLDER, Opinions, add_opinions, corrected, spoken, voted
from heedful.records import Completion, Sampling
from heedful.versions import policy_in_use, root_of, version_of

UP, DOWN, FIX = "/up", "/down", "/fix"
BASE = "base"


class Hearing:
    """Listens to one conversation with the policy of a run. who: the labeler's name; the user's by default.

    What is said of a round or of a version goes to the run that it is part of, where `heedful update` finds it.
    """

    def __init__(self, run: Path, talk: Conversation, *, seed: int, who: str | None = None) -> None:
        self.folder, self.talk, self.seed = root_of(run) / FOLDER, talk, seed
        self.who = who or _user()
        self.chat = uuid.uuid4()
        policy = policy_in_use(run)
        self.version = version_of(policy) if policy else ""

    @staticmethod
    def is_opinion(said: str) -> bool:
        words = said.split(maxsplit=1)
        return bool(words) and words[0] in (UP, DOWN, FIX)

    def take(self, said: str) -> str:
        """Keeps an opinion of the last answer of the policy; returns what to tell the person."""
        word, *rest = said.split(maxsplit=1)  # at any white space, as `is_opinion` does
        text = rest[0].strip() if rest else ""
        name = [name for name in self.talk.speakers if name != BASE][-1]
        history = self.talk.histories[name]
        if not history:
            return "Nothing was answered yet."
        if word == FIX and not text:
            return f"Say after {FIX} what the answer should have been."
        told = json.dumps([[message.role, message.content] for message in history])
        prompt = spoken(f"chat-{self.chat}-{hashlib.sha256(told.encode()).hexdigest()[:12]}", history[:-1])
        decoding = self.talk.decoding
        answer = Completion(
            id=f"{prompt.id}/1",
            prompt_id=prompt.id,
            text=history[-1].content,
            model=self.talk.speakers[name][0].source,
            policy_version=self.version,
            finish="stop" if self.talk.last[name].finished else "length",
            sampling=Sampling(
                temperature=decoding.temperature, top_p=1.0, seed=self.seed, max_new_tokens=decoding.max_new_tokens
            ),
        )
        now = datetime.now(UTC).isoformat(timespec="microseconds")  # a script says several things in a second
        if word == FIX:
            own, judgement = corrected(answer, text, self.who, now)
            add_opinions(self.folder, Opinions([prompt], [answer, own], [], [judgement]))
            return "Kept, above the answer that it corrects."
        value = 0 if word == DOWN else 1
        add_opinions(self.folder, Opinions([prompt], [answer], [voted(answer, self.who, value, now)], []))
        return "Kept: thumbs up." if value else "Kept: thumbs down."


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # no such user where a container has none
        return "somebody"
