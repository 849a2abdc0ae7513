"""What is learned in dreams of several temperatures."""
