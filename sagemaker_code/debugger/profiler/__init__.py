"""The profiler: turns system samples and step traces into AWS's eleven rule files and a report page."""
