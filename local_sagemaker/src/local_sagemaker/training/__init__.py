"""Training jobs: AWS's training toolkit runs as a process in the environment of an image."""
