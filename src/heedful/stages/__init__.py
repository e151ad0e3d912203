"""What a stage of a run, or a command of its own, does between the command line and the rooms below."""
