"""Where people follow a run while it goes on: TensorBoard, Weights & Biases, MLflow."""
