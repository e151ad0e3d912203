"""What the pages do, by who looks at them."""
