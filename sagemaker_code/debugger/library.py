"""Makes smdebug 1.0.34, whose last release is of 2023, importable beside the libraries of today's images.

Its wheel travels with the code in `wheels/`, because no image of AWS has it any more. As it stands, it needs
protobuf below 3.21, NumPy below 2.3, a Python with `distutils` and a C extension. The images need what they
have, so smdebug is adapted while it is imported, and nothing else is touched:

- its generated protobuf modules are built anew from the descriptors in them, by the image's protobuf;
- `ndarray.tostring`, which NumPy 2.3 took out, becomes `tobytes`;
- its writer passes an error, such as a full disk, to the thread that saves tensors, which waited for ever;
- `distutils.util.strtobool`, gone in Python 3.12, and the profiler `pyinstrument`, which no job uses, are
  stand-ins where they are missing.

Known uses: `grep -rn` for these names in smdebug's sources.
"""

import ast
import importlib.abc
import importlib.util
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

WHEELS = Path(__file__).resolve().parents[1] / "wheels"

_GENERATED = "smdebug.core.tfevent.proto."
_WRITER = "smdebug.core.tfevent.util"
_EVENTS = "smdebug.core.tfevent.event_file_writer"
_STAND_INS = ("distutils", "distutils.util", "pyinstrument", "pyinstrument.renderers")


def prepare() -> None:
    """Let `import smdebug` find the library and adapt it; costs nothing before that."""
    if any(isinstance(finder, _Finder) for finder in sys.meta_path):
        return
    sys.meta_path.insert(0, _Finder())
    sys.meta_path.append(_StandIns())
    sys.path.extend(str(wheel) for wheel in sorted(WHEELS.glob("*.whl")))


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the modules of smdebug that have to be adapted, where the rest of it is found."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        generated = fullname.startswith(_GENERATED) and fullname.endswith("_pb2")
        if not generated and fullname not in {_WRITER, _EVENTS}:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.loader is None:
            return None
        adapted = {_WRITER: _Writer, _EVENTS: _Events}.get(fullname, _Messages)
        spec.loader = adapted(spec.loader)
        return spec


class _Adapted(importlib.abc.Loader):
    """Executes a module from its source, which another loader reads."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def source(self, module: ModuleType) -> str:
        source: str = self._loader.get_source(module.__name__)
        return source

    @staticmethod
    def execute(source: str, module: ModuleType) -> None:
        exec(compile(source, module.__name__, "exec"), vars(module))  # noqa: S102 - smdebug's own code


class _Writer(_Adapted):
    """The module that writes tensors, with NumPy's present name for the bytes of an array."""

    def exec_module(self, module: ModuleType) -> None:
        self.execute(self.source(module).replace(".tostring()", ".tobytes()"), module)


class _Events(_Adapted):
    """The module whose thread writes events from a queue, which only that thread empties."""

    def exec_module(self, module: ModuleType) -> None:
        self.execute(self.source(module), module)
        members: Any = module
        thread, writer = members._EventLoggerThread, members.EventFileWriter
        run, write_event, flush = thread.run, writer.write_event, writer.flush

        def run_to_the_end(self: Any) -> None:
            try:
                run(self)
            except BaseException as error:  # noqa: BLE001 - whatever it is, nobody else would learn of it
                self.error = error
                while self._queue.get() is not self._sentinel_event:  # whoever waits for the queue goes on
                    self._queue.task_done()
                self._queue.task_done()

        def raise_error(self: Any) -> None:
            if self._worker.error is not None:
                raise self._worker.error

        def write_or_raise(self: Any, event: Any) -> None:
            raise_error(self)
            write_event(self, event)

        def flush_or_raise(self: Any) -> None:
            raise_error(self)
            self._event_queue.join()
            raise_error(self)
            flush(self)

        thread.error = None
        thread.run = run_to_the_end
        writer.write_event, writer.flush = write_or_raise, flush_or_raise


class _Messages(_Adapted):
    """A module of messages, built from the serialised file descriptor that its old code contains."""

    def exec_module(self, module: ModuleType) -> None:
        from google.protobuf import descriptor_pool  # noqa: PLC0415 - only jobs that save tensors need it
        from google.protobuf.internal import builder  # noqa: PLC0415

        for name in _imported_messages(tree := ast.parse(self.source(module))):
            importlib.import_module(name)  # the pool needs them first
        descriptor = descriptor_pool.Default().AddSerializedFile(_serialised(tree))
        members = vars(module)
        members["DESCRIPTOR"] = descriptor
        builder.BuildMessageAndEnumDescriptors(descriptor, members)
        builder.BuildTopDescriptorsAndMessages(descriptor, module.__name__, members)


class _StandIns(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """The last finder: what no other one found."""

    def find_spec(self, fullname: str, *_: Any) -> ModuleSpec | None:
        if fullname not in _STAND_INS:
            return None
        return ModuleSpec(fullname, self, is_package="." not in fullname)

    def exec_module(self, module: ModuleType) -> None:
        if module.__name__ == "distutils.util":
            vars(module)["strtobool"] = _strtobool
        elif module.__name__ == "pyinstrument":
            vars(module)["Profiler"] = _NoProfiler
        elif module.__name__ == "pyinstrument.renderers":
            vars(module)["JSONRenderer"] = _NoProfiler


class _NoProfiler:
    """Stands in for pyinstrument's classes, which smdebug uses only where ProfilerName is pyinstrument."""

    def __init__(self, *_: Any, **__: Any) -> None:
        raise ImportError("pyinstrument is not installed: choose the profiler cprofile")


def _strtobool(value: str) -> int:
    """As in distutils: 1 for y, yes, t, true, on and 1; 0 for n, no, f, false, off and 0; else ValueError."""
    text = value.lower()
    if text in {"y", "yes", "t", "true", "on", "1"}:
        return 1
    if text in {"n", "no", "f", "false", "off", "0"}:
        return 0
    raise ValueError(f"invalid truth value {value!r}")


def _serialised(tree: ast.Module) -> bytes:
    """The argument `serialized_pb` of the file descriptor."""
    [value] = [
        keyword.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "_descriptor.FileDescriptor"
        for keyword in node.keywords
        if keyword.arg == "serialized_pb"
    ]
    content: bytes = ast.literal_eval(value)
    return content


def _imported_messages(tree: ast.Module) -> list[str]:
    """The other modules of messages that a module imports."""
    return [
        f"{node.module}.{alias.name}"
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and f"{node.module}." == _GENERATED
        for alias in node.names
    ]
