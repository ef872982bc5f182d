// Supabase's own JavaScript client against a GoTrue-shaped server, and its sessions at Velro. `url` is an option of the
// client; nothing of it is changed.

import assert from "node:assert/strict";
import { createRequire } from "node:module";

const { AuthClient, AuthAdminApi } = createRequire(`${process.env.CLIENTS_FOLDER}/package.json`)("@supabase/auth-js");
const { TEST_AUTH_URL, TEST_VELRO_URL, TEST_ANON_KEY, TEST_SERVICE_KEY, TEST_PASSWORD: password } = process.env;

const client = () =>
  new AuthClient({
    url: TEST_AUTH_URL,
    headers: { apikey: TEST_ANON_KEY, Authorization: `Bearer ${TEST_ANON_KEY}` },
    autoRefreshToken: false,
    persistSession: false,
  });

function ok({ data, error }) {
  assert.equal(error, null, `${error}`);
  return data;
}

async function fails(promise, status, code) {
  const { error } = await promise;
  assert.deepEqual([error?.status, error?.code], [status, code], `${error}`);
  return error;
}

// A call of Velro with a token of the client.
async function velro(method, path, token, body) {
  const answer = await fetch(`${TEST_VELRO_URL}${path}`, {
    method,
    headers: { "Content-Type": "application/json", Authorization: `Bearer ${token}` },
    body: body && JSON.stringify(body),
  });
  return [answer.status, await answer.json()];
}

const email = "js@example.com";
const auth = client();
const { session, user } = ok(await auth.signUp({ email, password, options: { data: { full_name: "Jay Es" } } }));
assert.equal(user.user_metadata.full_name, "Jay Es");
assert.equal(session.expires_in, 3600);
console.log("ok sign up");

const { claims } = ok(await auth.getClaims(session.access_token));
assert.equal(claims.sub, user.id);
console.log("ok claims by the published keys");

const [status, me] = await velro("GET", "/api/v1/auth/me", session.access_token);
assert.equal(status, 200);
assert.deepEqual([me.id, me.email, me.full_name, me.credits_balance], [user.id, email, "Jay Es", 1000]);
const job = { model_id: "sandbox/image", prompt: "js", parameters: { latency_ms: 0, image_size: "square" } };
const [, submitted] = await velro("POST", "/api/v1/generations/async/submit", session.access_token, job);
assert.equal(submitted.status, "queued");
const state = `/api/v1/generations/async/${submitted.generation_id}/status`;
while ((await velro("GET", state, session.access_token))[1].status !== "completed") {
  await new Promise((resolve) => setTimeout(resolve, 50));
}
console.log("ok its token works at Velro");

const refreshed = ok(await auth.refreshSession()).session;
assert.notEqual(refreshed.refresh_token, session.refresh_token);
assert.equal((await velro("GET", "/api/v1/credits/balance", refreshed.access_token))[0], 200);
await fails(client().refreshSession({ refresh_token: session.refresh_token }), 400, "refresh_token_already_used");
console.log("ok refresh, once");

const second = client();
const entered = ok(await second.signInWithPassword({ email, password })).session;
ok(await second.updateUser({ data: { full_name: "Jay Two" } }));
assert.equal(ok(await second.getUser()).user.user_metadata.full_name, "Jay Two");
assert.equal((await velro("GET", "/api/v1/auth/me", entered.access_token))[1].full_name, "Jay Two");
console.log("ok a new name is Velro's too");
ok({ data: true, ...(await second.signOut({ scope: "local" })) });
assert.equal((await velro("GET", "/api/v1/auth/me", entered.access_token))[0], 401);
console.log("ok sign out");

await fails(client().signInWithPassword({ email, password: "wrong" }), 400, "invalid_credentials");
await fails(client().signUp({ email, password }), 422, "user_already_exists");
const weak = await fails(client().signUp({ email: "weak-js@example.com", password: "x" }), 422, "weak_password");
assert.deepEqual(weak.reasons, ["length"]);
console.log("ok refusals");

const admin = new AuthAdminApi({
  url: TEST_AUTH_URL,
  headers: { apikey: TEST_SERVICE_KEY, Authorization: `Bearer ${TEST_SERVICE_KEY}` },
});
const made = { email: "made-js@example.com", password, email_confirm: true };
assert.ok(ok(await admin.createUser(made)).user.email_confirmed_at);
await fails(admin.createUser(made), 422, "email_exists");
console.log("ok admin");

const body = { email: "velro-js@example.com", password, full_name: "Vel Ro" };
const [registered, own] = await velro("POST", "/api/v1/auth/register", "none", body);
assert.equal(registered, 200, JSON.stringify(own));
const third = client();
ok(await third.setSession({ access_token: own.access_token, refresh_token: own.refresh_token }));
assert.equal(ok(await third.getUser()).user.id, own.user.id);
assert.equal(ok(await third.refreshSession()).user.user_metadata.full_name, "Vel Ro");
console.log("ok a session of Velro is one of the client's");
