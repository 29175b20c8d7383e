"""How long a configuration will take here, and what it needs: measured for a minute, the rest by arithmetic."""
