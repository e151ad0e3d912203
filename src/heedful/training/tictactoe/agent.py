"""The agent: a small network that scores the nine squares and values the state, and games it plays against itself."""

# B boards or games, A squares, F features, P plies (moves of both sides), N states laid end to end

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from heedful.engine.generation import Decoding, draw
from heedful.errors import SourceError
from heedful.store import new_folder
from heedful.training.tictactoe import board

SAMPLED = Decoding(1.0, 1.0, 1)


class Agent(nn.Module):
    """Scores of squares (logits for PPO, Q for Q-learning) and the value of the state, for the side to move."""

    def __init__(self, width: int, seed: int) -> None:
        super().__init__()
        self.width = width
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.body = nn.Sequential(nn.Linear(board.FEATURES, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
            self.scores = nn.Linear(width, board.SQUARES)
            self.value = nn.Linear(width, 1)
        for head in (self.scores, self.value):
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)

    def forward(self, boards_NA: Tensor) -> tuple[Tensor, Tensor]:
        """Scores (N, A), -inf on taken squares, and values (N,), both float32."""
        hidden_NW = self.body(board.features(boards_NA))
        scores_NA = self.scores(hidden_NW).masked_fill(~board.legal(boards_NA), -torch.inf)
        return scores_NA, self.value(hidden_NW).squeeze(-1)

    @torch.no_grad()
    def best(self, boards_NA: Tensor) -> Tensor:
        """The square of the highest score, (N,)."""
        return self(boards_NA)[0].argmax(1)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Games:
    """Finished games, all (B, P) or (B, P, A), row by row in the order of the moves.

    boards: before each move. played: True where a move was made. chosen: True where the policy made it (not an opening at
    random). squares, logprobs, values: of that move. outcomes_B: X, O or 0.
    """

    boards_BPA: Tensor
    squares_BP: Tensor
    logprobs_BP: Tensor
    values_BP: Tensor
    played_BP: Tensor
    chosen_BP: Tensor
    outcomes_B: Tensor


@torch.no_grad()
def play_games(agent: Agent | None, count: int, openings_B: Tensor, generator: torch.Generator) -> Games:
    """`count` games of the agent, drawn from its policy, against itself; the first openings_B moves of each are at random.

    agent None: all moves are at random.
    """
    boards_BA = board.empty(count)
    plies: list[tuple[Tensor, ...]] = []
    for ply in range(board.SQUARES):
        going_B = ~board.over(boards_BA)
        random_B = openings_B > ply
        flat_BA = torch.zeros(count, board.SQUARES).masked_fill(~board.legal(boards_BA), -torch.inf)
        values_B = torch.zeros(count)
        logits_BA = flat_BA
        if agent is not None:
            scores_BA, values_B = agent(boards_BA)
            logits_BA = torch.where(random_B[:, None], flat_BA, scores_BA)
        # A game that is over goes on being drawn for, so that a seed means the same moves in the others.
        logits_BA = torch.where(going_B[:, None], logits_BA, torch.zeros_like(logits_BA))
        squares_B, logprobs_B = draw(logits_BA, SAMPLED, torch.rand(count, generator=generator))
        plies.append((boards_BA, squares_B, logprobs_B, values_B, going_B, going_B & ~random_B))
        after_BA = board.play(boards_BA[going_B], squares_B[going_B])
        boards_BA = boards_BA.masked_scatter(going_B[:, None].expand_as(boards_BA), after_BA)
    boards, squares, logprobs, values, played, chosen = (torch.stack(column, dim=1) for column in zip(*plies, strict=True))
    return Games(boards, squares, logprobs, values, played, chosen, board.winner(boards_BA))


def save_agent(agent: Agent, folder: Path, about: dict[str, object]) -> None:
    """agent.safetensors and what it is."""
    with new_folder(folder) as temporary:
        save_file({name: tensor.contiguous() for name, tensor in agent.state_dict().items()}, temporary / "agent.safetensors")
        text = json.dumps(about | {"kind": "tictactoe", "width": agent.width}, indent=2)
        (temporary / "heedful.json").write_text(text + "\n", encoding="utf-8")


def load_agent(folder: Path) -> Agent:
    """The agent in a folder, or in the output folder of `heedful tictactoe`."""
    places = [folder, *(folder / name / "agent" for name in ("ppo", "q"))]
    place = next((place for place in places if (place / "agent.safetensors").exists()), None)
    if place is None:
        raise SourceError(f"{folder}: holds no tic-tac-toe agent; train one with 'heedful tictactoe ppo --output {folder}'")
    about = json.loads((place / "heedful.json").read_text(encoding="utf-8"))
    agent = Agent(int(about["width"]), seed=0)
    agent.load_state_dict(load_file(place / "agent.safetensors"))
    return agent
