"""Debugger rules, profiler rules and their reports, for a job's own container or for a platform beside it.

The package is self-contained. It reads everything it knows about a job from the job's files (tensors by
smdebug, system samples, step traces), so the same code serves a platform that evaluates rules and a job that
watches itself. Its command line is ``python -m debugger --help``. Importing it makes smdebug importable.
"""

from debugger import library

library.prepare()
