"""Tests of the launchers; a package, so that their conftest is not taken for the one of all tests."""
