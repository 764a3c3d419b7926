"""What authors of components test them with: named checks for every kind, run on built-ins and strangers alike.

``run_checks(component)`` gives an outcome for each check, ``ddpmkit check`` prints them, and in one's own tests
``@pytest.mark.parametrize("check", checks("schedule"), ids=str)`` with ``check(component)`` makes each a test.
``tiny_study(component, tmp_path)`` runs a whole study with it.
"""

from __future__ import annotations

from ddpmkit.testing.check import Check, NotAsked, Outcome
from ddpmkit.testing.run import checks, run_checks, summary
from ddpmkit.testing.tiny import tiny_study

__all__ = ["Check", "NotAsked", "Outcome", "checks", "run_checks", "summary", "tiny_study"]
