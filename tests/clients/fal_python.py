"""FAL's own Python client against a FAL-shaped server: every assertion is about what the client makes of the answers.

The client is not changed: FAL_RUN_HOST, FAL_QUEUE_RUN_HOST, FAL_KEY and SSL_CERT_FILE, read when it is imported, point
it at the server. Only for uploads, whose hosts it does not let one choose, are two of its variables set (REST_URL).
"""

import asyncio
import os
import urllib.request

import fal_client
import fal_client.client

FLUX = "fal-ai/flux-pro/v1.1-ultra"
# A job that waits, and then runs, until told otherwise.
HELD = "[sim:queue_ms:3600000] [sim:never]"


def expect_error(call, status, **more):
    """Asserts that the call raises the client's HTTP error with this status and these attributes; gives it."""
    try:
        call()
    except fal_client.client.FalClientHTTPError as error:
        assert error.status_code == status, (error.status_code, error.message)
        for name, value in more.items():
            assert getattr(error, name) == value, (name, getattr(error, name))
        return error
    raise AssertionError(f"no error, expected {status}")


def step(request_id, name):
    """Moves a job by hand, so that no check depends on the machine's speed."""
    url = f"{os.environ['TEST_CONTROL_URL']}/jobs/{request_id}/{name}"
    with urllib.request.urlopen(urllib.request.Request(url, method="POST")) as response:
        assert response.status == 200


def subscribe_gives_the_result_and_every_state():
    seen, ids = [], []

    def observe(status):
        # Each state lasts until the client has seen it.
        if type(status) not in map(type, seen) and not isinstance(status, fal_client.Completed):
            step(ids[0], "start" if isinstance(status, fal_client.Queued) else "finish")
        seen.append(status)

    result = fal_client.subscribe(
        FLUX,
        arguments={"prompt": "py subscribe " + HELD, "aspect_ratio": "9:16", "num_images": 2},
        with_logs=True,
        on_enqueue=ids.append,
        on_queue_update=observe,
    )
    assert len(ids) == 1
    kinds = [type(status).__name__ for status in seen]
    assert list(dict.fromkeys(kinds)) == ["Queued", "InProgress", "Completed"], kinds
    assert seen[0].position == 0
    running = next(status for status in seen if isinstance(status, fal_client.InProgress))
    assert running.logs[0]["message"] and running.logs[0]["level"] == "INFO"
    assert seen[-1].metrics["inference_time"] > 0 and seen[-1].error is None
    assert len(result["images"]) == 2 and result["has_nsfw_concepts"] == [False, False]
    assert result["images"][0]["height"] > result["images"][0]["width"]
    assert isinstance(result["seed"], int)
    with urllib.request.urlopen(result["images"][1]["url"]) as response:
        assert response.headers["content-type"] == "image/jpeg"
        assert response.read(3) == b"\xff\xd8\xff"


def submit_status_result_with_and_without_logs():
    handle = fal_client.submit("fal-ai/veo3", arguments={"prompt": "py submit " + HELD, "duration": "4s"},
                               hint="lane-1", priority="low", start_timeout=30)
    assert isinstance(handle.status(), fal_client.Queued)
    step(handle.request_id, "start")
    assert isinstance(handle.status(), fal_client.InProgress)
    step(handle.request_id, "finish")
    without = list(handle.iter_events(with_logs=False))[-1]
    assert isinstance(without, fal_client.Completed) and without.logs is None
    assert isinstance(handle.status(with_logs=True).logs, list)
    video = handle.get()["video"]
    with urllib.request.urlopen(video["url"]) as response:
        assert response.headers["content-type"] == "video/mp4"
        assert response.read(12)[4:8] == b"ftyp"
    # The handle can be made again from the id alone, by owner and alias.
    again = fal_client.SyncClient().get_handle("fal-ai/veo3", handle.request_id)
    assert again.get()["video"] == video
    assert fal_client.result("fal-ai/veo3", handle.request_id)["video"] == video


def several_jobs_queue_up():
    first = fal_client.submit(FLUX, arguments={"prompt": "py first [sim:queue_ms:60000]"})
    second = fal_client.submit(FLUX, arguments={"prompt": "py second [sim:queue_ms:60000]"})
    assert second.status().position == first.status().position + 1
    second.cancel()
    first.cancel()


def run_answers_directly():
    result = fal_client.run(FLUX, arguments={"prompt": "py run", "output_format": "png", "seed": 7})
    assert result["seed"] == 7 and result["images"][0]["content_type"] == "image/png"
    expect_error(lambda: fal_client.run(FLUX, arguments={}), 422)


def invalid_input_is_accepted_and_fails_on_the_result():
    handle = fal_client.submit("fal-ai/veo3", arguments={"prompt": "py bad", "duration": 8})
    error = expect_error(handle.get, 422)
    assert error.message[0]["loc"] == ["body", "duration"], error.message
    assert error.message[0]["type"] == "string_type" and error.message[0]["input"] == 8
    assert error.message[0]["url"].startswith("https://docs.fal.ai/errors/#")
    status = handle.status()
    assert isinstance(status, fal_client.Completed)
    assert status.error_type == "string_type" and status.error


def failures_keep_their_types():
    policy = fal_client.submit(FLUX, arguments={"prompt": "py refused [sim:policy]"})
    error = expect_error(policy.get, 422)
    assert error.message[0]["type"] == "content_policy_violation"
    assert policy.status().error_type == "content_policy_violation"
    runner = fal_client.submit(FLUX, arguments={"prompt": "py broken [sim:error:runner_server_error]"})
    expect_error(runner.get, 500, error_type="runner_server_error")
    assert runner.status().error_type == "runner_server_error"


def start_timeout_is_the_users_own_504():
    handle = fal_client.submit(FLUX, arguments={"prompt": "py late [sim:queue_ms:60000]"}, start_timeout=1.1)
    error = expect_error(handle.get, 504, error_type="request_timeout")
    assert error.response_headers["x-fal-request-timeout-type"] == "user"


def cancel_in_queue_running_and_too_late():
    for prompt in ("py cancel queued [sim:queue_ms:60000]", "py cancel running [sim:queue_ms:0] [sim:never]"):
        handle = fal_client.submit(FLUX, arguments={"prompt": prompt})
        handle.cancel()
        expect_error(handle.get, 499, error_type="client_cancelled")
        expect_error(handle.cancel, 400)
    expect_error(lambda: fal_client.cancel(FLUX, "no-such-request"), 404)


def refusals_have_their_status():
    def submit(**key):
        return fal_client.SyncClient(**key).submit(FLUX, arguments={"prompt": "py refused"})

    expect_error(lambda: submit(key="wrong"), 401, message="No user found for Key ID and Secret")
    expect_error(lambda: fal_client.submit("fal-ai/no-such-model", arguments={"prompt": "x"}), 404)


def busy_server_is_asked_again_by_the_client():
    result = fal_client.subscribe(FLUX, arguments={"prompt": "py busy [sim:submit=429*2] [sim:status=429*1]"})
    assert result["prompt"].startswith("py busy")


def client_timeout_cancels():
    try:
        fal_client.subscribe(FLUX, arguments={"prompt": "py impatient [sim:never]"}, client_timeout=3)
    except fal_client.client.FalClientTimeoutError as error:
        status = fal_client.status(FLUX, error.request_id)
        assert status.error_type == "client_cancelled", status
    else:
        raise AssertionError("no timeout")


def a_missing_logs_key_would_be_noticed():
    # The strictness relied upon: were `logs` left out, the client could not read the status.
    handle = fal_client.submit(FLUX, arguments={"prompt": "py strict"})
    handle.get()
    raw = handle.client.get(handle.status_url).json()
    assert "logs" in raw
    del raw["logs"]
    try:
        handle._parse_status(raw)
    except KeyError:
        return
    raise AssertionError("the client became lenient; this test no longer shows anything")


def uploads_arrive():
    fal_client.client.REST_URL = fal_client.client.CDN_URL = os.environ["TEST_REST_URL"]
    for repository in ("fal_v3", "fal"):
        url = fal_client.SyncClient().upload(b"hello " + repository.encode(), "text/plain", "a.txt",
                                              repository=repository, fallback_repository=[])
        with urllib.request.urlopen(url) as response:
            assert response.read() == b"hello " + repository.encode()


def asynchronous_client_too():
    async def work():
        states = []
        result = await fal_client.subscribe_async(
            "fal-ai/kling-video/v2.1/master/text-to-video",
            arguments={"prompt": "py async", "duration": "5", "cfg_scale": 0.5},
            on_queue_update=states.append,
        )
        assert result["video"]["url"].endswith(".mp4") and isinstance(states[-1], fal_client.Completed)

    asyncio.run(work())


if __name__ == "__main__":
    checks = [value for name, value in list(globals().items())
              if callable(value) and getattr(value, "__module__", None) == "__main__" and name not in ("expect_error", "step")]
    for check in checks:
        check()
        print("ok", check.__name__)
    assert len(checks) == 14, len(checks)
