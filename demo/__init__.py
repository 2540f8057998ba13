"""The demonstration: environments, services, a sample data set, and one run watched from the terminal."""
