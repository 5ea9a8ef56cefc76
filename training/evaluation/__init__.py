"""What `python -m training.evaluate` is made of: measurements of a frozen encoder, and the page that shows them."""
