"""Settings of the two tic-tac-toe agents: `heedful tictactoe ppo|q --set key=value`."""

from __future__ import annotations

from pydantic import Field

from heedful.config import Section


class BoardPPOSection(Section):
    """PPO on the board."""

    max_steps: int = Field(600, ge=1, description="Steps (one batch of games each) at most; the proof usually ends it sooner.")
    eval_every: int = Field(10, ge=1, description="Steps between proofs.")
    checkpoint_every: int = Field(20, ge=1, description="Steps between checkpoints.")
    games: int = Field(512, ge=2, description="Games a step; each is two episodes, one a seat.")
    opening_share: float = Field(0.5, ge=0, le=1, description="Share of games that begin with moves at random.")
    max_opening: int = Field(6, ge=0, le=8, description="Most moves at random at the beginning of such a game.")
    width: int = Field(128, ge=1, description="Units in each of the two hidden layers.")
    epochs: int = Field(4, ge=1, description="Passes over a batch of games.")
    num_minibatches: int = Field(4, ge=1, description="Optimiser steps a pass.")
    learning_rate: float = Field(3e-3, gt=0, description="Peak rate of AdamW.")
    warmup_steps: int = Field(5, ge=0, description="Steps over which the rate rises.")
    max_grad_norm: float = Field(1.0, gt=0, description="Gradients are scaled down to this norm.")
    gamma: float = Field(1.0, gt=0, le=1, description="Discount.")
    lam: float = Field(0.95, ge=0, le=1, description="Lambda of generalised advantage estimation.")
    clip: float = Field(0.2, gt=0, lt=1, description="Trust region of the ratio.")
    value_clip: float = Field(0.5, gt=0, description="The new value may leave the old one by this much.")
    value_coef: float = Field(0.5, ge=0, description="c1, weight of the value loss.")
    entropy_coef: float = Field(0.02, ge=0, description="c2, weight of the entropy bonus.")


class BoardQSection(Section):
    """Q-learning on the board, from games at random."""

    max_steps: int = Field(8000, ge=1, description="Optimiser steps at most; the proof usually ends it sooner.")
    eval_every: int = Field(50, ge=1, description="Steps between proofs.")
    checkpoint_every: int = Field(200, ge=1, description="Steps between checkpoints.")
    games: int = Field(20_000, ge=1, description="Games at random, drawn once: the data.")
    batch_games: int = Field(256, ge=1, description="Games an optimiser step.")
    width: int = Field(128, ge=1, description="Units in each of the two hidden layers.")
    learning_rate: float = Field(2e-3, gt=0, description="Peak rate of AdamW.")
    warmup_steps: int = Field(10, ge=0, description="Steps over which the rate rises.")
    max_grad_norm: float = Field(1.0, gt=0, description="Gradients are scaled down to this norm.")
    gamma: float = Field(1.0, gt=0, le=1, description="Discount.")
    expectile: float = Field(0.98, gt=0, lt=1, description="Tau: V is this expectile of Q over the moves of the data.")
    cql_coef: float = Field(0.001, ge=0, description="Weight of the conservative term.")
    polyak: float = Field(0.05, gt=0, le=1, description="Share of the online weights that the target copy takes a step.")
