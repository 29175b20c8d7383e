"""What trained nets predict, how wrong they are, what an ingredient gains, and the word that this evidence earns."""
