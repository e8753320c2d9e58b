"""What every command stands on; knows nothing of models."""
