"""Atomic file writes: a reader sees the old file or the new one, never a part."""

import tempfile
from pathlib import Path


def write_atomically(path: Path, content: bytes) -> None:
    """Write to a temporary file beside `path`, then rename it; a failure leaves the existing file unchanged.

    Raises OSError that names the file, its size and the fix.
    """
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        temporary = Path(file.name)
        try:
            file.write(content)
            file.flush()
        except OSError as error:
            temporary.unlink()
            fix = f"{error.strerror} ({len(content):,} bytes to write): give the job a larger volume"
            raise OSError(error.errno, fix, str(path)) from error
    temporary.chmod(0o644)
    temporary.replace(path)
