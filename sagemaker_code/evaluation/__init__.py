"""What evaluate.py is made of: models on test pictures, their figures, the comparison, results and charts."""
