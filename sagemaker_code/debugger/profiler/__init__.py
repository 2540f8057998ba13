"""Profiler: system samples and step traces in, AWS's eleven rule files and one readable page out."""
