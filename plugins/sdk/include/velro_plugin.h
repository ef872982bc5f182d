/* velro_plugin.h: providers for Velro as dynamic libraries, in C and whatever speaks it.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * Generated from plugins/sdk/src/abi.rs by `cargo run -p tests --bin header`; edit that file instead. PLUGINS.md is the
 * long form of what follows, plugins/examples/pixie-c a complete plugin.
 *
 * A plugin decides and the host acts. It opens no socket, file or thread and reads no clock: `step` is told what
 * happened to a job, and answers with the one thing to do next. The host stores the answer, then carries it out.
 *
 * OWNERSHIP
 *   Nothing ever changes owner, in either direction, so there is nothing to free.
 *   - What the host passes to a function of yours is the host's, and valid until your function returns.
 *   - What you pass to a callback or service is yours, and has to be valid until that call returns. The host copies.
 *     Locals and literals will do.
 *   - The one thing with a life of its own is what `create` makes; `destroy` ends it.
 *
 * TEXTS
 *   A velro_str has a length and no NUL. Texts are UTF-8; `state` and `body` are any bytes. {NULL, 0} means absent,
 *   {non-NULL, 0} means there and empty.
 *
 * THREADS
 *   The host calls from any thread, and calls one instance from several at once unless VELRO_F_SERIAL is set.
 *   Functions return at once: after 50 ms a call is logged as slow, after 1 s (and 1 s more for every 8 MiB it was
 *   given) it is given up and its thread is lost. `out` is for the duration of the call and its thread only. Threads of
 *   your own may not outlive `destroy`.
 *
 * ERRORS
 *   A job that fails is an action (VELRO_ACT_FAIL). A function that cannot answer returns a VELRO_E_* code, after saying
 *   why with out->fault: that is a fault of the plugin. VELRO_OK is returned after exactly one out->emit (`step`) or at
 *   least one out->write (`manifest`, `quote`, `webhook`). No exception, panic or longjmp may leave a function.
 *
 * MONEY
 *   Ask for VELRO_FX_SUBMIT only on VELRO_EV_START without saved state. On the step after an accepted submit, name the
 *   provider's id of the job in `remote_id`. If you cannot tell whether a submit arrived, fail with
 *   VELRO_ERR_UNKNOWN_OUTCOME. After the id is named, only the provider's own verdict ends the job.
 *
 * VERSIONS
 *   The major is in the names of the two exports. Minors append: fields at the end of structs, new constants, nothing
 *   else; velro_str, velro_header and velro_abi_note never change. Every other struct begins with its size as its writer
 *   knows it; read no further than that (VELRO_HAS) and take what is missing for zero. Answer an event you do not know
 *   with VELRO_E_UNSUPPORTED, and use no constant that is newer than host->abi_minor. */

#ifndef VELRO_PLUGIN_H
#define VELRO_PLUGIN_H

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#define VELRO_EXPORT __declspec(dllexport)
#elif defined(__GNUC__)
#define VELRO_EXPORT __attribute__((visibility("default")))
#else
#define VELRO_EXPORT
#endif

/* Major version of this boundary; it is part of the names of both exports. */
#define VELRO_ABI_MAJOR 1u
/* Minor version: what has been appended since the major. */
#define VELRO_ABI_MINOR 0u

/* Exactly one `emit` (step), or at least one `write` (documents), came before. */
#define VELRO_OK 0
/* Event, model or function not known. */
#define VELRO_E_UNSUPPORTED 1
/* Parameters or configuration that this plugin cannot read. */
#define VELRO_E_BAD_INPUT 2
/* Saved state of an incompatible version. */
#define VELRO_E_BAD_STATE 3
/* The provider's API answered something that cannot be parsed. */
#define VELRO_E_BAD_RESPONSE 4
/* Anything else. */
#define VELRO_E_INTERNAL 5
/* A caught panic or exception. */
#define VELRO_E_PANIC 6
/* Set by the host: VELRO_OK was returned and nothing was emitted. */
#define VELRO_E_NO_ACTION 7

/* First call of an attempt. */
#define VELRO_EV_START 1u
/* The answer to the last VELRO_ACT_HTTP: status, headers, body. */
#define VELRO_EV_HTTP 2u
/* There was no answer: see `transport_error`. */
#define VELRO_EV_FAILED 3u
/* The wait is over. */
#define VELRO_EV_TIMER 4u
/* A verified webhook for this job: headers, body. */
#define VELRO_EV_WEBHOOK 5u
/* A piece of a streamed body. Reserved: this host does not stream yet. */
#define VELRO_EV_CHUNK 6u
/* The user cancelled, or the deadline passed. */
#define VELRO_EV_CANCEL 7u
/* The host restarted with a submit in flight: whether it arrived is not known. */
#define VELRO_EV_INTERRUPTED 8u

/* No byte left the host: safe to submit again. */
#define VELRO_TE_NOT_SENT 1u
/* No complete answer in time. */
#define VELRO_TE_TIMEOUT 2u
/* The connection broke after bytes were sent. */
#define VELRO_TE_RESET 3u
/* The answer was larger than the host accepts. */
#define VELRO_TE_BODY_TOO_LARGE 4u
/* The host has stopped talking to this provider for a while. */
#define VELRO_TE_CIRCUIT_OPEN 5u
/* The URL is not on a host of the manifest. */
#define VELRO_TE_HOST_DENIED 6u

/* Perform a request; then VELRO_EV_HTTP or VELRO_EV_FAILED. */
#define VELRO_ACT_HTTP 1u
/* Call again with VELRO_EV_TIMER after `wait_ms`, or earlier with a webhook or a cancel. */
#define VELRO_ACT_WAIT 2u
/* The job is finished: `data_json` is `{"outputs":[...],"billed":...,"meta":{...}}`. */
#define VELRO_ACT_DONE 3u
/* The job failed: `error_kind`, `retry`, `error_code`, `message`. */
#define VELRO_ACT_FAIL 4u
/* Streaming. Reserved: this host does not stream yet and treats it as a fault. */
#define VELRO_ACT_EMIT 5u

/* HTTP GET. */
#define VELRO_GET 0u
/* HTTP POST. */
#define VELRO_POST 1u
/* HTTP PUT. */
#define VELRO_PUT 2u
/* HTTP PATCH. */
#define VELRO_PATCH 3u
/* HTTP DELETE. */
#define VELRO_DELETE 4u
/* HTTP HEAD. */
#define VELRO_HEAD 5u

/* The host may repeat the request freely. */
#define VELRO_FX_READ 0u
/* It costs money: never repeated, once a byte has left. */
#define VELRO_FX_SUBMIT 1u
/* It costs money and carries an idempotency key that the provider honours. */
#define VELRO_FX_SUBMIT_IDEMPOTENT 2u
/* A repeatable write, such as a cancel. */
#define VELRO_FX_WRITE 3u

/* The provider refuses this input. */
#define VELRO_ERR_INVALID_INPUT 1u
/* The host's key is missing, wrong or locked. */
#define VELRO_ERR_AUTH 2u
/* The host's account with the provider is out of money. */
#define VELRO_ERR_QUOTA 3u
/* Too many requests. */
#define VELRO_ERR_RATE_LIMITED 4u
/* The provider's safety system refused the prompt or the result. */
#define VELRO_ERR_CONTENT_POLICY 5u
/* The model or the job does not exist. */
#define VELRO_ERR_NOT_FOUND 6u
/* The provider is down or overloaded. */
#define VELRO_ERR_UNAVAILABLE 7u
/* The provider ran out of time. */
#define VELRO_ERR_TIMEOUT 8u
/* Cancelled. */
#define VELRO_ERR_CANCELLED 9u
/* An answer that makes no sense. */
#define VELRO_ERR_BAD_RESPONSE 10u
/* Whether the job was bought is not known: never retried, never refunded by itself. */
#define VELRO_ERR_UNKNOWN_OUTCOME 11u
/* The provider reported a failure of its own. */
#define VELRO_ERR_UPSTREAM 12u

/* It would fail again. */
#define VELRO_RETRY_NEVER 0u
/* The same provider may succeed later. */
#define VELRO_RETRY_SAME 1u
/* Only another provider may succeed. */
#define VELRO_RETRY_OTHER 2u

/* Deliver the answer in chunks. Reserved: see VELRO_ACT_EMIT. */
#define VELRO_AF_STREAM 1u

/* The host must not call one instance concurrently. */
#define VELRO_F_SERIAL 1u
/* Says that unloading would be harmless. Reserved: this host never unloads a library. */
#define VELRO_F_UNLOADABLE 2u

/* A text or bytes, not NUL-terminated. `{NULL, 0}` is absent, `{non-NULL, 0}` is present and empty. Frozen. */
typedef struct velro_str {
  /* First byte. */
  const uint8_t *ptr;
  /* How many. */
  size_t len;
} velro_str;

/* A header; host to plugin, names are in lower case. Frozen. */
typedef struct velro_header {
  /* Name. */
  velro_str name;
  /* Value; host to plugin, bytes that are not UTF-8 have been replaced. */
  velro_str value;
} velro_header;

/* One call: the job, its saved state and what happened. */
typedef struct velro_job {
  /* Size of this struct as the host knows it. */
  uint32_t struct_size;
  /* VELRO_EV_*; 0 in `quote`. */
  uint32_t event;
  /* The attempt's id; stable over restarts. */
  velro_str id;
  /* The provider's own name of the model. */
  velro_str model;
  /* The validated input in the provider's terms: a JSON object, defaults applied. */
  velro_str params_json;
  /* What the last step returned; absent before the first that did. Any bytes. */
  velro_str state;
  /* Stable within one attempt. */
  velro_str idempotency_key;
  /* Where the provider may report the end; absent: poll. */
  velro_str webhook_url;
  /* Unix time in milliseconds. Plugins have no clock of their own. */
  uint64_t now_ms;
  /* When the host gives up, Unix time in milliseconds. */
  uint64_t deadline_ms;
  /* 1 for the first attempt of a generation. */
  uint32_t attempt;
  /* Steps this attempt has taken so far. */
  uint32_t steps;
  /* HTTP: status. Webhook: 200. */
  uint32_t http_status;
  /* FAILED: VELRO_TE_*. */
  uint32_t transport_error;
  /* HTTP, WEBHOOK: headers. */
  const velro_header *headers;
  /* How many. */
  size_t header_count;
  /* HTTP, WEBHOOK: the whole body. Any bytes. */
  velro_str body;
} velro_job;

/* A webhook that has not been matched to a job. Its signature has been checked by the host. */
typedef struct velro_hook {
  /* Size of this struct as the host knows it. */
  uint32_t struct_size;
  /* Zero. */
  uint32_t reserved;
  /* The raw query, without the question mark. */
  velro_str query;
  /* Headers. */
  const velro_header *headers;
  /* How many. */
  size_t header_count;
  /* The whole body. */
  velro_str body;
} velro_hook;

/* What the host does next. Zero what does not apply. */
typedef struct velro_action {
  /* Size of this struct as the plugin knows it. */
  uint32_t struct_size;
  /* VELRO_ACT_*. */
  uint32_t kind;
  /* New saved state; absent: unchanged. At most 64 KiB. */
  velro_str state;
  /* The provider's own job id. The first step after a paid submit must name it, unless it ends the job: it is
   * the host's only proof that the job was accepted. */
  velro_str remote_id;
  /* `{"permille":500,"queue_position":3,"message":"..."}`, all optional. */
  velro_str progress_json;
  /* HTTP: VELRO_GET ... */
  uint32_t method;
  /* HTTP: VELRO_FX_*. */
  uint32_t effect;
  /* VELRO_AF_*. */
  uint32_t flags;
  /* HTTP: 0 takes the host's default. */
  uint32_t timeout_ms;
  /* HTTP: `{{secret:NAME}}` is allowed in the query and in header values. */
  velro_str url;
  /* HTTP: request headers. */
  const velro_header *headers;
  /* How many. */
  size_t header_count;
  /* HTTP: request body; empty or absent for none. */
  velro_str body;
  /* WAIT: how long. FAIL: earliest next try. In milliseconds. */
  uint64_t wait_ms;
  /* DONE: see VELRO_ACT_DONE. */
  velro_str data_json;
  /* FAIL: VELRO_ERR_*. */
  uint32_t error_kind;
  /* FAIL: VELRO_RETRY_*. After a paid submit was accepted: whether another provider may do the job. */
  uint32_t retry;
  /* FAIL: the provider's own code, short and stable. */
  velro_str error_code;
  /* FAIL: one sentence for the user; no secret, no internal text. */
  velro_str message;
} velro_action;

/* Callbacks of one call: valid until the plugin function returns, on the calling thread only. */
typedef struct velro_out {
  /* Size of this struct as the host knows it. */
  uint32_t struct_size;
  /* Zero. */
  uint32_t reserved;
  /* `step`: the action. Exactly once. */
  void (*emit)(struct velro_out *out, const velro_action *action);
  /* Documents (`manifest`, `quote`, `webhook`): appends JSON text. */
  void (*write)(struct velro_out *out, velro_str text);
  /* Describes a fault before the function returns its code. */
  void (*fault)(struct velro_out *out, int32_t code, velro_str message);
  /* A line for the host's log: level 1 (error) to 5 (trace). At most 20 of one call are kept. */
  void (*log)(struct velro_out *out, uint32_t level, velro_str message);
} velro_out;

/* Services of the host: valid for the life of the process, callable from any thread. */
typedef struct velro_host {
  /* Size of this struct as the host knows it. */
  uint32_t struct_size;
  /* The host's minor. */
  uint32_t abi_minor;
  /* Name and version of the host, for diagnostics. */
  velro_str version;
  /* Looks up a JSON pointer. Writes the raw JSON text of the value (a string with its quotes) into `*value`,
   * borrowed from `doc`. Answers 1 for found, 0 for absent, -1 when `doc` is not JSON. */
  int32_t (*json_raw)(velro_str doc, const char *pointer, velro_str *value);
  /* The same, decoded: copies at most `cap` bytes of the string (or of the raw text of another value) to `buf`
   * and answers its whole length; -1 when it is absent or `doc` is not JSON. Does not NUL-terminate. */
  ptrdiff_t (*json_text)(velro_str doc, const char *pointer, uint8_t *buf, size_t cap);
} velro_host;

/* The functions of a plugin, in static memory of the library. `self` is what `create` made (NULL without it). */
typedef struct velro_plugin {
  /* Size of this struct as the plugin knows it. */
  uint32_t struct_size;
  /* VELRO_F_*. */
  uint32_t flags;
  /* Name, for people. */
  velro_str name;
  /* Version, for people. */
  velro_str version;
  /* Makes an instance for one configuration (a JSON object). May be called several times. Optional. */
  int32_t (*create)(velro_str config_json, velro_out *out, void **self);
  /* Called once for every successful `create`, after the last call on that instance returned. Optional. */
  void (*destroy)(void *self);
  /* Writes the manifest. */
  int32_t (*manifest)(void *self, velro_out *out);
  /* The state machine: emits the next action. */
  int32_t (*step)(void *self, const velro_job *job, velro_out *out);
  /* Writes what the provider will bill for a call, `{"usd_micros":..,"unit":"..","units_milli":..}` or `null`.
   * Optional. */
  int32_t (*quote)(void *self, const velro_job *job, velro_out *out);
  /* Writes which job a webhook is about: `{"remote":"id"}`, `{"job":"id"}` or `"ignore"`. Optional. */
  int32_t (*webhook)(void *self, const velro_hook *hook, velro_out *out);
} velro_plugin;

/* Export 1, `velro_plugin_abi_v1`: plain data that the host reads from the file before it loads it. Frozen. */
typedef struct velro_abi_note {
  /* `VELROPLG`. */
  uint8_t magic[8];
  /* The version the plugin was built with. */
  uint32_t major;
  /* The version the plugin was built with. */
  uint32_t minor;
  /* The oldest minor of the host it can live with. */
  uint32_t min_host_minor;
  /* Zero. */
  uint32_t reserved;
} velro_abi_note;

#endif  /* VELRO_PLUGIN_H */

#ifdef __cplusplus
extern "C" {
#endif

/* Export 1: the note. Define it with VELRO_DECLARE_ABI. */
extern VELRO_EXPORT const velro_abi_note velro_plugin_abi_v1;

/* Export 2: called once, before anything else. Answers with the functions of the plugin, in memory that stays as it is,
 * or with NULL to refuse this host. `host` is valid for the life of the process. */
VELRO_EXPORT const velro_plugin *velro_plugin_entry_v1(const velro_host *host);

#ifdef __cplusplus
}
#endif

/* Once per library, at file level: VELRO_DECLARE_ABI(0); with the oldest minor of the host that it can live with. */
#define VELRO_DECLARE_ABI(min_minor)                                                                                   \
  const velro_abi_note velro_plugin_abi_v1 = {                                                                         \
      {'V', 'E', 'L', 'R', 'O', 'P', 'L', 'G'}, VELRO_ABI_MAJOR, VELRO_ABI_MINOR, (min_minor), 0}

/* True if `p`, a struct that the other side wrote, is long enough to have `field`. */
#define VELRO_HAS(type, p, field) ((p)->struct_size >= offsetof(type, field) + sizeof((p)->field))

/* True for a VELRO_TE_* after which nothing can have been bought, because no byte left the host. */
#define VELRO_NOT_SENT(te)                                                                                             \
  ((te) == VELRO_TE_NOT_SENT || (te) == VELRO_TE_CIRCUIT_OPEN || (te) == VELRO_TE_HOST_DENIED)

/* A velro_str of a literal: VELRO_INIT in initialisers of static data, VELRO_LIT in expressions. */
#ifdef __cplusplus
#define VELRO_INIT(s) {reinterpret_cast<const uint8_t *>(s), sizeof(s) - 1}
#define VELRO_LIT(s) (velro_str{reinterpret_cast<const uint8_t *>(s), sizeof(s) - 1})
#else
#define VELRO_INIT(s) {(const uint8_t *)(s), sizeof(s) - 1}
#define VELRO_LIT(s) ((velro_str){(const uint8_t *)(s), sizeof(s) - 1})
#endif
