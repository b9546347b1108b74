"""The files of a run: the runtime directory, the manifest, the secret, the result, and the check of ownership."""
