"""A model into service and out of it: endpoint, alarms, verification, retirement, rollback."""
