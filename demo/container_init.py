"""First start in containers: the database's tables and what all Airflow services share on their volume."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from demo.services import password_file


def main() -> int:
    """Airflow itself writes the configuration with the shared keys, when its command first runs."""
    password_file(Path(os.environ["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"]))
    return subprocess.run(["airflow", "db", "migrate"], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
