"""Prometheus metrics: what is counted of requests, energy, tenants and memory."""
