"""The one place where arrays become bytes. No pickle, ever."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

from ddpmkit.errors import DdpmkitError


def pack(arrays: Mapping[str, Any], meta: Mapping[str, str] | None = None) -> bytes:
    """Return named NumPy arrays or torch tensors as a .safetensors file that reads back with the same values.

    The format knows C order and little-endian numbers alone, and its writer takes the memory as it lies: a view, a
    transposed, channels-last, byte-swapped or lazily negated array would be read back as other numbers. Shapes stay,
    0-d and empty ones too, and so do dtypes, bfloat16 of tensors included.

    Args:
        arrays: Name -> array of any layout, on any device; all arrays or all tensors.
        meta: Text that goes with them.

    Raises:
        DdpmkitError: for an array of a dtype that has no place in the format.
    """
    import numpy as np
    import safetensors.numpy

    try:
        if any(hasattr(a, "detach") for a in arrays.values()):  # known without importing torch
            import safetensors.torch

            # clone: tied weights share memory, which the format has no word for.
            plain = {k: a.detach().resolve_conj().resolve_neg().cpu().contiguous().clone() for k, a in arrays.items()}
            return safetensors.torch.save(plain, dict(meta) if meta else None)
        ordered = {k: np.asarray(a, order="C") for k, a in arrays.items()}  # ascontiguousarray makes 0-d arrays 1-d
        native = {k: a.astype(a.dtype.newbyteorder("="), copy=False) for k, a in ordered.items()}
        return safetensors.numpy.save(native, dict(meta) if meta else None)
    except (TypeError, ValueError, KeyError, safetensors.SafetensorError) as err:
        held = ", ".join(f"{k} {a.dtype}" for k, a in arrays.items())
        raise DdpmkitError(f"arrays that can't be stored ({held}): {err}", "use floats, integers or booleans") from None


def pack_npz(arrays: Mapping[str, Any]) -> bytes:
    """Return arrays as a compressed .npz archive, for who reads them elsewhere; nothing of the store is one."""
    import numpy as np

    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()
