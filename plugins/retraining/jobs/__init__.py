"""SageMaker jobs followed from a task: training, tuning, processing; what rules found in them."""
