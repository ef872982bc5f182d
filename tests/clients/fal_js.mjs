// FAL's own JavaScript client against a FAL-shaped server. The client has no option for a base URL; its request
// middleware, a documented feature, moves the three hosts to the server under test. Everything else is untouched.

import assert from "node:assert/strict";
import { createRequire } from "node:module";

const { createFalClient, ApiError, ValidationError } = createRequire(`${process.env.CLIENTS_FOLDER}/package.json`)("@fal-ai/client");
const { TEST_QUEUE_URL, TEST_RUN_URL, TEST_REST_URL, TEST_CONTROL_URL, FAL_KEY } = process.env;
const FLUX = "fal-ai/flux-pro/v1.1-ultra";
// A job that waits, and then runs, until told otherwise.
const HELD = "[sim:queue_ms:3600000] [sim:never]";

const hosts = { "https://queue.fal.run": TEST_QUEUE_URL, "https://fal.run": TEST_RUN_URL, "https://rest.fal.ai": TEST_REST_URL };

function client(credentials) {
  return createFalClient({
    credentials,
    requestMiddleware: async (request) => {
      const [host] = request.url.match(/^https:\/\/[^/]+/);
      assert.ok(hosts[host], `unexpected host in ${request.url}`);
      return { ...request, url: hosts[host] + request.url.slice(host.length) };
    },
  });
}

const fal = client(FAL_KEY);

async function fails(promise, type, status) {
  let error;
  try {
    await promise;
  } catch (caught) {
    error = caught;
  }
  assert.ok(error instanceof type, `expected ${type.name}, got ${error}`);
  assert.equal(error.status, status);
  return error;
}

async function done(endpoint, requestId) {
  return fal.queue.subscribeToStatus(endpoint, { requestId, pollInterval: 50 });
}

// Moves a job by hand, so that no check depends on the machine's speed.
async function step(requestId, name) {
  const answer = await fetch(`${TEST_CONTROL_URL}/jobs/${requestId}/${name}`, { method: "POST" });
  assert.equal(answer.status, 200);
}

// Keeps every update, and moves the job on once the client has seen the state it is in.
function observer() {
  const updates = [];
  const next = { IN_QUEUE: "start", IN_PROGRESS: "finish" };
  const onQueueUpdate = (update) => {
    const first = !updates.some((earlier) => earlier.status === update.status);
    updates.push(update);
    if (first && next[update.status]) step(update.request_id, next[update.status]);
  };
  return { updates, onQueueUpdate };
}

const checks = {
  async "subscribe gives the result and every state"() {
    const { updates, onQueueUpdate } = observer();
    const result = await fal.subscribe(FLUX, {
      input: { prompt: `js subscribe ${HELD}`, num_images: 2 },
      logs: true,
      pollInterval: 50,
      onQueueUpdate,
    });
    const states = [...new Set(updates.map((update) => update.status))];
    assert.deepEqual(states, ["IN_QUEUE", "IN_PROGRESS", "COMPLETED"]);
    assert.equal(updates[0].queue_position, 0);
    assert.ok(updates.every((update) => update.response_url && update.status_url && update.cancel_url));
    assert.ok(updates.find((update) => update.status === "IN_PROGRESS").logs[0].message);
    assert.equal(result.requestId, updates[0].request_id);
    assert.equal(result.data.images.length, 2);
    const media = await fetch(result.data.images[0].url);
    assert.equal(media.headers.get("content-type"), "image/jpeg");
    assert.deepEqual([...new Uint8Array(await media.arrayBuffer()).slice(0, 3)], [0xff, 0xd8, 0xff]);
  },

  async "subscribe in streaming mode reads the event stream"() {
    const { updates, onQueueUpdate } = observer();
    const result = await fal.subscribe(FLUX, {
      input: { prompt: `js streaming ${HELD}` },
      logs: true,
      mode: "streaming",
      onQueueUpdate,
    });
    assert.deepEqual(updates.map((update) => update.status), ["IN_QUEUE", "IN_PROGRESS", "COMPLETED"]);
    assert.equal(result.data.images.length, 1);
  },

  async "submit, status and result"() {
    const endpoint = "fal-ai/imagen4/preview/ultra";
    const submitted = await fal.queue.submit(endpoint, {
      input: { prompt: `js submit ${HELD}`, output_format: "webp" },
      priority: "low",
      hint: "lane-1",
      startTimeout: 30,
    });
    assert.equal(submitted.status, "IN_QUEUE");
    assert.equal(submitted.logs, null);
    assert.deepEqual(submitted.metrics, {});
    const { request_id: requestId } = submitted;
    const status = await fal.queue.status(endpoint, { requestId, logs: false });
    assert.equal(status.status, "IN_QUEUE");
    const early = await fails(fal.queue.result(endpoint, { requestId }), ApiError, 400);
    assert.equal(early.body.detail, "Request is still in progress");
    await step(requestId, "start");
    assert.equal((await fal.queue.status(endpoint, { requestId })).status, "IN_PROGRESS");
    await step(requestId, "finish");
    const completed = await done(endpoint, requestId);
    assert.equal(completed.logs, null);
    assert.ok(completed.metrics.inference_time > 0);
    const result = await fal.queue.result(endpoint, { requestId });
    assert.equal(result.requestId, requestId);
    assert.equal(result.data.images[0].content_type, "image/webp");
    assert.equal(result.data.description, "");
  },

  async "run answers directly"() {
    const result = await fal.run(FLUX, { input: { prompt: "js run", sync_mode: true } });
    assert.match(result.data.images[0].url, /^data:image\/jpeg;base64,/);
    assert.ok(result.requestId);
  },

  async "invalid input is a ValidationError on the result"() {
    const { request_id: requestId } = await fal.queue.submit(FLUX, { input: { num_images: 9, colour: "red" } });
    const completed = await done(FLUX, requestId);
    assert.equal(completed.error_type, "missing");
    const error = await fails(fal.queue.result(FLUX, { requestId }), ValidationError, 422);
    assert.deepEqual(error.fieldErrors.map((fault) => [fault.loc.at(-1), fault.type]),
      [["prompt", "missing"], ["num_images", "less_than_equal"], ["colour", "extra_forbidden"]]);
    assert.equal(error.getFieldErrors("num_images")[0].ctx.le, 4);
    assert.equal(error.requestId, requestId);
  },

  async "failures keep their types"() {
    const policy = await fails(fal.subscribe(FLUX, { input: { prompt: "js refused [sim:policy]" }, pollInterval: 50 }), ValidationError, 422);
    assert.equal(policy.fieldErrors[0].type, "content_policy_violation");
    const runner = await fails(fal.subscribe(FLUX, { input: { prompt: "js broken [sim:runner]" }, pollInterval: 50 }), ApiError, 500);
    assert.equal(runner.body.error_type, "runner_server_error");
  },

  async "the user's own start timeout is recognised"() {
    const { request_id: requestId } = await fal.queue.submit(FLUX, { input: { prompt: "js late [sim:queue_ms:60000]" }, startTimeout: 1.1 });
    const completed = await done(FLUX, requestId);
    assert.equal(completed.error_type, "request_timeout");
    const error = await fails(fal.queue.result(FLUX, { requestId }), ApiError, 504);
    assert.ok(error.isUserTimeout);
  },

  async "cancel in the queue, while running, and too late"() {
    for (const prompt of ["js cancel queued [sim:queue_ms:60000]", "js cancel running [sim:queue_ms:0] [sim:never]"]) {
      const { request_id: requestId } = await fal.queue.submit(FLUX, { input: { prompt } });
      await fal.queue.cancel(FLUX, { requestId });
      const completed = await done(FLUX, requestId);
      assert.equal(completed.error_type, "client_cancelled");
      await fails(fal.queue.result(FLUX, { requestId }), ApiError, 499);
      const late = await fails(fal.queue.cancel(FLUX, { requestId }), ApiError, 400);
      assert.equal(late.body.status, "ALREADY_COMPLETED");
    }
    const unknown = await fails(fal.queue.cancel(FLUX, { requestId: "no-such-request" }), ApiError, 404);
    assert.equal(unknown.body.status, "NOT_FOUND");
  },

  async "refusals have their status"() {
    const input = { prompt: "js refused" };
    await fails(client("wrong").queue.submit(FLUX, { input }), ApiError, 401);
    await fails(fal.queue.submit("fal-ai/no-such-model", { input }), ApiError, 404);
  },

  async "a busy server is asked again by the client"() {
    const { request_id: requestId } = await fal.queue.submit(FLUX, { input: { prompt: "js busy [sim:submit=503*1]" } });
    assert.ok(requestId);
  },

  async "an uploaded file is used"() {
    const url = await fal.storage.upload(new Blob(["hello"], { type: "text/plain" }));
    const file = await fetch(url);
    assert.equal(await file.text(), "hello");
    const result = await fal.subscribe("fal-ai/flux-pro/kontext/max", {
      input: { prompt: "js edit", image_url: new Blob(["not really"], { type: "image/png" }) },
      pollInterval: 50,
    });
    assert.equal(result.data.images.length, 1);
  },
};

for (const [name, check] of Object.entries(checks)) {
  await check();
  console.log("ok", name);
}
assert.equal(Object.keys(checks).length, 11);
