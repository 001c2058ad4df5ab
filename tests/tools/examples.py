"""How many examples a property test tries: always the same ones, unless a longer hunt is asked for."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

TIMES = int(os.environ.get("COEVAL_EXAMPLES", "1"))
"""`COEVAL_EXAMPLES=50 make test-fast` tries fifty times as many, random ones."""


def examples(count: int, steps: int = 50) -> settings:
    """Give settings for `count` examples, of `steps` steps each where a test has steps."""
    return settings(
        max_examples=count * TIMES,
        derandomize=TIMES == 1,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
        stateful_step_count=steps,
    )
