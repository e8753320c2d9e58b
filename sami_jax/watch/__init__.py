"""After the launch: what a served model says, window by window, beside what it said when it was measured."""
