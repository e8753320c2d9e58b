"""How weights that are not trained lie in memory: as they are computed with, or in 8 or 4 bits."""
