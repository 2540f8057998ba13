"""What belongs to one run: names, context, results, and what it leaves to the next one."""
