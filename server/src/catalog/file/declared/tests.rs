//! The reader of declarations: what the shipped ones say, and the exact words about every mistake.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::Path;
use std::sync::Arc;
use velro_plugin::{Method, Retry, WebhookAuth};

use crate::catalog::declaration::{Declaration, Hole, Json, Meaning, Stage};
use crate::catalog::{ProviderKind, Registry, RegistryErrors};
use crate::clock::Micros;

const FAL: &str = include_str!("../../../../../docs/providers/fal.toml");
const REPLICATE: &str = include_str!("../../../../../docs/providers/replicate.toml");
const WEBUI: &str = include_str!("../../../../../docs/providers/stable-diffusion-webui.toml");

/// An asynchronous provider with everything a mistake can be made in.
const ACME: &str = r#"
[providers.acme]
kind = "http"
base_url = "https://api.acme.example/v1/"
hosts = ["cdn-api.acme.example"]
headers = { Authorization = "Bearer {{secret:ACME_KEY}}" }
secrets = { ACME_KEY = "ACME_KEY_2" }
outputs = [{ at = "/files/*/url", kind = "image" }]

[providers.acme.submit]
path = "/{model}/jobs"
query = { hook = "{webhook_url}", size = 4 }
body = { prompt = "{param.prompt}", all = "{params}", note = "for {id_}" }

[providers.acme.status]
path = "/jobs/{id}"

[providers.acme.result]
path = "/jobs/{id}/files"

[providers.acme.cancel]
method = "DELETE"
path = "/jobs/{id}"

[providers.acme.job]
id = "/id"
state = "/state"
code = "/error/code"

[providers.acme.states]
waiting = "queued"
working = "running"
ready = "done"
broken = "failed"

[providers.acme.poll]
first_ms = 500
factor = 2
ceiling_ms = 8_000

[providers.acme.webhook]
scheme = "standard_webhooks"
secret = "ACME_HOOKS"
job = "/data"

[[providers.acme.errors]]
status = [402, "5xx"]
code = "no_money"
kind = "quota"
"#;

const MODEL: &str = r#"
[[models]]
id = "a/b"
provider = "acme"
media_type = "image"
description = "d"
credits = 5
max_resolution = "8x8"
formats = ["png"]
typical_ms = 1
deadline_ms = 2
poll_ceiling_ms = 1
negative_prompt = { refused = "no" }
reference_image = { refused = "no" }
"#;

fn acme() -> String {
    ACME.replace("for {id_}", "for {{acme}}")
}

fn load(text: &str) -> Result<Registry, RegistryErrors> {
    Registry::from_toml(text, Path::new("p"), Micros(0))
}

fn declaration(registry: &Registry, name: &str) -> Arc<Declaration> {
    match &registry.providers[name].kind {
        ProviderKind::Http(declaration) => Arc::clone(declaration),
        other => panic!("{other:?}"),
    }
}

fn faults(text: &str) -> Vec<String> {
    match load(&format!("{text}{MODEL}")) {
        Ok(_) => Vec::new(),
        Err(errors) => errors.faults.iter().map(ToString::to_string).collect(),
    }
}

#[test]
fn the_shipped_declarations_are_read_without_faults() {
    for (text, name) in [(FAL, "fal-http"), (REPLICATE, "replicate"), (WEBUI, "webui")] {
        let registry = load(text).unwrap_or_else(|errors| panic!("{name}: {errors}"));
        declaration(&registry, name);
        // They are to be pasted into the shipped registry, all of them.
        let whole = [include_str!("../../../../../providers.toml"), FAL, REPLICATE, WEBUI].join("\n");
        load(&whole).unwrap_or_else(|errors| panic!("{errors}"));
    }
}

#[test]
fn the_parts_are_read_as_written() {
    let registry = load(&format!("{}{MODEL}", acme())).unwrap_or_else(|errors| panic!("{errors}"));
    let entry = &registry.providers["acme"];
    assert_eq!(
        entry.hosts.as_deref().unwrap(),
        ["api.acme.example", "cdn-api.acme.example"]
    );
    let acme = declaration(&registry, "acme");
    assert_eq!(acme.base_url, "https://api.acme.example/v1");
    assert_eq!(acme.secrets, ["ACME_KEY"]);
    assert_eq!(acme.headers[0].0, "authorization");
    assert_eq!(acme.submit.method, Method::Post);
    assert!(!acme.repeatable);
    let Some(Json::Object(body)) = &acme.submit.body else {
        panic!()
    };
    assert_eq!(body[2], ("note".into(), Json::Value("for {acme}".into())));
    assert_eq!(
        acme.submit.path.as_ref().unwrap().holes().collect::<Vec<_>>(),
        [&Hole::Model]
    );
    let polling = acme.polling.as_ref().unwrap();
    assert_eq!(polling.status.method, Method::Get);
    assert_eq!(polling.cancel.as_ref().unwrap().method, Method::Delete);
    assert_eq!((polling.pace.first_ms, polling.pace.factor_percent), (500, 200));
    let hook = polling.webhook.as_ref().unwrap();
    assert_eq!((hook.id.as_str(), hook.state.as_str()), ("/data/id", "/data/state"));
    assert_eq!(
        hook.auth,
        WebhookAuth::StandardWebhooks {
            secret: "ACME_HOOKS".into()
        }
    );
    assert_eq!(acme.states["ready"], Stage::Done);
    assert_eq!(acme.errors[0].status, [(402, 402), (500, 599)]);
    assert_eq!(acme.errors[0].retry, Retry::OtherProvider);
    assert_eq!(acme.errors[0].meaning, Meaning::Kind(velro_plugin::ErrorKind::Quota));
    let fal = declaration(&load(FAL).unwrap(), "fal-http");
    assert_eq!(fal.all_hosts(), ["queue.fal.run", "rest.fal.ai"]);
    assert_eq!(fal.hosts, ["queue.fal.run"]);
}

/// What to replace in the declaration, and everything that is said then, with its line.
#[test]
fn each_mistake_is_named_with_line_and_remedy() {
    let cases: &[(&str, &str, &[&str])] = &[
        (
            "base_url = \"https://api.acme.example/v1/\"\n",
            "",
            &["2: [providers.acme]: `base_url` is missing; add `base_url` = \"https://api.acme.example/v1\""],
        ),
        (
            "\"https://api.acme.example/v1/\"",
            "\"api.acme.example\"",
            &[
                "4: [providers.acme]: `base_url` is `api.acme.example`, which is not a web address; write for example \"https://api.acme.example/v1\"",
            ],
        ),
        (
            "\"https://api.acme.example/v1/\"",
            "\"https://api.acme.example/?key=1\"",
            &[
                "4: [providers.acme]: `base_url` has more than a host and a path; put keys into `headers` or `query`, and placeholders into the `path` of a request",
            ],
        ),
        (
            "\"https://api.acme.example/v1/\"",
            "\"http://api.acme.example/v1\"",
            &[
                "4: [providers.acme]: `base_url` is not encrypted; write https, or add allow_private = true for a machine in your own network",
            ],
        ),
        (
            "Authorization = ",
            "Host = ",
            &["6: [providers.acme]: the header `Host` belongs to the connection; remove it: Velro sets it"],
        ),
        (
            "Authorization = ",
            "\"a b\" = ",
            &["6: [providers.acme]: `a b` is not a name of a header; correct it"],
        ),
        (
            "Bearer {{secret:ACME_KEY}}",
            "Bearer {id}",
            &[
                "6: [providers.acme]: `headers.Authorization` uses `{id}`, which cannot stand there; there is no id before the submit was answered",
            ],
        ),
        (
            "Bearer {{secret:ACME_KEY}}",
            "Bearer {param.key}",
            &[
                "6: [providers.acme]: `headers.Authorization` uses `{param.key}`, which cannot stand there; send it in the query or the body",
            ],
        ),
        (
            "{ ACME_KEY = ",
            "{ ACME_KEI = ",
            &[
                "7: [providers.acme]: `secrets.ACME_KEI` is not a secret of this provider; its secrets are `ACME_KEY` or `ACME_HOOKS`",
            ],
        ),
        (
            "outputs = [{ at = \"/files/*/url\", kind = \"image\" }]\n",
            "",
            &[
                "2: [providers.acme]: nothing says where the outputs stand; add for example outputs = [{ at = \"/images\", kind = \"image\" }]",
            ],
        ),
        (
            "at = \"/files/*/url\", ",
            "",
            &[
                "8: [providers.acme.outputs]: `at` is missing; add `at` = \"/images\", the pointer to one output or a list of them",
            ],
        ),
        (
            "\"/files/*/url\"",
            "\"files\"",
            &[
                "8: [providers.acme.outputs]: `at` is the pointer `files`, which does not begin with `/`; write a JSON pointer as in \"/job/status\" (`~1` for `/`, `~0` for `~`, `*` for every element of a list)",
            ],
        ),
        (
            "kind = \"image\" }",
            "kind = \"picture\" }",
            &["8: [providers.acme.outputs]: `kind` is `picture`; write `image`, `video`, `audio` or `any`"],
        ),
        (
            "kind = \"image\" }",
            "as = \"body\" }",
            &["8: [providers.acme.outputs]: the whole answer has no pointer; remove `at`"],
        ),
        (
            "/{model}/jobs",
            "/{modle}/jobs",
            &[
                "11: [providers.acme.submit]: `path` has the unknown placeholder `{modle}`; did you mean `{model}`? Write `{{` for a brace",
            ],
        ),
        (
            "/{model}/jobs",
            "/{model}/jobs?x=1",
            &[
                "11: [providers.acme.submit]: `path` is `/{model}/jobs?x=1`; begin with `/`, write no host, no spaces and no `..`, and put what follows a `?` into `query`",
            ],
        ),
        (
            "/{model}/jobs",
            "/{{secret:ACME_KEY}}",
            &[
                "11: [providers.acme.submit]: `path` uses the secret `ACME_KEY`; secrets stand in header values and the query only",
            ],
        ),
        (
            "/{model}/jobs",
            "/{params}",
            &[
                "11: [providers.acme.submit]: `path` uses `{params}`, which cannot stand there; it is the whole input: write it alone, in the body",
            ],
        ),
        (
            "hook = \"{webhook_url}\", ",
            "",
            &[
                "41: [providers.acme]: there is a webhook, but `submit` does not say where it shall go; add \"{webhook_url}\" to the query or the body of `submit`",
            ],
        ),
        (
            "size = 4",
            "size = [4]",
            &["12: [providers.acme.submit]: `query.size` is not a text; write a text in quotes"],
        ),
        (
            "for {{acme}}",
            "for {id_}",
            &[
                "13: [providers.acme.submit]: `body` has the unknown placeholder `{id_}`; did you mean `{id}`? Write `{{` for a brace",
            ],
        ),
        (
            "for {{acme}}",
            "for {id}",
            &[
                "13: [providers.acme.submit]: `body` uses `{id}`, which cannot stand there; there is no id before the submit was answered",
            ],
        ),
        (
            "for {{acme}}",
            "{{secret:ACME_KEY}}",
            &[
                "13: [providers.acme.submit]: `body` uses the secret `ACME_KEY`; secrets stand in header values and the query only",
            ],
        ),
        (
            "[providers.acme.status]\npath = \"/jobs/{id}\"\n",
            "[providers.acme.status]\n",
            &[
                "15: [providers.acme.status]: nothing says where it goes; add `path`, as in \"/jobs/{id}\", or `url`, a pointer to an address in the answer to the submit",
            ],
        ),
        (
            "[providers.acme.status]\npath = \"/jobs/{id}\"\n",
            "[providers.acme.status]\npath = \"/jobs/{webhook_url}\"\nbody = 1\n",
            &[
                "16: [providers.acme.status]: `path` uses `{webhook_url}`, which cannot stand there; only `submit` can name it",
                "17: [providers.acme.status]: a GET has no body; add method = \"POST\", or move it to `query`",
            ],
        ),
        (
            "[providers.acme.status]\npath = \"/jobs/{id}\"\n",
            "",
            &[
                "2: [providers.acme]: a job has an id, but nothing asks how far it is; add [providers.acme.status], or remove `id` if the answer to `submit` is the result",
                "16: [providers.acme]: there is `result` without `status`; add [providers.acme.status], which says when",
                "19: [providers.acme]: there is `cancel` without `status`; add [providers.acme.status], which says when",
                "34: [providers.acme]: there is `poll` without `status`; remove it: there is nothing to poll",
                "39: [providers.acme]: there is `webhook` without `status`; add [providers.acme.status]: webhooks get lost, and then it is asked",
            ],
        ),
        (
            "id = \"/id\"\n",
            "",
            &[
                "15: [providers.acme]: there is `status`, but nothing says where a job's id stands; add `id` to [providers.acme.job]: the id proves that the job was accepted",
            ],
        ),
        (
            "state = \"/state\"\n",
            "",
            &[
                "15: [providers.acme]: there is `status`, but nothing says where a job's state stands; add `state` to [providers.acme.job]",
            ],
        ),
        (
            "id = \"/id\"\n",
            "id = \"id\"\n",
            &[
                "26: [providers.acme.job]: `id` is the pointer `id`, which does not begin with `/`; write a JSON pointer as in \"/job/status\" (`~1` for `/`, `~0` for `~`, `*` for every element of a list)",
            ],
        ),
        (
            "code = \"/error/code\"\n",
            "",
            &[
                "47: [providers.acme.errors]: `code` is compared with nothing; add `code` to the `job` table: the pointer to the API's error code",
            ],
        ),
        (
            "ready = \"done\"",
            "ready = \"finished\"",
            &[
                "33: [providers.acme]: the word `ready` means `finished`; write `queued`, `running`, `done`, `failed` or `cancelled`",
            ],
        ),
        (
            "ready = \"done\"",
            "",
            &[
                "15: [providers.acme]: no word of the API means `done`; add it to [providers.acme.states], as in FINISHED = \"done\"",
            ],
        ),
        ("[providers.acme.result]\npath = \"/jobs/{id}/files\"\n", "", &[]),
        (
            "factor = 2",
            "factor = 0.5",
            &[
                "38: [providers.acme.poll]: `factor` is 0.5; write a number from 1 to 10: every wait is so many times the one before",
            ],
        ),
        (
            "ceiling_ms = 8_000",
            "ceiling_ms = 400",
            &["39: [providers.acme.poll]: `first_ms` is 500 but `ceiling_ms` is 400; write at least 500"],
        ),
        (
            "scheme = \"standard_webhooks\"\n",
            "",
            &[
                "41: [providers.acme.webhook]: `scheme` is missing; add `scheme` = \"standard_webhooks\" or \"ed25519_jwks\": a webhook that is not signed is not believed",
            ],
        ),
        (
            "job = \"/data\"",
            "result = \"/a/*\"",
            &[
                "44: [providers.acme.webhook]: `result` has a `*`; write the pointer to the one place below which outputs stand",
            ],
        ),
        (
            "status = [402, \"5xx\"]",
            "status = [402, \"6xx\"]",
            &[
                "47: [providers.acme.errors]: `status` is not an HTTP status; write a number such as 422, a class such as \"5xx\", or a list of these",
            ],
        ),
        (
            "status = [402, \"5xx\"]\ncode = \"no_money\"\n",
            "",
            &["46: [providers.acme.errors]: it would fit every error; add `status`, `code`, `at` or `header`"],
        ),
        (
            "code = \"no_money\"",
            "is = \"no_money\"",
            &[
                "46: [providers.acme.errors]: nothing says what is compared; add `at` or `header`, or write `code` instead of `is`",
            ],
        ),
        (
            "kind = \"quota\"",
            "kind = \"not_yet\"",
            &["49: [providers.acme.errors]: this kind means something for `result` only; add on = \"result\""],
        ),
        (
            "kind = \"quota\"",
            "kind = \"unknown_outcome\"\non = \"result\"",
            &["49: [providers.acme.errors]: this kind means something for `submit` only; add on = \"submit\""],
        ),
        (
            "kind = \"quota\"",
            "kind = \"quotas\"",
            &[
                "49: [providers.acme.errors]: `kind` is `quotas`; write `invalid_input`, `auth`, `quota`, `rate_limited`, `content_policy`, `not_found`, `unavailable`, `timeout`, `cancelled`, `bad_response`, `upstream`, `unknown_outcome` or `not_yet`",
            ],
        ),
        (
            "[providers.acme.cancel]",
            "[providers.acme.cancle]",
            &["21: [providers.acme]: `cancle` is not a known key; did you mean `cancel`?"],
        ),
    ];
    let mut wrong = Vec::new();
    for (old, new, expected) in cases {
        let text = acme().replacen(old, new, 1);
        assert_ne!(text, acme(), "{old}");
        let found = faults(&text);
        if found != *expected {
            wrong.push(format!("{old} -> {new}: {found:#?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn all_faults_come_at_once() {
    let text = acme()
        .replace("/{model}/jobs", "jobs")
        .replace("\"/jobs/{id}/files\"", "\"/jobs/{i}\"")
        .replace("working = \"running\"", "working = 1")
        .replace("kind = \"quota\"", "kind = 1");
    assert_eq!(faults(&text).len(), 4, "{:#?}", faults(&text));
}

#[test]
fn a_synchronous_provider_needs_little() {
    let text = "[providers.acme]\nkind = \"http\"\nbase_url = \"https://x.example\"\noutputs = [{ as = \"body\" }]\n\
                [providers.acme.submit]\nbody = \"{params}\"\n";
    let registry = load(&format!("{text}{MODEL}")).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(declaration(&registry, "acme").polling, None);
    assert_eq!(
        faults(&format!("{text}[providers.acme.states]\nok = \"done\"\n")),
        [
            "7: [providers.acme]: there are `states`, but nothing says where a state stands; add `state` to [providers.acme.job]"
        ]
    );
    assert_eq!(
        faults(&text.replace("[providers.acme.submit]\nbody = \"{params}\"\n", "")),
        ["1: [providers.acme]: `submit` is missing; add [providers.acme.submit]: the request that starts a job"]
    );
}

#[test]
fn no_cut_off_declaration_panics() {
    for text in [FAL, REPLICATE, WEBUI] {
        for end in (0..text.len()).step_by(61) {
            if let Some(text) = text.get(..end) {
                let _ = load(text);
            }
        }
    }
}
