"""What the user chose on make's command line, and where everything generated lies."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SAMPLE_PIPELINE = "dog_breed"
REGION = "us-east-1"
ROLE = "SageMakerRetrainingRole"


class DemoError(Exception):
    """The demonstration cannot go on; the text names the input and the fix."""


@dataclass(frozen=True)
class Settings:
    """Paths and ports. A port of 0 stands for any free one, chosen when the service starts."""

    local: Path
    airflow_port: int = 8080
    sagemaker_port: int = 4600
    require_signatures: bool = False

    @property
    def airflow_home(self) -> Path:
        return self.local / "airflow"

    @property
    def sagemaker_root(self) -> Path:
        return self.local / "sagemaker"

    @property
    def credentials(self) -> Path:
        """The local SageMaker's pair of keys."""
        return self.sagemaker_root / "credentials.json"

    @property
    def environments(self) -> Path:
        return self.local / "envs"

    @property
    def logs(self) -> Path:
        return self.local / "logs"

    @property
    def choice(self) -> Path:
        return self.local / "choice.json"

    @property
    def report(self) -> Path:
        return self.local / "run.json"


@dataclass(frozen=True)
class Choice:
    """What a run is about: the data, the starting weights, and the DAG's parameters.

    `data` None is the sample dataset, `weights` None random initialisation; `pipeline` None is the sample's,
    or that of the data's folder.
    """

    data: Path | None = None
    weights: Path | None = None
    arch: str = "resnet50"
    params: Mapping[str, Any] = field(default_factory=dict)
    pipeline: str | None = None


_DIGITS = re.compile(r"[0-9]{1,18}")


def port(environment: Mapping[str, str], name: str, default: int) -> int:
    text = environment.get(name) or str(default)
    if not _DIGITS.fullmatch(text) or int(text) > 65535:
        raise DemoError(f"{name}={text} is no port: give a number from 1 to 65535, or 0 for any free one")
    return int(text)


def number(environment: Mapping[str, str], name: str, default: int) -> int:
    """A variable that counts something; DemoError for anything but digits."""
    text = environment.get(name) or str(default)
    if not _DIGITS.fullmatch(text):
        raise DemoError(f"{name}={text} is no number: give digits, for example {name}={default}")
    return int(text)


def read_settings(environment: Mapping[str, str]) -> Settings:
    return Settings(
        local=Path(environment.get("LOCAL_DIR") or ROOT / ".local").absolute(),
        airflow_port=port(environment, "AIRFLOW_PORT", 8080),
        sagemaker_port=port(environment, "SAGEMAKER_PORT", 4600),
        require_signatures=environment.get("REQUIRE_SIGNATURES", "0") not in {"", "0"},
    )


def existing(environment: Mapping[str, str], name: str) -> Path | None:
    """The path in a variable, None where it is not set; DemoError where nothing lies there."""
    text = environment.get(name)
    if not text:
        return None
    path = Path(text).expanduser().absolute()
    if not path.exists():
        raise DemoError(f"{name}={text}: there is nothing at {path}")
    return path


def read_params(environment: Mapping[str, str]) -> dict[str, Any]:
    text = environment.get("PARAMS") or "{}"
    example = "for example PARAMS='{\"max_jobs\": 4}'"
    try:
        params = json.loads(text)
    except json.JSONDecodeError as error:
        raise DemoError(f"PARAMS={text} is no JSON ({error}); {example}") from error
    if not isinstance(params, dict):
        raise DemoError(f"PARAMS={text} is no JSON object; {example}")
    return params


def check_params(params: Mapping[str, Any], known: Sequence[str]) -> None:
    """DemoError for a parameter that the form does not have; no check without a form, as of a wrong file."""
    for name in sorted(params.keys() - set(known)) if known else ():
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
        raise DemoError(f"PARAMS: there is no parameter {name!r}; {hint}")


def read_choice(environment: Mapping[str, str], default: Choice | None = None) -> Choice:
    """What make's variables choose, the rest from `default`."""
    default = default or Choice()
    return Choice(
        data=existing(environment, "DATA") or default.data,
        weights=existing(environment, "WEIGHTS") or default.weights,
        arch=environment.get("ARCH") or default.arch,
        params={**default.params, **read_params(environment)},
        pipeline=environment.get("PIPELINE") or default.pipeline,
    )


def write_choice(path: Path, choice: Choice) -> None:
    """Remember the choice for `make trigger`."""
    path.write_text(json.dumps(asdict(choice), default=str))


def last_choice(path: Path) -> Choice:
    """What the last `make demo` chose; the defaults where there was none."""
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        return Choice()
    folder, weights = (Path(content[name]) if content[name] else None for name in ("data", "weights"))
    return Choice(folder, weights, content["arch"], content["params"], content.get("pipeline"))
