"""The hypothesis profile of `make mutants`."""

from __future__ import annotations

from hypothesis import HealthCheck, Phase, settings

# The same few examples every time, and no search for a smaller one once a mutant is dead. A slow machine kills no mutant.
# Tests that name their own `max_examples` keep it.
settings.register_profile(
    "mutants",
    database=None,
    deadline=None,
    derandomize=True,
    max_examples=25,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow],
)
