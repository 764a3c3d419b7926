"""A tar archive from anywhere, read as a stream: in bounded memory, and to an end."""

from __future__ import annotations

import gzip
import tarfile
from typing import Any

EXTENSION = 2**16  # bytes of a header that holds a long name or other words
# What tarfile reads whole, and copies, before it says that there is a member.
_WORDS = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)


class Header(tarfile.TarInfo):
    """A header, refused where what belongs to it could take any amount of memory: long words, a list of holes."""

    @classmethod
    def frombuf(cls, buf: Any, encoding: Any, errors: Any) -> Any:
        """Read a header's block; Python's documentation of ``tarfile.TarInfo.frombuf``.

        Raises:
            ReadError: when it is one of those.
        """
        found = super().frombuf(buf, encoding, errors)
        if found.type == tarfile.GNUTYPE_SPARSE or (found.type in _WORDS and found.size > EXTENSION):
            raise tarfile.ReadError(f"a header of type {found.type.decode()} with {found.size} bytes")
        return found


class Counted:
    """A stream that says so when it has given more than there may be: a small file can unpack to any size."""

    def __init__(self, stream: gzip.GzipFile, most: int) -> None:
        self._stream, self._most, self._given = stream, most, 0

    def read(self, size: int) -> bytes:
        """Return the next bytes.

        Raises:
            ReadError: when these are too many.
        """
        data = self._stream.read(size)
        self._given += len(data)
        if self._given > self._most:
            raise tarfile.ReadError(f"it unpacks to more than {self._most} bytes")
        return data
