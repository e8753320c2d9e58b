"""The desk: local pages on which people decide about principles, rate pairs of responses, and follow runs."""
