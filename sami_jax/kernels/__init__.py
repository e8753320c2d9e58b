"""What of a decoder a device's own kernels compute, or loops written for it."""
