"""The networks that delen knows by name.

``registry`` finds them. A module for each family says how its networks are made, and lists them
in ``ENTRIES``. No module imports torchvision or transformers before a network of it is made.
"""
