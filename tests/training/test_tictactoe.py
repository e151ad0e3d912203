"""Tic-tac-toe: the rules against a slow board, both agents proven not to lose, resuming, and a person at the board."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from heedful.config.section import with_overrides
from heedful.errors import ConfigError, SourceError
from heedful.store import read_metrics
from heedful.training.tictactoe import board, proof
from heedful.training.tictactoe.agent import Agent, load_agent, play_games, save_agent
from heedful.training.tictactoe.board import LINES, O, X
from heedful.training.tictactoe.play import picture, play_many
from heedful.training.tictactoe.ppo import BoardPPO, by_seat
from heedful.training.tictactoe.q import BoardQ
from heedful.training.tictactoe.settings import BoardPPOSection, BoardQSection
from heedful.training.tictactoe.stage import learning_curve, train_agent

START = (0,) * 9


def rows_of_three() -> set[frozenset[int]]:
    """The eight lines, from coordinates."""
    squares = range(3)
    straight = [[(i, j) for j in squares] for i in squares] + [[(j, i) for j in squares] for i in squares]
    slanted = [[(i, i) for i in squares], [(i, 2 - i) for i in squares]]
    return {frozenset(3 * row + column for row, column in line) for line in straight + slanted}


def ends(marks: dict[int, int]) -> int | None:
    """X or O when it has a line, 0 when the board is full, None while the game goes on."""
    for side in (X, O):
        if any(all(marks.get(square) == side for square in line) for line in rows_of_three()):
            return side
    return 0 if len(marks) == 9 else None


def all_games(marks: dict[int, int], seat: int, choose: Callable[[set[int]], int]) -> Iterator[int]:
    """The outcome of every game that the side in `seat` can get into, choosing among the empty squares in one way."""
    ended = ends(marks)
    if ended is not None:
        yield ended
        return
    side, left = X if len(marks) % 2 == 0 else O, set(range(9)) - set(marks)
    for square in [choose(left)] if side == seat else left:
        yield from all_games(marks | {square: side}, seat, choose)


# The environment


def test_lines_are_the_eight_rows_of_three() -> None:
    assert {frozenset(line) for line in LINES} == rows_of_three()
    assert len(LINES) == 8


@given(st.permutations(range(9)))
def test_a_game_on_tensors_equals_one_by_hand(order: list[int]) -> None:
    boards_BA, marks = board.empty(1), {}
    for number, square in enumerate(order):
        side = X if number % 2 == 0 else O
        assert int(board.mover(boards_BA)) == side
        assert board.legal(boards_BA)[0].tolist() == [i not in marks for i in range(9)]
        seen = board.features(boards_BA)[0].tolist()
        assert seen == [marks.get(i) == side for i in range(9)] + [marks.get(i) == -side for i in range(9)] + [
            i not in marks for i in range(9)
        ]
        before = boards_BA.clone()
        boards_BA = board.play(boards_BA, torch.tensor([square]))
        assert (boards_BA != before).sum() == 1
        marks[square] = side
        ended = ends(marks)
        assert bool(board.over(boards_BA)) == (ended is not None)
        if ended is not None:
            assert int(board.winner(boards_BA)) == ended == board.winner_of(tuple(boards_BA[0].tolist()))
            return


def test_a_taken_square_cannot_be_marked() -> None:
    boards_BA = board.play(board.empty(1), torch.tensor([4]))
    with pytest.raises(AssertionError, match="taken twice"):
        board.play(boards_BA, torch.tensor([4]))


def test_perfect_play_is_a_draw_and_knows_the_known_cases() -> None:
    """4,520 positions with a move to make and 5,478 in all are known counts of the game."""
    assert board.outcome_of_best_play(START) == 0
    assert board.best_squares(START) == list(range(9))
    centre = board.children(START)[4]
    assert set(board.best_squares(centre)) == {0, 2, 6, 8}, "on the centre only a corner holds"
    corner = board.children(START)[0]
    assert board.best_squares(corner) == [4], "on a corner only the centre holds"
    boards_BA, best_BA = proof.positions()
    assert len(boards_BA) == 4520
    assert (best_BA & ~board.legal(boards_BA)).sum() == 0


# The proof


def first_empty(boards_BA: Tensor) -> Tensor:
    return board.legal(boards_BA).float().argmax(1)


def minimax(boards_BA: Tensor) -> Tensor:
    return torch.tensor([board.best_squares(tuple(marks))[0] for marks in boards_BA.tolist()])


@pytest.mark.parametrize("seat", [X, O])
def test_every_line_equals_going_through_the_games_one_by_one(seat: int) -> None:
    outcomes = [outcome * seat for outcome in all_games({}, seat, min)]
    found = proof.every_line(first_empty, seat)
    assert (found.wins, found.draws, found.losses) == tuple(outcomes.count(outcome) for outcome in (1, 0, -1))
    assert found.losses > 0


@pytest.mark.parametrize("seat", [X, O])
def test_minimax_loses_no_line_and_draws_with_perfect_opponents(seat: int) -> None:
    assert proof.every_line(minimax, seat).losses == 0
    perfect = proof.every_line(minimax, seat, perfect_only=True)
    assert (perfect.wins, perfect.losses) == (0, 0)
    assert perfect.draws > 1
    assert proof.perfect_moves(minimax) == 1


def test_chances_of_lines_agree_with_games_played() -> None:
    exact = proof.every_line(first_empty, X)
    drawn = proof.random_games(first_empty, X, 20_000, seed=0)
    # Five standard errors of a share of 20,000 games.
    assert drawn.win_rate == pytest.approx(exact.win_rate, abs=5 * 0.5 / 20_000**0.5)
    assert drawn.wins + drawn.draws + drawn.losses == 20_000
    assert drawn.losses > 0


def test_one_bad_move_is_found() -> None:
    """Minimax, but on X in a corner it answers on an edge: some line must lose."""
    corner = torch.tensor([1, 0, 0, 0, 0, 0, 0, 0, 0])

    def careless(boards_BA: Tensor) -> Tensor:
        return torch.where((boards_BA == corner).all(1), torch.tensor(1), minimax(boards_BA))

    assert proof.every_line(careless, O).losses > 0
    assert proof.measure(careless)["unbeaten"] < 1


# Playing


def test_games_are_recorded_as_they_were_played() -> None:
    agent = Agent(16, seed=3)
    with torch.no_grad():
        for parameter in agent.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    openings = torch.tensor([0, 1, 4, 9] * 16)
    games = play_games(agent, 64, openings, torch.Generator().manual_seed(0))
    for row in range(64):
        marks: dict[int, int] = {}
        for ply in range(9):
            assert games.boards_BPA[row, ply].tolist() == [marks.get(square, 0) for square in range(9)]
            going = ends(marks) is None
            assert bool(games.played_BP[row, ply]) == going
            assert bool(games.chosen_BP[row, ply]) == (going and ply >= int(openings[row]))
            if going:
                marks[int(games.squares_BP[row, ply])] = X if ply % 2 == 0 else O
                if games.chosen_BP[row, ply]:
                    with torch.no_grad():
                        scores, value = agent(games.boards_BPA[row, ply][None])
                    logprob = torch.log_softmax(scores, 1)[0, games.squares_BP[row, ply]]
                    # Another batch shape rounds otherwise.
                    assert float(games.logprobs_BP[row, ply]) == pytest.approx(float(logprob), abs=1e-5)
                    assert float(games.values_BP[row, ply]) == pytest.approx(float(value), abs=1e-5)
        assert int(games.outcomes_B[row]) == ends(marks)


def test_seats_get_their_own_moves_and_opposite_outcomes() -> None:
    columns = torch.arange(18).reshape(2, 9)
    assert by_seat(columns).tolist() == [
        [0, 2, 4, 6, 8],
        [9, 11, 13, 15, 17],
        [1, 3, 5, 7, 0],
        [10, 12, 14, 16, 0],
    ]
    method = BoardPPO(BoardPPOSection(games=32, gamma=1.0, lam=1.0), seed=0)
    games = play_games(method.agent, 32, torch.zeros(32), torch.Generator().manual_seed(0))
    batch = method._batch(games)
    # A fresh agent values everything at 0; with lambda 1 each own move returns the game's outcome for its seat.
    expected = torch.cat([games.outcomes_B, -games.outcomes_B]).float()[:, None] * batch["mask"]
    torch.testing.assert_close(batch["returns"], expected)


def test_the_last_move_of_a_won_game_is_rewarded() -> None:
    games = play_games(None, 200, torch.zeros(200), torch.Generator().manual_seed(0))
    rewards_BP = BoardQ._rewards(games, list(range(200)))
    for row in range(200):
        length = int(games.played_BP[row].sum())
        expected = [0.0] * 9
        expected[length - 1] = float(games.outcomes_B[row] != 0)
        assert rewards_BP[row].tolist() == expected


# Learning


@pytest.mark.parametrize("method", ["ppo", "q"])
def test_the_trained_agent_never_loses(method: str, tmp_path: Path) -> None:
    """Every line of play in both seats, each perfect opponent, and 1,000 games at random."""
    result = train_agent(method, tmp_path, (), seed=0)  # type: ignore[arg-type]
    assert result["unbeaten"] is True
    agent = load_agent(tmp_path / method / "agent")
    for seat in (X, O):
        everything = proof.every_line(agent.best, seat)
        assert everything.losses == 0
        assert everything.wins > 50, "it also wins where the opponent lets it"
        assert proof.every_line(agent.best, seat, perfect_only=True).losses == 0
        games = proof.random_games(agent.best, seat, 1000, seed=1)
        assert games.losses == 0
        assert games.win_rate > (0.95 if seat == X else 0.8)
    points = learning_curve(tmp_path, method, "unbeaten")
    assert points[-1] == (result["steps"], 1.0)
    assert points[0][1] < 1, "it had something to learn"


SHORT = {
    "ppo": ("max_steps=7", "games=16", "width=8", "eval_every=2", "checkpoint_every=2"),
    "q": ("max_steps=7", "games=40", "batch_games=8", "width=8", "eval_every=2", "checkpoint_every=2"),
}


@pytest.mark.parametrize("method", ["ppo", "q"])
def test_resumed_equals_uninterrupted(method: str, tmp_path: Path) -> None:
    def run(folder: Path, stop_at: int | None = None) -> None:
        def progress(done: int, total: int, note: str) -> None:
            if done == stop_at:
                raise KeyboardInterrupt

        train_agent(method, folder, SHORT[method], seed=5, progress=progress)  # type: ignore[arg-type]

    run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", 5)  # the checkpoint is of step 4: step 5 is made again
    run(tmp_path / "cut")
    logs = [
        [{key: value for key, value in row.items() if key != "time"} for row in read_metrics(tmp_path / name)]
        for name in ("whole", "cut")
    ]
    assert len(logs[0]) == 7
    assert logs[0] == logs[1]
    tensors = [(tmp_path / name / method / "agent" / "agent.safetensors").read_bytes() for name in ("whole", "cut")]
    assert tensors[0] == tensors[1]


def test_a_finished_training_is_not_repeated_and_other_settings_are(tmp_path: Path) -> None:
    first = train_agent("ppo", tmp_path, SHORT["ppo"], seed=0)
    assert train_agent("ppo", tmp_path, SHORT["ppo"], seed=0) == first
    assert train_agent("ppo", tmp_path, (*SHORT["ppo"], "max_steps=3"), seed=0)["steps"] == 3


def test_the_target_copy_follows_slowly_and_gets_no_gradient() -> None:
    method = BoardQ(with_overrides(BoardQSection, (*SHORT["q"], "polyak=0.25", "max_grad_norm=1e9")), seed=0)
    before = [p.clone() for p in method.target.parameters()]
    method.step(0)
    for old, online, target in zip(before, method.agent.parameters(), method.target.parameters(), strict=True):
        assert target.grad is None
        assert not target.requires_grad
        torch.testing.assert_close(target, 0.75 * old + 0.25 * online.detach())


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("max_stepz=3", "unknown key 'max_stepz'"),
        ("clip=2.0", "clip=2.0"),
        ("clip", "expected key=value"),
        ("clip=much", "not a value"),
    ],
)
def test_a_wrong_setting_is_named(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        with_overrides(BoardPPOSection, (override,))


# A person at the board


def typed(*lines: str, then: type[BaseException] = EOFError) -> Callable[[str], str]:
    left = iter(lines)

    def ask(_: str) -> str:
        line = next(left, None)
        if line is None:
            raise then
        return line

    return ask


def test_a_game_by_digits() -> None:
    """The agent takes the first empty square; 5, 7 and 3 make a line for X on the way 5, 7, 3."""
    said: list[str] = []
    tally = play_many(first_empty, typed("5", "7", "3"), said.append, seat=X)
    assert tally == {"won": 1, "drawn": 0, "lost": 0}
    assert "you win" in said
    assert picture([X, O, 0, 0, 0, 0, 0, 0, 0]) == " X | O | 3\n---+---+---\n 4 | 5 | 6\n---+---+---\n 7 | 8 | 9"


@pytest.mark.parametrize("wrong", ["x", "", "0", "10", "-1", "1.0", "²", "٣", "5 6", "\x1b[A"])
def test_what_is_no_square_is_asked_again(wrong: str) -> None:
    said: list[str] = []
    tally = play_many(first_empty, typed(wrong, "5", "7", "3"), said.append, seat=X)
    assert tally["won"] == 1
    assert sum("is no square" in line for line in said) == 1


def test_a_taken_square_is_asked_again() -> None:
    said: list[str] = []
    play_many(first_empty, typed("5", "5", "1", "7", "3"), said.append, seat=X)
    assert said.count("square 5 is taken") == 1
    assert said.count("square 1 is taken") == 1, "the agent has taken it"
    assert "you win" in said


@pytest.mark.parametrize("leave", [typed("5"), typed("5", then=KeyboardInterrupt), typed("5", "q"), typed("5", " QUIT ")])
def test_leaving_in_the_middle_of_a_game_counts_nothing(leave: Callable[[str], str]) -> None:
    said: list[str] = []
    assert play_many(first_empty, leave, said.append) == {"won": 0, "drawn": 0, "lost": 0}
    assert "0 won, 0 drawn, 0 lost" in said[-1]


def test_seats_change_each_game() -> None:
    said: list[str] = []
    play_many(first_empty, typed("5", "7", "3", "9", "q"), said.append)
    starts = [line for line in said if "you are" in line]
    assert "you are X and begin" in starts[0]
    assert "you are O and the agent begins" in starts[1]


def test_agents_are_saved_and_found(tmp_path: Path) -> None:
    agent = Agent(8, seed=1)
    save_agent(agent, tmp_path / "ppo" / "agent", {"method": "ppo"})
    for place in (tmp_path, tmp_path / "ppo" / "agent"):
        found = load_agent(place)
        assert all(torch.equal(a, b) for a, b in itertools.zip_longest(agent.parameters(), found.parameters()))
    assert json.loads((tmp_path / "ppo" / "agent" / "heedful.json").read_text())["width"] == 8
    with pytest.raises(SourceError, match="holds no tic-tac-toe agent"):
        load_agent(tmp_path / "absent")


@settings(deadline=None, max_examples=30)
@given(st.permutations(range(9)), st.integers(0, 8))
def test_the_agent_never_wants_a_taken_square(order: list[int], moves: int) -> None:
    boards_BA = board.empty(1)
    for square in order[:moves]:
        boards_BA = board.play(boards_BA, torch.tensor([square]))
    agent = Agent(8, seed=sum(order[:3]))
    with torch.no_grad():
        agent.scores.bias.uniform_(-9, 9)
    assert bool(board.legal(boards_BA)[0, agent.best(boards_BA)])
