"""The report of a run: one HTML file that a board can read, with everything it shows inside it."""
