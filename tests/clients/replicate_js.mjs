// Replicate's own JavaScript client against a Replicate-shaped server. `baseUrl` (with /v1) is an option of the client;
// nothing of it is changed.

import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import { createRequire } from "node:module";

const Replicate = createRequire(`${process.env.CLIENTS_FOLDER}/package.json`)("replicate");
const { TEST_API_URL, TEST_CONTROL_URL, TEST_VERSION: VERSION, REPLICATE_API_TOKEN } = process.env;
const ULTRA = "black-forest-labs/flux-1.1-pro-ultra";
const SCHNELL = "black-forest-labs/flux-schnell";
const SDXL = "stability-ai/sdxl";

const replicate = new Replicate({ auth: REPLICATE_API_TOKEN, baseUrl: TEST_API_URL });
const wait = { mode: "poll", interval: 20 };

async function fails(promise, status, ...texts) {
  const error = await promise.then(() => assert.fail("no error"), (caught) => caught);
  assert.equal(error.name, "ApiError", `${error}`);
  assert.equal(error.response.status, status);
  for (const text of texts) assert.ok(error.message.includes(text), error.message);
}

// Moves a held prediction by hand, so that no check depends on the machine's speed.
async function nudge({ id }) {
  const answer = await fetch(`${TEST_CONTROL_URL}/predictions/${id}/nudge`, { method: "POST" });
  assert.equal(answer.status, 200);
}

async function isPng(file) {
  const bytes = new Uint8Array(await (await file.blob()).arrayBuffer());
  assert.deepEqual([...bytes.slice(0, 4)], [0x89, 0x50, 0x4e, 0x47]);
}

const checks = {
  async "run gives one file"() {
    const output = await replicate.run(ULTRA, { input: { prompt: "js run", aspect_ratio: "16:9" } });
    assert.ok(output.url().href.startsWith("https://127.0.0.1"));
    await isPng(output);
  },

  async "run gives many files"() {
    const output = await replicate.run(SCHNELL, { input: { prompt: "js many", num_outputs: 3 } });
    assert.equal(output.length, 3);
    for (const file of output) await isPng(file);
  },

  async "run by polling tells how far it is"() {
    const seen = [];
    const observe = (prediction) => {
      // Each state lasts until the client has seen it.
      if (!seen.includes(prediction.status)) {
        seen.push(prediction.status);
        if (["starting", "processing"].includes(prediction.status)) nudge(prediction);
      }
    };
    const options = { input: { prompt: "js version [sim:hold]" }, wait };
    const output = await replicate.run(`${SDXL}:${VERSION}`, options, observe);
    assert.deepEqual(seen, ["starting", "processing", "succeeded"]);
    assert.equal(output.length, 1);
  },

  async "run takes processing with an output for done"() {
    await isPng(await replicate.run(ULTRA, { input: { prompt: "js early [sim:early]" } }));
  },

  async "run of a failure throws"() {
    for (const [mark, text] of [["fail", "list index"], ["nsfw", "NSFW content"]]) {
      const promise = replicate.run(ULTRA, { input: { prompt: `js failure [sim:${mark}]` } });
      await assert.rejects(promise, new RegExp(`Prediction failed: ${text}`));
    }
  },

  async "create, get and wait"() {
    const created = await replicate.predictions.create({ model: ULTRA, input: { prompt: "js create" } });
    assert.equal(created.status, "starting");
    assert.equal(created.version, "hidden");
    const done = await replicate.wait(created, wait);
    assert.equal(done.status, "succeeded");
    assert.ok(done.metrics.predict_time > 0 && done.metrics.total_time >= done.metrics.predict_time);
    assert.deepEqual(await replicate.predictions.get(created.id), done);
  },

  async "a wait that runs out leaves it running"() {
    const options = { version: VERSION, input: { prompt: "js late [sim:hold]" }, wait: 1 };
    const created = await replicate.predictions.create(options);
    assert.equal(created.status, "starting");
    await nudge(created);
    await nudge(created);
    assert.equal((await replicate.wait(created, wait)).status, "succeeded");
  },

  async "a deployment creates too"() {
    const options = { input: { prompt: "js deployed" }, wait: 20 };
    const done = await replicate.deployments.predictions.create("acme", "fast", options);
    assert.deepEqual([done.status, done.model, done.version], ["succeeded", SDXL, VERSION]);
  },

  async "cancel ends it"() {
    const created = await replicate.predictions.create({ model: ULTRA, input: { prompt: "js cancel [sim:hold]" } });
    assert.equal((await replicate.predictions.cancel(created.id)).status, "canceled");
    assert.equal((await replicate.predictions.get(created.id)).status, "canceled");
  },

  async "an aborted run is cancelled"() {
    const controller = new AbortController();
    let id;
    const observe = (prediction) => {
      id = prediction.id;
      if (prediction.status === "starting") nudge(prediction);
      if (prediction.status === "processing") controller.abort();
    };
    // The signal goes with every request too; either way the run ends.
    const options = { input: { prompt: "js abort [sim:hold]" }, wait, signal: controller.signal };
    await replicate.run(ULTRA, options, observe).catch((error) => assert.equal(error.name, "AbortError"));
    assert.equal((await replicate.predictions.get(id)).status, "canceled");
  },

  async "the list has pages"() {
    const pages = [];
    for await (const page of replicate.paginate(replicate.predictions.list)) pages.push(page);
    assert.ok(pages.length > 2 && pages.every((page) => page.length <= 3));
    const all = pages.flat();
    assert.equal(new Set(all.map(({ id }) => id)).size, all.length);
    assert.ok(all[0].input.prompt.startsWith("js abort"));
    assert.equal(all.at(-1).input.prompt, "js run");
  },

  async "models and versions are known"() {
    const model = await replicate.models.get("stability-ai", "sdxl");
    assert.equal(model.latest_version.id, VERSION);
    assert.equal((await replicate.models.versions.get("stability-ai", "sdxl", VERSION)).id, VERSION);
  },

  async "webhooks are signed"() {
    const arrived = [];
    const receiver = createServer(async (request, answer) => {
      let body = "";
      for await (const chunk of request) body += chunk;
      arrived.push({ headers: request.headers, body });
      answer.end(() => receiver.emit("arrived"));
    });
    receiver.listen(0, "127.0.0.1");
    await once(receiver, "listening");
    const heard = once(receiver, "arrived");
    const created = await replicate.predictions.create({
      model: ULTRA,
      input: { prompt: "js webhook" },
      webhook: `http://127.0.0.1:${receiver.address().port}/hook`,
      webhook_events_filter: ["completed"],
    });
    await heard;
    receiver.close();
    receiver.closeAllConnections();
    const { key } = await replicate.webhooks.default.secret.get();
    const hook = JSON.parse(arrived[0].body);
    assert.deepEqual([arrived.length, hook.id, hook.status], [1, created.id, "succeeded"]);
    assert.equal(await Replicate.validateWebhook(arrived[0], key), true);
    assert.equal(await Replicate.validateWebhook({ ...arrived[0], body: `${arrived[0].body} ` }, key), false);
    assert.equal(await Replicate.validateWebhook(arrived[0], "whsec_AAAA"), false);
  },

  async "a throttled create is repeated by the client"() {
    const { id } = await replicate.predictions.create({ model: ULTRA, input: { prompt: "js throttled [sim:throttled]" } });
    assert.ok(id);
  },

  async "refusals are errors"() {
    const create = (input, more = {}) => replicate.predictions.create({ model: ULTRA, input, ...more });
    const wrong = new Replicate({ auth: "r8_wrong", baseUrl: TEST_API_URL });
    await fails(wrong.predictions.list(), 401, "Unauthenticated");
    await fails(create({ prompt: "[sim:broke]" }), 402, "Insufficient credit");
    await fails(replicate.predictions.get("nothing"), 404, "could not be found");
    await fails(create({}), 422, "Input validation failed", "prompt is required");
    await fails(create({ prompt: "x", seed: "y" }), 422, "input.seed", "Expected: integer");
    await fails(create({ prompt: "x" }, { surprise: 1 }), 422, "Additional property surprise is not allowed");
    await fails(create({ prompt: "x" }, { webhook_events_filter: ["sometimes"] }), 422, "webhook_events_filter");
    await fails(replicate.predictions.create({ version: "0".repeat(64), input: {} }), 422, "Invalid version");
    await fails(replicate.predictions.create({ model: SDXL, input: { prompt: "x" } }), 404);
  },
};

for (const [name, check] of Object.entries(checks)) {
  await check();
  console.log("ok", name);
}
assert.equal(Object.keys(checks).length, 15);
