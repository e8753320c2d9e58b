"""What people read of a run: the page that a board can read, the tables at its end, the model's card."""
