"""What trained nets predict, and how wrong they are."""
