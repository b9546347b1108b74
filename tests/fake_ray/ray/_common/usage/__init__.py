"""As Ray's."""
