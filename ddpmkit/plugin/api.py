"""The version of what a plugin builds on: it changes only when something that a plugin may use is taken away."""

from __future__ import annotations

from types import ModuleType

PLUGIN_API = 1  # what is added leaves it as it is


def api_problem(module: ModuleType) -> str:
    """Return why a plugin was not made for this API, or an empty string.

    A plugin's module may say ``ddpmkit_api = (low, high)``, the lowest and the highest version that it was made for;
    one that says nothing is taken as it is.
    """
    made_for = getattr(module, "ddpmkit_api", (PLUGIN_API, PLUGIN_API))
    pair = isinstance(made_for, (tuple, list)) and len(made_for) == 2 and all(type(n) is int for n in made_for)
    if not pair or made_for[0] > made_for[1]:
        return f"its ddpmkit_api is {made_for!r}; write two whole numbers, lowest and highest, as ddpmkit_api = (1, 1)"
    low, high = made_for
    if low <= PLUGIN_API <= high:
        return ""
    versions = f"version {low}" if low == high else f"versions {low} to {high}"
    what = "a newer ddpmkit" if low > PLUGIN_API else "a newer release of the plugin"
    return f"it was made for {versions} of the plugin API, and this ddpmkit has version {PLUGIN_API}; it needs {what}"
