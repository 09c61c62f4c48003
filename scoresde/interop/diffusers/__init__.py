"""Networks and schedulers of diffusers, which is not imported."""
