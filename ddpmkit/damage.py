"""How a file that is damaged shows itself."""

from __future__ import annotations

import struct
import tokenize
import zipfile
import zlib

# What numpy, zipfile, zlib and safetensors raise for a file that is damaged or declares more than there is.
DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    tokenize.TokenError,
    struct.error,
    EOFError,
    MemoryError,
    NotImplementedError,
    OverflowError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    KeyError,
)
