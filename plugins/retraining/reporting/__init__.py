"""What people read about a run: its report, its summary, notifications."""
