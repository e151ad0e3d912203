"""Work of several stages or runs: rounds, updates of a run in use, a constitution's two stages, learning to use tools."""
