"""What leaves the house: models and adapters in the formats of others, and the way to a hub."""
