"""The hooks, one a kind. Each takes nothing and returns a list of classes, so that registering is pure and testable."""

from __future__ import annotations

import pluggy

from ddpmkit.plugin.interfaces import KINDS

PROJECT = "ddpmkit"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class HookSpecs:
    """What a plugin may implement; it implements only what it needs."""

    @hookspec
    def ddpmkit_register_schedules(self) -> list[type]:  # type: ignore[empty-body]
        """Return subclasses of ``Schedule``."""

    @hookspec
    def ddpmkit_register_sigmas(self) -> list[type]:  # type: ignore[empty-body]
        """Return subclasses of ``Sigma``."""

    @hookspec
    def ddpmkit_register_weightings(self) -> list[type]:  # type: ignore[empty-body]
        """Return subclasses of ``Weighting``."""

    @hookspec
    def ddpmkit_register_backbones(self) -> list[type]:  # type: ignore[empty-body]
        """Return subclasses of ``Backbone``."""

    @hookspec
    def ddpmkit_register_predictions(self) -> list[type]:  # type: ignore[empty-body]
        """Return subclasses of ``Prediction``."""

    @hookspec
    def ddpmkit_register_samplers(self) -> list[type]:  # type: ignore[empty-body]
        """Return subclasses of ``Sampler``."""

    @hookspec
    def ddpmkit_register_datasets(self) -> list[type]:  # type: ignore[empty-body]
        """Return subclasses of ``Dataset``."""

    @hookspec
    def ddpmkit_register_features(self) -> list[type]:  # type: ignore[empty-body]
        """Return subclasses of ``Features``."""

    @hookspec
    def ddpmkit_register_metrics(self) -> list[type]:  # type: ignore[empty-body]
        """Return subclasses of ``Metric``."""

    @hookspec
    def ddpmkit_register_executors(self) -> list[type]:  # type: ignore[empty-body]
        """Return subclasses of ``Executor``."""


HOOKS = frozenset(kind.hook for kind in KINDS.values())
