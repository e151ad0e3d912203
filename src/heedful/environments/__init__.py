"""Environments in which a policy acts by writing: prompts with a reward, tools, retrieval, tic-tac-toe."""
