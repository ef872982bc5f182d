/* pixie.c - a Velro provider in C, for a pretended API: submit, poll, cancel, webhook.
 *
 *   POST   /v1/jobs?callback=URL   {"prompt": ...}   -> 201 {"id": "j-1"}
 *   GET    /v1/jobs/j-1            -> {"status": "queued", "ahead": 3} | {"status": "running", "percent": 40}
 *                                     | {"status": "done", "url": "..."} | {"status": "cancelled"}
 *                                     | {"status": "error", "code": "policy"}
 *   DELETE /v1/jobs/j-1            -> the same, as it is now
 *   callback                       {"id": "j-1"}
 *
 * The state that the host keeps for us is a text: the version "1", a letter for the stage, and the job's id.
 *
 *   1s       the submit is on its way          1p<id>   Pixie has the job
 *   1l       its answer was lost               1c<id>   and was asked to cancel it
 */
#include "velro_plugin.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

VELRO_DECLARE_ABI(0);

#define MAX_ID 100

static const velro_host *host;

/* One instance, made by create(): configuration only, never anything of a job. */
typedef struct pixie {
  char base[512];      /* without a slash at its end */
  const char *name;    /* host[:port], inside base */
  size_t name_len;
} pixie;

/* ------------------------------------------------------------------------------------------------ small helpers */

static velro_str text(const char *s) { return (velro_str){(const uint8_t *)s, strlen(s)}; }

static int is_id(const char *s, size_t len) {
  if (len == 0 || len > MAX_ID) return 0;
  for (size_t i = 0; i < len; i++) {
    char c = s[i];
    int plain = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' || c == '_';
    if (!plain) return 0;
  }
  return 1;
}

/* The id in a document of Pixie's; 0 when there is none that can be a part of a URL. */
static size_t id_of(velro_str doc, char id[MAX_ID + 1]) {
  ptrdiff_t len = host->json_text(doc, "/id", (uint8_t *)id, MAX_ID);
  if (len <= 0 || len > MAX_ID || !is_id(id, (size_t)len)) return 0;
  id[len] = '\0';
  return (size_t)len;
}

/* A short text of a document; empty when it is absent or longer than the buffer. */
static void word(velro_str doc, const char *pointer, char *buf, size_t size) {
  ptrdiff_t len = host->json_text(doc, pointer, (uint8_t *)buf, size - 1);
  buf[len > 0 && (size_t)len < size ? len : 0] = '\0';
}

/* A whole number of a document up to `most`; -1 when there is none. */
static long number(velro_str doc, const char *pointer, long most) {
  char digits[8], *end;
  word(doc, pointer, digits, sizeof digits);
  if (digits[0] < '0' || digits[0] > '9') return -1;
  long n = strtol(digits, &end, 10);
  return *end == '\0' && n <= most ? n : -1;
}

static int32_t fault(velro_out *out, int32_t code, const char *why) {
  out->fault(out, code, text(why));
  return code;
}

/* ------------------------------------------------------------------------------------------------------- actions */

static int32_t emit(velro_out *out, velro_action action, const char *state) {
  action.struct_size = sizeof action;
  if (state) action.state = text(state);
  out->emit(out, &action); /* the host has copied everything when this returns */
  return VELRO_OK;
}

static int32_t fail(velro_out *out, uint32_t kind, uint32_t retry, const char *code, const char *message) {
  velro_action action = {0};
  action.kind = VELRO_ACT_FAIL;
  action.error_kind = kind;
  action.retry = retry;
  action.error_code = text(code);
  action.message = text(message);
  return emit(out, action, NULL);
}

static int32_t later(velro_out *out, uint64_t ms, const char *progress) {
  velro_action action = {0};
  action.kind = VELRO_ACT_WAIT;
  action.wait_ms = ms;
  if (progress) action.progress_json = text(progress);
  return emit(out, action, NULL);
}

static int32_t cancelled(velro_out *out) {
  return fail(out, VELRO_ERR_CANCELLED, VELRO_RETRY_NEVER, "cancelled", "Cancelled.");
}

/* Whether the job was bought is not known. It must not be found out by buying again: the webhook will tell, or a person. */
static int32_t lost(const velro_job *job, velro_out *out) {
  velro_action action = {0};
  if (job->webhook_url.ptr) {
    action.kind = VELRO_ACT_WAIT;
    action.wait_ms = 600000;
  } else {
    action.kind = VELRO_ACT_FAIL;
    action.error_kind = VELRO_ERR_UNKNOWN_OUTCOME;
    action.retry = VELRO_RETRY_NEVER;
    action.error_code = text("unknown_outcome");
    action.message = text("The connection to the provider broke while the job was handed over.");
  }
  return emit(out, action, "1l");
}

static const velro_header HEADERS[] = {
    {VELRO_INIT("authorization"), VELRO_INIT("Bearer {{secret:PIXIE_KEY}}")},
    {VELRO_INIT("content-type"), VELRO_INIT("application/json")},
};

/* The paid request: the job's parameters as they are, and where the end may be reported. */
static int32_t submit(const pixie *self, const velro_job *job, velro_out *out) {
  static const char HEX[] = "0123456789ABCDEF";
  char url[4096];
  size_t at = (size_t)snprintf(url, sizeof url, "%s/v1/jobs", self->base);
  if (job->webhook_url.ptr) {
    at += (size_t)snprintf(url + at, sizeof url - at, "?callback=");
    for (size_t i = 0; i < job->webhook_url.len; i++) {
      if (at + 4 > sizeof url) return fault(out, VELRO_E_BAD_INPUT, "the webhook's URL is too long");
      uint8_t byte = job->webhook_url.ptr[i];
      url[at++] = '%';
      url[at++] = HEX[byte >> 4];
      url[at++] = HEX[byte & 15];
    }
    url[at] = '\0';
  }
  velro_action action = {0};
  action.kind = VELRO_ACT_HTTP;
  action.method = VELRO_POST;
  action.effect = VELRO_FX_SUBMIT;
  action.url = text(url);
  action.headers = HEADERS;
  action.header_count = 2;
  action.body = job->params_json;
  return emit(out, action, "1s");
}

/* A look at the job, or the wish that it stops. `stage` is what the state becomes. */
static int32_t ask(const pixie *self, velro_out *out, uint32_t method, char stage, const char *id, int is_new) {
  char url[sizeof self->base + MAX_ID + 16], state[MAX_ID + 3];
  snprintf(url, sizeof url, "%s/v1/jobs/%s", self->base, id);
  snprintf(state, sizeof state, "1%c%s", stage, id);
  velro_action action = {0};
  action.kind = VELRO_ACT_HTTP;
  action.method = method;
  action.effect = method == VELRO_GET ? VELRO_FX_READ : VELRO_FX_WRITE;
  action.url = text(url);
  action.headers = HEADERS;
  action.header_count = 1;
  if (is_new) action.remote_id = text(id);
  return emit(out, action, state);
}

/* ------------------------------------------------------------------------------------------------- what happened */

/* The answer to the submit. Anything that is neither a job nor a clear refusal may have been bought. */
static int32_t submitted(const velro_job *job, velro_out *out) {
  uint32_t status = job->http_status;
  char id[MAX_ID + 1], state[MAX_ID + 3];
  if (status >= 200 && status < 300 && id_of(job->body, id)) {
    velro_action action = {0};
    snprintf(state, sizeof state, "1p%s", id);
    action.kind = VELRO_ACT_WAIT;
    action.wait_ms = 1000;
    action.remote_id = text(id); /* the host's proof that Pixie has the job: on this step or never */
    return emit(out, action, state);
  }
  switch (status) {
  case 401: case 403:
    return fail(out, VELRO_ERR_AUTH, VELRO_RETRY_OTHER, "auth", "The operator's account with the provider needs attention.");
  case 402:
    return fail(out, VELRO_ERR_QUOTA, VELRO_RETRY_OTHER, "quota", "The operator's account with the provider needs attention.");
  case 404: case 410:
    return fail(out, VELRO_ERR_NOT_FOUND, VELRO_RETRY_OTHER, "not_found", "The provider does not offer this model any more.");
  case 429:
    return fail(out, VELRO_ERR_RATE_LIMITED, VELRO_RETRY_SAME, "busy", "The provider takes no more jobs at this moment.");
  case 408: case 499:
    return lost(job, out);
  default:
    if (status >= 400 && status < 500)
      return fail(out, VELRO_ERR_INVALID_INPUT, VELRO_RETRY_NEVER, "rejected", "The provider refused the input.");
    return lost(job, out);
  }
}

/* How the job is, from a poll or from the answer to a cancel. Only this ends a job that Pixie has. */
static int32_t answered(const velro_job *job, velro_out *out) {
  char status[16], code[32], progress[64], doc[4096];
  velro_str url; /* raw JSON: it keeps its quotes and escapes, so it can be put into a document as it is */
  if (job->http_status < 200 || job->http_status >= 300) return later(out, 5000, NULL);
  word(job->body, "/status", status, sizeof status);
  if (!strcmp(status, "done")) {
    if (host->json_raw(job->body, "/url", &url) != 1 || url.ptr[0] != '"' || url.len > sizeof doc - 100)
      return fail(out, VELRO_ERR_BAD_RESPONSE, VELRO_RETRY_NEVER, "no_output", "The result has no output.");
    velro_action action = {0};
    int len = snprintf(doc, sizeof doc, "{\"outputs\":[{\"kind\":\"image\",\"source\":{\"url\":%.*s}}]}", (int)url.len,
                       (const char *)url.ptr);
    action.kind = VELRO_ACT_DONE;
    action.data_json = (velro_str){(const uint8_t *)doc, (size_t)len};
    return emit(out, action, NULL);
  }
  if (!strcmp(status, "error")) {
    word(job->body, "/code", code, sizeof code);
    if (!strcmp(code, "policy"))
      return fail(out, VELRO_ERR_CONTENT_POLICY, VELRO_RETRY_OTHER, "policy", "The provider's safety system refused it.");
    return fail(out, VELRO_ERR_UPSTREAM, VELRO_RETRY_NEVER, "failed", "The model failed at the provider. Try again.");
  }
  if (!strcmp(status, "cancelled")) return cancelled(out);
  long percent = number(job->body, "/percent", 100), ahead = number(job->body, "/ahead", 999999);
  if (percent >= 0)
    snprintf(progress, sizeof progress, "{\"permille\":%ld}", percent * 10);
  else if (ahead >= 0)
    snprintf(progress, sizeof progress, "{\"queue_position\":%ld}", ahead);
  else
    strcpy(progress, "{}");
  return later(out, 2000, progress);
}

static int32_t before(const pixie *self, const velro_job *job, char stage, velro_out *out) {
  char id[MAX_ID + 1];
  switch (job->event) {
  case VELRO_EV_START:
    return stage == 0 ? submit(self, job, out) : lost(job, out);
  case VELRO_EV_CANCEL:
    return stage == 0 ? cancelled(out) : lost(job, out);
  case VELRO_EV_HTTP:
    return stage == 's' ? submitted(job, out) : lost(job, out);
  case VELRO_EV_FAILED:
    if (stage == 's' && VELRO_NOT_SENT(job->transport_error))
      return fail(out, VELRO_ERR_UNAVAILABLE, VELRO_RETRY_SAME, "unreachable", "The provider cannot be reached.");
    return lost(job, out);
  case VELRO_EV_WEBHOOK:
    return id_of(job->body, id) ? ask(self, out, VELRO_GET, 'p', id, 1) : lost(job, out);
  case VELRO_EV_TIMER: case VELRO_EV_INTERRUPTED:
    return lost(job, out);
  default:
    return fault(out, VELRO_E_UNSUPPORTED, "this event is not known");
  }
}

static int32_t after(const pixie *self, const velro_job *job, char stage, const char *id, velro_out *out) {
  switch (job->event) {
  case VELRO_EV_HTTP:
    return answered(job, out);
  case VELRO_EV_FAILED: /* it is being paid for: keep asking */
    return later(out, 5000, NULL);
  case VELRO_EV_CANCEL:
    return ask(self, out, VELRO_DELETE, 'c', id, 0);
  case VELRO_EV_START: case VELRO_EV_TIMER: case VELRO_EV_WEBHOOK: case VELRO_EV_INTERRUPTED:
    return ask(self, out, VELRO_GET, stage, id, 0);
  default:
    return fault(out, VELRO_E_UNSUPPORTED, "this event is not known");
  }
}

/* ------------------------------------------------------------------------------------------ the functions of the table */

static int32_t step(void *instance, const velro_job *job, velro_out *out) {
  const pixie *self = instance;
  const char *state = (const char *)job->state.ptr;
  size_t len = job->state.len;
  char id[MAX_ID + 1];
  if (len == 0) return before(self, job, 0, out);
  if (len < 2 || state[0] != '1') return fault(out, VELRO_E_BAD_STATE, "state of another version");
  switch (state[1]) {
  case 's': case 'l':
    return before(self, job, state[1], out);
  case 'p': case 'c':
    if (!is_id(state + 2, len - 2)) break;
    memcpy(id, state + 2, len - 2);
    id[len - 2] = '\0';
    return after(self, job, state[1], id, out);
  }
  return fault(out, VELRO_E_BAD_STATE, "state that this plugin did not write");
}

static int32_t manifest(void *instance, velro_out *out) {
  const pixie *self = instance;
  out->write(out, VELRO_LIT("{\"provider\":\"pixie\",\"version\":\"1.0.0\",\"secrets\":[\"PIXIE_KEY\"],\"hosts\":[\""));
  out->write(out, (velro_str){(const uint8_t *)self->name, self->name_len});
  out->write(out, VELRO_LIT("\"],\"webhook_auth\":{\"scheme\":\"standard_webhooks\",\"secret\":\"PIXIE_WEBHOOK_SECRET\"}}"));
  return VELRO_OK;
}

static int32_t webhook(void *instance, const velro_hook *hook, velro_out *out) {
  char id[MAX_ID + 1];
  (void)instance;
  if (!id_of(hook->body, id)) {
    out->write(out, VELRO_LIT("\"ignore\""));
    return VELRO_OK;
  }
  out->write(out, VELRO_LIT("{\"remote\":\""));
  out->write(out, text(id)); /* letters, digits, dashes: nothing to escape */
  out->write(out, VELRO_LIT("\"}"));
  return VELRO_OK;
}

/* {"base_url": "https://api.pixie.example"}: where Pixie is, also for tests. */
static int32_t create(velro_str config, velro_out *out, void **instance) {
  static const char PIXIE[] = "https://api.pixie.example";
  pixie *self = calloc(1, sizeof *self);
  if (!self) return fault(out, VELRO_E_INTERNAL, "no memory");
  ptrdiff_t len = host->json_text(config, "/base_url", (uint8_t *)self->base, sizeof self->base - 1);
  if (len < 0) memcpy(self->base, PIXIE, sizeof PIXIE), len = sizeof PIXIE - 1;
  int usable = (size_t)len < sizeof self->base && !strpbrk(self->base, " \t\r\n\"\\{}@?#");
  size_t scheme = !strncmp(self->base, "https://", 8) ? 8 : !strncmp(self->base, "http://", 7) ? 7 : 0;
  while (usable && len > 0 && self->base[len - 1] == '/') self->base[--len] = '\0';
  self->name = self->base + scheme;
  self->name_len = strcspn(self->name, "/");
  if (!usable || !scheme || !self->name_len) {
    free(self);
    return fault(out, VELRO_E_BAD_INPUT, "config.base_url: write http(s)://host[:port][/path], up to 511 bytes");
  }
  *instance = self;
  return VELRO_OK;
}

static void destroy(void *instance) { free(instance); }

static const velro_plugin PLUGIN = {
    .struct_size = sizeof PLUGIN,
    .name = VELRO_INIT("pixie"),
    .version = VELRO_INIT("1.0.0"),
    .create = create,
    .destroy = destroy,
    .manifest = manifest,
    .step = step,
    .webhook = webhook,
};

VELRO_EXPORT const velro_plugin *velro_plugin_entry_v1(const velro_host *services) {
  if (!VELRO_HAS(velro_host, services, json_text)) return NULL;
  host = services;
  return &PLUGIN;
}
