"""Training jobs that really run: AWS's training toolkit, as a process, in the environment of an image."""
