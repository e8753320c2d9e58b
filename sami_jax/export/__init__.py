"""What leaves the house: models in the formats of others, their cards, the way to a hub."""
