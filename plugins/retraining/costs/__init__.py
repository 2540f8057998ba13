"""What a run may cost, and what it did."""
