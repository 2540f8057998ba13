"""What people are told about a run: its report, its summary, notifications."""
