"""What most commands import, with libraries' notices off as the command line has them (see copies.py)."""

from __future__ import annotations

from importlib import import_module

from heedful.cli import app

app._quiet()  # libraries look at these settings when they are read
for name in ("transformers.models.auto.modeling_auto", "transformers.models.llama", "peft", "scipy.stats", "heedful.pipeline"):
    import_module(name)
