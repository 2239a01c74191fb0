"""mUSE: its network, its weights, its graphs."""
