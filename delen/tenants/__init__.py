"""Settings and use of tenants, and the file that keeps them."""
