"""What latents say of an embedding model."""
