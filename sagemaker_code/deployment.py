"""The model behind Ray Serve, as AWS's image for inference runs it: `config.yaml` names `app`.

Lies at the top of model.tar.gz, beside `model.json`. `inference.py` is the same for TorchServe.
"""

import asyncio
import sys
from pathlib import Path

from ray import serve
from starlette.requests import Request
from starlette.responses import Response

FOLDER = Path(__file__).resolve().parent
CODE = str(FOLDER / "code")
sys.path.append(CODE)  # AWS's image has it on the path already, other places need not

from classifier.prediction import Classifier  # noqa: E402 - found by the line above
from classifier.requests import RESPONSE_TYPE, RequestError, answer  # noqa: E402
from classifier.traffic import Traffic  # noqa: E402

# Ray Serve is healthy on its head node once this file is imported, while the replica still starts. So the
# model is loaded here, too: where that fails, the application has no route and never becomes healthy.
Classifier.load(FOLDER).warm_up()

# One replica, on the GPU if the machine has one; Ray hides GPUs from replicas that ask for none.
GPUS = 1 if Path("/dev/nvidia0").exists() else 0


@serve.deployment(ray_actor_options={"num_gpus": GPUS, "runtime_env": {"env_vars": {"PYTHONPATH": CODE}}})
class Endpoint:
    """Responds to requests with an image as their body."""

    def __init__(self) -> None:
        """Load the model. Raises ModelValueError."""
        self._classifier = Classifier.load(FOLDER)
        self._classifier.warm_up()
        self._traffic = Traffic()

    async def __call__(self, request: Request) -> Response:
        """The response to one request; a refusal has its reason as text."""
        body, headers = await request.body(), request.headers
        content_type, accept = headers.get("content-type", ""), headers.get("accept", RESPONSE_TYPE)
        try:
            with self._traffic.request():
                text = await asyncio.to_thread(answer, self._classifier, body, content_type, accept)
        except RequestError as error:
            return Response(str(error), error.status, media_type="text/plain")
        return Response(text, media_type=RESPONSE_TYPE)


app = Endpoint.bind()  # type: ignore[attr-defined]
