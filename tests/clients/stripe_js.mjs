// Stripe's own JavaScript library against a Stripe-shaped server, and its signatures against Velro's webhook.

import assert from "node:assert/strict";
import { createRequire } from "node:module";

const require = createRequire(`${process.env.CLIENTS_FOLDER}/package.json`);
const { Stripe = require("stripe") } = require("stripe");
const { TEST_API_URL, TEST_SECRET_KEY, TEST_WEBHOOK_SECRET: SECRET, TEST_WEBHOOK_URL, TEST_EVENT } = process.env;
const { hostname, port } = new URL(TEST_API_URL);
const stripe = new Stripe(TEST_SECRET_KEY, { host: hostname, port, protocol: "http", maxNetworkRetries: 0 });

const params = (reference = "order-js") => ({
  mode: "payment",
  success_url: "https://app.example/ok?s={CHECKOUT_SESSION_ID}",
  cancel_url: "https://app.example/no",
  client_reference_id: reference,
  line_items: [
    { quantity: 1, price_data: { currency: "usd", unit_amount: 999, product_data: { name: "Credits" } } },
  ],
  adaptive_pricing: { enabled: false },
  metadata: { order_id: reference },
  payment_intent_data: { metadata: { order_id: reference } },
});

async function fails(promise, type, status) {
  const error = await promise.then(() => assert.fail("no error"), (caught) => caught);
  assert.equal(error.type, type, `${error}`);
  assert.equal(error.statusCode, status);
  return error;
}

async function deliver(body, header) {
  const answer = await fetch(TEST_WEBHOOK_URL, { method: "POST", body, headers: { "Stripe-Signature": header } });
  return [answer.status, await answer.json()];
}

const checks = {
  async "a session is made, found and expired"() {
    const session = await stripe.checkout.sessions.create(params());
    assert.equal(session.amount_total, 999);
    const again = await stripe.checkout.sessions.retrieve(session.id);
    assert.equal(again.client_reference_id, "order-js");
    const seen = [];
    for await (const one of stripe.checkout.sessions.list({ limit: 1 })) seen.push(one.id);
    assert.equal(new Set(seen).size, seen.length);
    assert.ok(seen.includes(session.id));
    assert.equal((await stripe.checkout.sessions.expire(session.id)).status, "expired");
  },

  async "an idempotency key makes one session"() {
    const options = { idempotencyKey: "js-key" };
    const first = await stripe.checkout.sessions.create(params(), options);
    assert.equal((await stripe.checkout.sessions.create(params(), options)).id, first.id);
    await fails(stripe.checkout.sessions.create(params("other"), options), "StripeIdempotencyError", 400);
  },

  async "errors are Stripe's"() {
    await fails(stripe.checkout.sessions.retrieve("cs_test_nothing"), "StripeInvalidRequestError", 404);
    const error = await fails(
      stripe.checkout.sessions.create({ ...params(), colour: "red" }),
      "StripeInvalidRequestError",
      400,
    );
    assert.equal(error.param, "colour");
  },

  async "the simulator's signature is accepted"() {
    const event = stripe.webhooks.constructEvent(TEST_EVENT, process.env.TEST_SIGNATURE, SECRET);
    assert.equal(event.data.object.payment_status, "paid");
  },

  async "Velro accepts what the library signs"() {
    const sign = (secret, timestamp) =>
      stripe.webhooks.generateTestHeaderString({ payload: TEST_EVENT, secret, timestamp });
    const now = Math.floor(Date.now() / 1000);
    for (const header of [sign("whsec_wrong", now), sign(SECRET, now - 400), sign(SECRET, now + 4000)]) {
      const [status, answer] = await deliver(TEST_EVENT, header);
      assert.deepEqual([status, answer.code], [400, "bad_request"]);
    }
    const [status, answer] = await deliver(TEST_EVENT, sign(SECRET, now));
    assert.deepEqual([status, answer.status], [200, "booked"]);
  },
};

for (const [name, check] of Object.entries(checks)) {
  await check();
  console.log("ok", name);
}
