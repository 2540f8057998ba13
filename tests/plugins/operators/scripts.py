"""A training script for tests of what follows its job."""

# Behaves as its hyperparameter says and takes no time: the operators are under test, not the training.
SCRIPT = """
import argparse, os, pathlib, time
parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float, default=0.5)
parser.add_argument("--behave", default="well")
arguments, _ = parser.parse_known_args()
print(f"epoch=1 train_loss=0.5 valid_accuracy={arguments.lr}", flush=True)
while arguments.behave == "endlessly":
    time.sleep(0.1)
if arguments.behave == "badly":
    raise ValueError("the learning rate is too high; lower it")
pathlib.Path(os.environ["SM_MODEL_DIR"], "model.txt").write_text("a model")
print("final test_accuracy=0.75", flush=True)
"""
