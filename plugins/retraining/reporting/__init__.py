"""What people get to see of a run: page, summary, notifications."""
