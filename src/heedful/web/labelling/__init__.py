"""People rank completions: projects, invitations, hand-outs, judgements."""
