"""What a run does, in order: inputs are prepared, then each iteration samples, trains and measures."""
