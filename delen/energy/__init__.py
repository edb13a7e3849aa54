"""A joule from sensor window to receipt."""
