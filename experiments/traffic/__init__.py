"""What the pairs do: one file for each kind of traffic."""
