"""Runs in the browser: what they measure while they train, what they answered, and talking to what they made."""
