"""Debugger rules, profiler rules and their reports, for a job's own container or a platform beside it.

The package is self-contained: everything it knows about a job it reads from the files that job wrote (tensors
by smdebug, system samples, step traces), so the same code serves a platform's rule evaluation and a job that
watches itself. Its command line is ``python -m debugger --help``.
"""
