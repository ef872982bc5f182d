"""Replicate's own Python client against a Replicate-shaped server: every assertion is about what the client makes of it.

The client is not changed: REPLICATE_BASE_URL (without /v1), REPLICATE_API_TOKEN, REPLICATE_POLL_INTERVAL and SSL_CERT_FILE
point it at the server.
"""

import asyncio
import http.server
import json
import os
import queue
import threading
import urllib.request

import replicate
from replicate.exceptions import ModelError, ReplicateError
from replicate.pagination import paginate
from replicate.webhook import InvalidSignatureError, Webhooks, WebhookSigningSecret

ULTRA = "black-forest-labs/flux-1.1-pro-ultra"
SCHNELL = "black-forest-labs/flux-schnell"
SDXL = "stability-ai/sdxl"
VERSION = os.environ["TEST_VERSION"]
PNG = b"\x89PNG\r\n\x1a\n"


def expect_error(call, status, title=None, detail=""):
    """Asserts that the call raises the client's error with these members."""
    try:
        call()
    except ReplicateError as error:
        assert error.status == status, error
        assert error.title == title and detail in error.detail, error
        return
    raise AssertionError(f"no error, expected {status}")


def nudge(prediction):
    """Moves a held prediction by hand, so that no check depends on the machine's speed."""
    url = f"{os.environ['TEST_CONTROL_URL']}/predictions/{prediction.id}/nudge"
    with urllib.request.urlopen(urllib.request.Request(url, method="POST")) as response:
        assert response.status == 200


def run_gives_one_file():
    output = replicate.run(ULTRA, input={"prompt": "py run", "aspect_ratio": "16:9"})
    assert output.read().startswith(PNG)
    assert str(output).startswith(os.environ["REPLICATE_BASE_URL"])


def run_gives_many_files():
    output = replicate.run(SCHNELL, input={"prompt": "py many", "num_outputs": 3})
    assert len(output) == 3 and all(file.read().startswith(PNG) for file in output)


def run_of_a_version_gives_plain_urls():
    output = replicate.run(f"{SDXL}:{VERSION}", input={"prompt": "py version"}, use_file_output=False)
    assert len(output) == 1 and output[0].endswith("-0.png"), output


def run_without_waiting_polls():
    output = replicate.run(ULTRA, input={"prompt": "py poll"}, wait=False)
    assert output.read().startswith(PNG)


def run_takes_processing_with_an_output_for_done():
    output = replicate.run(ULTRA, input={"prompt": "py early [sim:early]"})
    assert output.read().startswith(PNG)


def run_of_a_failure_raises():
    for mark, text in [("fail", "list index"), ("nsfw", "NSFW content"), ("memory", "out of memory")]:
        try:
            replicate.run(ULTRA, input={"prompt": f"py failure [sim:{mark}]"})
        except ModelError as error:
            assert error.prediction.status == "failed" and text in error.prediction.error
        else:
            raise AssertionError("no error")


def create_get_and_wait_see_every_state():
    prediction = replicate.predictions.create(version=VERSION, input={"prompt": "py create [sim:hold]"})
    assert (prediction.status, prediction.output, prediction.version) == ("starting", None, VERSION)
    assert prediction.model == SDXL and prediction.input["prompt"].startswith("py create")
    assert prediction.urls["get"].endswith(f"/v1/predictions/{prediction.id}")
    assert prediction.started_at is None and prediction.completed_at is None and prediction.created_at
    nudge(prediction)
    while prediction.status == "starting":
        prediction.reload()
    assert prediction.status == "processing" and prediction.started_at
    assert prediction.progress.percentage == 0.5 and prediction.progress.total == 2
    nudge(prediction)
    prediction.wait()
    assert prediction.status == "succeeded" and prediction.error is None and prediction.completed_at
    assert prediction.metrics["predict_time"] > 0 and prediction.progress.percentage == 1
    again = replicate.predictions.get(prediction.id)
    assert again.output == prediction.output and len(again.output) == 1


def a_wait_that_runs_out_leaves_it_running():
    prediction = replicate.predictions.create(version=VERSION, input={"prompt": "py late [sim:hold]"}, wait=1)
    assert prediction.status == "starting" and prediction.output is None
    nudge(prediction)
    nudge(prediction)
    prediction.wait()
    assert prediction.status == "succeeded"


def a_deployment_creates_too():
    prediction = replicate.deployments.predictions.create(("acme", "fast"), input={"prompt": "py deployed"})
    prediction.wait()
    assert (prediction.status, prediction.model, prediction.version) == ("succeeded", SDXL, VERSION)


def cancel_ends_it():
    prediction = replicate.models.predictions.create(ULTRA, input={"prompt": "py cancel [sim:hold]"})
    assert prediction.version == "hidden"
    prediction.cancel()
    assert prediction.status == "canceled" and prediction.completed_at
    assert replicate.predictions.get(prediction.id).status == "canceled"
    # A second one changes nothing.
    prediction.cancel()
    assert prediction.status == "canceled" and prediction.output is None


def somebody_else_cancels():
    assert replicate.run(ULTRA, input={"prompt": "py canceled [sim:canceled]"}) is None


def the_list_has_pages():
    pages = list(paginate(replicate.predictions.list))
    assert len(pages) > 2 and all(len(page) <= 3 for page in pages)
    ids = [prediction.id for page in pages for prediction in page]
    assert len(set(ids)) == len(ids) >= 10
    assert pages[0][0].input["prompt"].startswith("py canceled"), "the newest is the first"
    assert pages[-1][len(pages[-1]) - 1].input["prompt"] == "py run"
    assert pages[0].previous is None and pages[1].previous and pages[-1].next is None
    back = replicate.predictions.list(pages[1].previous)
    assert [prediction.id for prediction in back] == [prediction.id for prediction in pages[0]]


def models_and_versions_are_known():
    model = replicate.models.get(SDXL)
    assert model.owner == "stability-ai" and model.latest_version.id == VERSION
    assert model.versions.get(VERSION).cog_version
    prediction = replicate.predictions.create(model.latest_version, input={"prompt": "py latest"})
    prediction.wait()
    assert prediction.status == "succeeded"


def webhooks_are_signed():
    """What arrives passes the client's own check, and what was changed does not."""
    arrived = queue.Queue()

    class Receiver(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"])).decode()
            arrived.put((dict(self.headers), body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    receiver = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=receiver.serve_forever, daemon=True).start()
    secret = replicate.webhooks.default.secret()
    created = replicate.models.predictions.create(
        ULTRA,
        input={"prompt": "py webhook"},
        webhook=f"http://127.0.0.1:{receiver.server_port}/hook",
        webhook_events_filter=["completed"],
    )
    headers, body = arrived.get(timeout=20)
    receiver.shutdown()
    Webhooks.validate(headers=headers, body=body, secret=secret, tolerance=60)
    hook = json.loads(body)
    assert (hook["id"], hook["status"]) == (created.id, "succeeded") and arrived.empty()
    for text, key in [(body + " ", secret.key), (body, "whsec_AAAA")]:
        try:
            Webhooks.validate(headers=headers, body=text, secret=WebhookSigningSecret(key=key))
        except InvalidSignatureError:
            continue
        raise AssertionError("a wrong signature was believed")


def refusals_are_errors_with_their_members():
    def create(prompt, **more):
        return lambda: replicate.models.predictions.create(ULTRA, input={"prompt": prompt}, **more)

    wrong = replicate.Client(api_token="r8_wrong")
    unauthenticated = "You did not pass a valid authentication token"
    expect_error(lambda: wrong.predictions.list(), 401, "Unauthenticated", unauthenticated)
    expect_error(create("[sim:broke]"), 402, "Insufficient credit", "insufficient credit")
    expect_error(create("[sim:throttled]"), 429, None, "throttled")
    expect_error(lambda: replicate.predictions.get("nothing"), 404, None, "could not be found")
    invalid = "Input validation failed"
    expect_error(lambda: replicate.run(ULTRA, input={}), 422, invalid, "prompt is required")
    expect_error(lambda: replicate.run(ULTRA, input={"prompt": "x", "seed": "y"}), 422, invalid, "Expected: integer")
    expect_error(lambda: replicate.run(ULTRA, input={"prompt": "x", "aspect_ratio": "7:7"}), 422, invalid, "one of")
    expect_error(create("x", webhook_completed="https://a.example"), 422, invalid, "webhook_completed")
    expect_error(create("x", webhook="ftp://a.example"), 422, invalid, "HTTPS")
    expect_error(create("x", webhook_events_filter=["sometimes"]), 422, invalid, "completed")
    version = "Invalid version or not permitted"
    expect_error(lambda: replicate.predictions.create("0" * 64, {"prompt": "x"}), 422, version, "does not exist")
    # No official model: it has to be run by its version.
    expect_error(lambda: replicate.run(SDXL, input={"prompt": "x"}), 404, None, "could not be found")
    expect_error(lambda: replicate.models.get("acme/nothing"), 404, None, "could not be found")


def asynchronous_client_too():
    async def work():
        output = await replicate.async_run(ULTRA, input={"prompt": "py async"})
        assert (await output.aread()).startswith(PNG)
        prediction = await replicate.predictions.async_create(version=VERSION, input={"prompt": "py async 2 [sim:hold]"})
        await prediction.async_cancel()
        assert prediction.status == "canceled"

    asyncio.run(work())


if __name__ == "__main__":
    checks = [value for name, value in list(globals().items())
              if callable(value) and getattr(value, "__module__", None) == "__main__" and name not in ("expect_error", "nudge")]
    for check in checks:
        check()
        print("ok", check.__name__)
    assert len(checks) == 16, len(checks)
