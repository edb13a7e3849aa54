"""What runs segments."""
