"""The model behind Ray Serve, as AWS's image for inference runs it: `config.yaml` names `app`.

Lies at the top of model.tar.gz, beside `model.json`. A replica loads the model and predicts once before Ray
Serve counts it as healthy, so a model that does not load never gets a request. `inference.py` is the same for
TorchServe.
"""

import asyncio
import sys
from pathlib import Path

from ray import serve
from starlette.requests import Request
from starlette.responses import Response

FOLDER = Path(__file__).resolve().parent
sys.path.append(str(FOLDER / "code"))  # AWS's image has it on the path already, other places need not

# One replica, on the GPU if the machine has one; Ray hides GPUs from replicas that ask for none.
GPUS = 1 if Path("/dev/nvidia0").exists() else 0


@serve.deployment(ray_actor_options={"num_gpus": GPUS})
class Endpoint:
    """Responds to requests with an image as their body."""

    def __init__(self) -> None:
        """Load the model. Raises ModelValueError."""
        sys.path.append(str(FOLDER / "code"))  # a replica is a process of its own
        from classifier.prediction import Classifier  # noqa: PLC0415 - in the archive's folder `code`

        self._classifier = Classifier.load(FOLDER)
        self._classifier.warm_up()

    async def __call__(self, request: Request) -> Response:
        """The response to one request; a refusal has its reason as text."""
        from classifier.requests import RESPONSE_TYPE, RequestError, answer  # noqa: PLC0415 - as above

        body, headers = await request.body(), request.headers
        content_type, accept = headers.get("content-type", ""), headers.get("accept", RESPONSE_TYPE)
        try:
            text = await asyncio.to_thread(answer, self._classifier, body, content_type, accept)
        except RequestError as error:
            return Response(str(error), error.status, media_type="text/plain")
        return Response(text, media_type=RESPONSE_TYPE)


app = Endpoint.bind()  # type: ignore[attr-defined]
