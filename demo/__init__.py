"""The demonstration: environments, services, a sample dataset, and one run watched from the terminal."""
