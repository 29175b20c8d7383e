"""Each benchmark measures this project beside a peer on the same work, alternately, and gives a ratio."""
