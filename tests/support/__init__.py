"""What several tests need and is no test itself."""
