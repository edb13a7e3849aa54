"""Dispatch policies: which waiting tasks run which segment next. One file a system."""
