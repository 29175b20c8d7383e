"""The nets and their parts: plain torch modules."""
