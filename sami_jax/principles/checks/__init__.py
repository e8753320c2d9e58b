"""Checks: what a response must show to follow a principle, stated in the principle's file and decided by a program."""
