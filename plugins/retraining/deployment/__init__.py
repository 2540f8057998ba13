"""Putting a model into service and taking it out: endpoint, alarms, verification, retirement, rollback."""
