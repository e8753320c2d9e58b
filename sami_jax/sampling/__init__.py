"""Text from a model: decoding, and who asks for it."""
