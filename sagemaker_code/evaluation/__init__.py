"""The parts of evaluate.py: predictions on the test images, metrics, comparison, results and charts."""
