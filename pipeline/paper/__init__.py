"""What the paper says: its net, its recipe in two readings, its claims. Data files with typed access."""
