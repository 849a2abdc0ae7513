"""Files that are whole or absent, and that are known to be damaged before they are used."""

import fcntl
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from wm_jax.utils.errors import UserError

CHECKSUM = "checksum"


class Stamp(NamedTuple):
    """What a file must be: its SHA-256 (hexadecimal) and its size in bytes."""

    sha256: str
    size: int


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file all or nothing, durable on return: temporary file, fsync, rename, fsync of the folder.

    The temporary file has a fixed name: callers have one writer per file, and a leftover is overwritten.
    """
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Make a file's content, or the names in a folder, durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's content, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def stamp_of(path: Path) -> Stamp:
    """The stamp of the file as it is now."""
    return Stamp(sha256_of(path), path.stat().st_size)


def identity(value: Any) -> str:
    """SHA-256 of a JSON value in canonical form: equal values have equal identities, whatever their key order."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def plain(value: Any) -> Any:
    """The value as JSON gives it back, so that what was read compares equal to what was written.

    JSON has no NaN and no infinity: they become null. NumPy's and JAX's numbers become Python's; tuples become lists.
    """
    return json.loads(json.dumps(value, default=_without_json), parse_constant=lambda _: None)


def to_json(value: Any) -> str:
    """One line of JSON that every parser reads."""
    return json.dumps(plain(value), allow_nan=False)


def _without_json(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else str(value)


def write_manifest(path: Path, content: Mapping[str, Any], indent: int | None = None) -> None:
    """Write a JSON object together with a checksum of itself, atomically; `indent` makes it pleasant to read."""
    write_atomically(path, json.dumps({**content, CHECKSUM: identity(content)}, indent=indent).encode())


def read_manifest(path: Path, remedy: str) -> dict[str, Any]:
    """Read what `write_manifest` wrote.

    Raises:
      FileNotFoundError: there is none.
      UserError: it is damaged; the message ends with `remedy`.
    """
    raw = path.read_bytes()
    try:
        content = json.loads(raw)
        checksum = content.pop(CHECKSUM)
        intact = checksum == identity(content)
    except (ValueError, KeyError, AttributeError, TypeError):
        intact = False
    if not intact:
        raise UserError(f"{path} is damaged (its checksum does not fit its content): {remedy}")
    return content


def read_stamped(path: Path, stamp: Stamp) -> bytes | None:
    """The file's content, or None when it is missing or is not what the stamp says."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    return content if hashlib.sha256(content).hexdigest() == stamp.sha256 else None


def lock(path: Path, what: str) -> int:
    """Take an exclusive lock that lasts until the returned descriptor is closed or the process ends.

    Raises:
      UserError: another process (named) holds it.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.read(descriptor, 20).decode(errors="replace").strip() or "unknown"
        os.close(descriptor)
        raise UserError(
            f"{what} is being written by process {owner}: wait for it to end, stop it, or use another run"
        ) from None
    os.truncate(descriptor, 0)
    os.write(descriptor, str(os.getpid()).encode())
    return descriptor
