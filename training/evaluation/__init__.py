"""What `simclr evaluate` is made of: measurements of a frozen encoder, and the page that shows them."""
