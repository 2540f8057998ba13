"""The image classifier: data, model, training and files, for the entry points beside this package.

A model archive carries the whole package, so this module imports nothing.
"""
