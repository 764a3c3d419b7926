"""What of the files that ``-p`` names has to be brought to the nodes of a Ray cluster."""

from __future__ import annotations

from pathlib import Path

from ddpmkit import DdpmkitError


def plugin_files(plugins: tuple[str, ...], working_dir: str | None) -> dict[str, str | None]:
    """Return what ``-p`` takes on a node, with the text of what is brought there.

    Raises:
        DdpmkitError: for a file that is no text, or is gone by now.
    """
    found: dict[str, str | None] = {}
    for plugin in plugins:
        if not plugin.endswith(".py"):
            found[plugin] = None
            continue
        path = Path(plugin).parent.resolve() / Path(plugin).name  # a link keeps its name, which is the plugin's
        if working_dir is not None and path.is_relative_to(folder := Path(working_dir).resolve()):
            found[str(path.relative_to(folder))] = None  # it goes there with what is beside it
            continue
        try:
            found[str(path)] = path.read_bytes().decode()
        except UnicodeDecodeError:
            raise DdpmkitError(f"-p {plugin} is no UTF-8, and can't be brought to a node", "save it as UTF-8") from None
        except OSError as err:
            raise DdpmkitError(f"-p {plugin} can't be brought to a node: {err.strerror}", "put it back") from None
    return found
