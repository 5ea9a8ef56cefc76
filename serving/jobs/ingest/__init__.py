"""Many images into a collection: into its folder, or through a running server."""
