"""What a run leaves for an auditor: run.json, a statement of what was made from what, and audit.jsonl, the log of how."""
