"""A new release beside the champion, on the same held-out images: figures, gates, a verdict and a page."""
