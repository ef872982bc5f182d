/* A library that is broken in the way that -DBROKEN_... says; without any of them it is a provider of one pixel. */
#include "velro_plugin.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifdef BROKEN_MAGIC
VELRO_EXPORT const velro_abi_note velro_plugin_abi_v1 = {{'N', 'O', 'T', 'V', 'E', 'L', 'R', 'O'}, 1, 0, 0, 0};
#elif defined BROKEN_MAJOR
VELRO_EXPORT const velro_abi_note velro_plugin_abi_v1 = {{'V', 'E', 'L', 'R', 'O', 'P', 'L', 'G'}, 7, 0, 0, 0};
#elif defined BROKEN_MINOR
VELRO_EXPORT const velro_abi_note velro_plugin_abi_v1 = {{'V', 'E', 'L', 'R', 'O', 'P', 'L', 'G'}, 1, 9, 9, 0};
#elif defined BROKEN_NOTE
int velro_plugin_other = 1;
#elif defined BROKEN_NEXT_MAJOR
VELRO_EXPORT const int velro_plugin_abi_v2 = 2;
#else
VELRO_DECLARE_ABI(0);
#endif

static const char PIXEL[] = "{\"outputs\":[{\"kind\":\"image\",\"source\":{\"url\":\"data:image/png;base64,"
                            "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==\"}}]}";

static int32_t manifest(void *self, velro_out *out) {
  (void)self;
#ifdef BROKEN_MANIFEST
  out->write(out, VELRO_LIT("{\"provider\": \"broken\", \"version\""));
#elif defined BROKEN_EMPTY_MANIFEST
  (void)out;
#elif defined BROKEN_LONG_MANIFEST
  for (int i = 0; i < 40000; i++) out->write(out, (velro_str){calloc(1, 1000), 1000});
#else
  out->write(out, VELRO_LIT("{\"provider\":\"broken\",\"version\":\"1.0.0\",\"hosts\":[\"broken.example\"]}"));
#endif
  return VELRO_OK;
}

static int32_t step(void *self, const velro_job *job, velro_out *out) {
  (void)self;
  velro_action act = {.struct_size = sizeof act, .kind = VELRO_ACT_DONE, .data_json = {(const uint8_t *)PIXEL, sizeof PIXEL - 1}};
#ifdef BROKEN_NO_ACTION
  (void)job;
  return VELRO_OK;
#endif
#ifdef BROKEN_TWO_ACTIONS
  out->emit(out, &act);
#endif
#ifdef BROKEN_KIND
  act.kind = 99;
#endif
#ifdef BROKEN_UTF8
  act.kind = VELRO_ACT_HTTP;
  act.url = (velro_str){(const uint8_t *)"https://\xff\xfe", 10};
#endif
#ifdef BROKEN_LENGTH
  act.state = (velro_str){(const uint8_t *)"x", SIZE_MAX};
#endif
#ifdef BROKEN_HEADERS
  act.kind = VELRO_ACT_HTTP;
  act.url = VELRO_LIT("https://broken.example/");
  act.header_count = 3;
#endif
#ifdef BROKEN_OUTCOME
  act.data_json = VELRO_LIT("{\"outputs\": 5}");
#endif
#ifdef BROKEN_CODE
  (void)job;
  out->fault(out, 4711, VELRO_LIT("what is this \x1b[31m"));
  return 4711;
#endif
#ifdef BROKEN_HOST
  act.kind = VELRO_ACT_HTTP;
  act.url = VELRO_LIT("http://169.254.169.254/latest/meta-data");
#endif
#ifdef BROKEN_SPIN
  if (job->event == VELRO_EV_START)
    for (;;) pause();
#endif
#ifdef BROKEN_CRASH
  *(volatile int *)(uintptr_t)8 = 1;
#endif
#ifdef BROKEN_LEAK
  /* Through a volatile pointer: otherwise the compiler leaves it out. */
  static void *volatile kept;
  kept = malloc(4096);
  memset(kept, 1, 4096);
#endif
#ifdef BROKEN_CHATTER
  for (int i = 0; i < 100000; i++) out->log(out, 1, VELRO_LIT("chatter"));
#endif
  (void)job;
  out->emit(out, &act);
  return VELRO_OK;
}

#ifdef BROKEN_CONSTRUCTOR
__attribute__((constructor)) static void stop_here(void) { _exit(3); }
#endif
#ifdef BROKEN_SLOW_CONSTRUCTOR
__attribute__((constructor)) static void stay_here(void) {
  for (;;) pause();
}
#endif

static const velro_plugin PLUGIN = {
    .struct_size = sizeof PLUGIN,
    .name = VELRO_INIT("broken"),
    .version = VELRO_INIT("1.0.0"),
    .manifest = manifest,
#ifndef BROKEN_STEP
    .step = step,
#endif
};

#ifdef BROKEN_ENTRY
static const velro_plugin *velro_plugin_entry(const velro_host *host) {
#else
VELRO_EXPORT const velro_plugin *velro_plugin_entry_v1(const velro_host *host) {
#endif
  (void)host;
#ifdef BROKEN_REFUSES
  return NULL;
#elif defined BROKEN_SHORT
  static uint32_t table[2] = {8, 0};
  return (const velro_plugin *)(void *)table;
#elif defined BROKEN_POINTER
  return (const velro_plugin *)(uintptr_t)3;
#else
  return &PLUGIN;
#endif
}
#ifdef BROKEN_ENTRY
VELRO_EXPORT const velro_plugin *keep(void) { return velro_plugin_entry(NULL); }
#endif
