"""What differences between nets amount to, how sure that is, and the word for it."""
