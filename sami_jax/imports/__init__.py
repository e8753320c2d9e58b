"""Models of other formats, read into Hugging Face folders: GGUF."""
