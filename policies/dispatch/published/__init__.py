"""Dispatch policies to compare with: textbook orders, and other systems' after their papers."""
