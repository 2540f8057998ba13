"""Writing files so that nobody sees half of one."""

import tempfile
from pathlib import Path


def write_atomically(path: Path, content: bytes) -> None:
    """Write a neighbouring file, then move it into place; a failure leaves an earlier file as it was.

    Raises OSError that names the file and its size.
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
