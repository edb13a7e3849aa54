"""The messages of the REST API, each defined once."""
