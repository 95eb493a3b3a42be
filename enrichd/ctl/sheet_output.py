"""The place a list is written to: a file that appears whole or not at all, or a stream.

A file is written beside its final name, as `OUT.partial` under a lock, and takes that name only on
`commit()`, so an interrupted run leaves an old file untouched. That is also why OUT may be the very
file that is being read. Standard output, a pipe or a device is written directly.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import sys
from contextlib import suppress
from typing import BinaryIO

from enrichd.errors import InvalidFile

BUFFER_CHARS = 64 * 1024


class Output:
    """Text on its way to a file or a stream; end with `commit()` or `discard()`."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.name = "standard output" if path == "-" else path
        self.is_closed_by_reader = False
        """Whether the program that reads the stream went away; more text reaches nobody."""
        self._final = "" if path == "-" else os.path.realpath(path)
        self._partial: str | None = None
        self._buffer: list[str] = []
        self._buffered = 0
        self._stream = self._open()
        # Whoever reads a stream sees each row when it is done.
        self._buffer_chars = BUFFER_CHARS if self._partial else 1

    def write(self, text: str) -> bool:
        """Write some text; False if the reader of the stream went away."""
        self._buffer.append(text)
        self._buffered += len(text)
        if self._buffered >= self._buffer_chars:
            self._flush()
        return not self.is_closed_by_reader

    def commit(self) -> None:
        """Put the file, whole and on disk, under its final name."""
        self._flush()
        if self._partial is None:
            self._close_stream()
            return
        try:
            os.fsync(self._stream.fileno())
            # Renamed before it is closed, so that the lock covers the rename.
            os.replace(self._partial, self._final)
        except OSError as error:
            raise self._failed(error) from error
        self._partial = None
        self._close_stream()

    def discard(self) -> None:
        """Close and remove what was not committed; do nothing after `commit()`."""
        partial, self._partial = self._partial, None
        if partial is not None:
            with suppress(OSError):
                os.unlink(partial)
        self._close_stream()

    def _open(self) -> BinaryIO:
        if self.path == "-":
            sys.stdout.flush()
            return sys.stdout.buffer
        try:
            found = os.stat(self._final) if os.path.exists(self._final) else None
            if found and stat.S_ISDIR(found.st_mode):
                raise InvalidFile(f"{self.path} is a directory.", hint="Give a file's name in it.")
            if found and not stat.S_ISREG(found.st_mode):
                return open(self._final, "wb", buffering=0)  # a pipe or a device has no rename
            return self._open_partial(stat.S_IMODE(found.st_mode) if found else None)
        except OSError as error:
            raise self._failed(error) from error

    def _open_partial(self, mode: int | None) -> BinaryIO:
        partial = self._final + ".partial"
        number = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        stream = os.fdopen(number, "wb", buffering=0)
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The other run may have renamed its file between our open and our lock.
            is_ours = os.path.samestat(os.fstat(number), os.stat(partial))
        except (BlockingIOError, FileNotFoundError):
            is_ours = False
        except OSError:
            stream.close()
            raise
        if not is_ours:
            stream.close()
            raise InvalidFile(
                f"Another run is writing {self.path}.", hint="Wait for it, or choose another --out."
            )
        self._partial = partial
        os.ftruncate(number, 0)
        if mode is not None:
            os.fchmod(number, mode)
        return stream

    def _flush(self) -> None:
        data = "".join(self._buffer).encode("utf-8", "replace")
        self._buffer.clear()
        self._buffered = 0
        if self.is_closed_by_reader:
            return
        try:
            _write_all(self._stream, data)
        except BrokenPipeError:
            self._reader_left()
        except OSError as error:
            raise self._failed(error) from error

    def _reader_left(self) -> None:
        self.is_closed_by_reader = True
        if self.path == "-":
            # Or the interpreter fails once more when it flushes standard output at its end.
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self._stream.fileno())
            os.close(null)

    def _close_stream(self) -> None:
        if self.path != "-" and not self._stream.closed:
            self._stream.close()

    def _failed(self, error: OSError) -> InvalidFile:
        partial, self._partial = self._partial, None
        if partial is not None:
            with suppress(OSError):
                os.unlink(partial)
        folder = os.path.dirname(self._final) or "."
        match error.errno:
            case errno.ENOSPC | errno.EDQUOT | errno.EFBIG:
                return InvalidFile(
                    f"There is no room left to write {self.name}; nothing was kept.",
                    hint="Free some space or choose another place with --out.",
                )
            case errno.EACCES | errno.EPERM | errno.EROFS:
                return InvalidFile(f"You have no permission to write {self.name} in {folder}.")
            case errno.ENOENT | errno.ENOTDIR:
                return InvalidFile(f"There is no folder {folder} to write {self.name} in.")
            case _:
                return InvalidFile(f"{self.name} cannot be written: {error.strerror or error}.")


def _write_all(stream: BinaryIO, data: bytes) -> None:
    """Write every byte, also through an unbuffered stream that takes only some at a time."""
    rest = memoryview(data)
    while rest:
        rest = rest[stream.write(rest) or 0 :]
    stream.flush()
