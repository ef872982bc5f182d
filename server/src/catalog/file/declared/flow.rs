//! How often a job is asked about, and how it reports by itself.

use url::Url;
use velro_plugin::WebhookAuth;

use super::answer::{self, JobRead};
use super::{open, optional, pointer};
use crate::catalog::declaration::{Pace, Pointer, Webhook};
use crate::document::Section;

#[derive(Clone, Copy)]
enum Scheme {
    Standard,
    Ed25519,
}

const SCHEMES: [(&str, Scheme); 2] = [
    ("standard_webhooks", Scheme::Standard),
    ("ed25519_jwks", Scheme::Ed25519),
];

/// `[providers.NAME.poll]`, or the usual pace.
pub(super) fn pace(s: &mut Section<'_, '_>) -> Option<Pace> {
    let usual = Pace {
        first_ms: 1_000,
        factor_percent: 150,
        ceiling_ms: 10_000,
        with_webhook_ms: 15_000,
    };
    let Some(mut s) = open(s, "poll") else {
        return (!s.has("poll")).then_some(usual);
    };
    let mut time = |key: &'static str, usual: u64| match s.integer(key, 100..=600_000) {
        Some(spot) => u64::try_from(spot.value).ok(),
        None => (!s.has(key)).then_some(usual),
    };
    let first_ms = time("first_ms", usual.first_ms);
    let ceiling_ms = time("ceiling_ms", usual.ceiling_ms.max(first_ms.unwrap_or(0)));
    let with_webhook_ms = time("with_webhook_ms", usual.with_webhook_ms);
    let factor_percent = match s.number("factor") {
        None => (!s.has("factor")).then_some(usual.factor_percent),
        Some(spot) if (1.0..=10.0).contains(&spot.value) => Some((spot.value * 100.0).round() as u64),
        Some(spot) => {
            let what = format!("`factor` is {}", spot.value);
            s.fault(
                spot.line,
                what,
                "write a number from 1 to 10: every wait is so many times the one before",
            );
            None
        }
    };
    if let (Some(first), Some(ceiling)) = (first_ms, ceiling_ms)
        && first > ceiling
    {
        let what = format!("`first_ms` is {first} but `ceiling_ms` is {ceiling}");
        s.fault(s.line_of("ceiling_ms"), what, format!("write at least {first}"));
    }
    s.finish();
    Some(Pace {
        first_ms: first_ms?,
        factor_percent: factor_percent?,
        ceiling_ms: ceiling_ms?,
        with_webhook_ms: with_webhook_ms?,
    })
}

/// `[providers.NAME.webhook]` with its line; the inner `None` when something in it is wrong (which has been noted).
pub(super) fn webhook(s: &mut Section<'_, '_>, job: Option<&JobRead>) -> Option<(usize, Option<Webhook>)> {
    let mut s = open(s, "webhook")?;
    let line = s.line;
    let auth = auth(&mut s);
    let job_below = optional(&mut s, "job", pointer);
    let result = optional(&mut s, "result", pointer);
    if let Some(Some(result)) = &result
        && result.has_star()
    {
        let what = "`result` has a `*`";
        s.fault(
            s.line_of("result"),
            what,
            "write the pointer to the one place below which outputs stand",
        );
    }
    let id = optional(&mut s, "id", pointer);
    let state = optional(&mut s, "state", pointer);
    let states = answer::states(&mut s);
    s.finish();
    let webhook = (|| {
        let below = job_below?.unwrap_or_default();
        let usual = |pointer: Option<&Pointer>| pointer.map(|pointer| pointer.below(&below));
        Some(Webhook {
            auth: auth?,
            id: id?.or_else(|| usual(job?.id.as_ref()))?,
            state: state?.or_else(|| usual(job?.shape.state.as_ref()))?,
            states: states?,
            result: result?,
        })
    })();
    Some((line, webhook))
}

fn auth(s: &mut Section<'_, '_>) -> Option<WebhookAuth> {
    if !s.has("scheme") {
        // They are known, whichever it will be.
        for key in ["scheme", "secret", "jwks"] {
            s.raw(key);
        }
        s.missing(
            "scheme",
            "\"standard_webhooks\" or \"ed25519_jwks\": a webhook that is not signed is not believed",
        );
        return None;
    }
    match s.choice("scheme", &SCHEMES)?.value {
        Scheme::Standard => {
            let secret = s.required_text("secret", "\"ACME_WEBHOOK_SECRET\", the name of the secret")?;
            Some(WebhookAuth::StandardWebhooks {
                secret: secret.value.to_owned(),
            })
        }
        Scheme::Ed25519 => {
            let jwks = s.required_text("jwks", "\"https://.../jwks.json\", the address of the key document")?;
            let url = Url::parse(jwks.value).ok().filter(|url| url.host_str().is_some());
            if url.is_none_or(|url| !matches!(url.scheme(), "http" | "https")) {
                let what = format!("`jwks` is `{}`, which is not a web address", jwks.value);
                s.fault(jwks.line, what, "write where the API publishes its keys");
                return None;
            }
            Some(WebhookAuth::Ed25519Jwks {
                jwks: jwks.value.to_owned(),
            })
        }
    }
}

/// The host of the key document.
pub(super) fn keys_host(webhook: &Webhook) -> Option<String> {
    match &webhook.auth {
        WebhookAuth::Ed25519Jwks { jwks } => host_of(&Url::parse(jwks).ok()?),
        WebhookAuth::StandardWebhooks { .. } => None,
    }
}

/// The name of the secret that checks webhooks.
pub(super) fn secret_of(webhook: &Webhook) -> Option<&str> {
    match &webhook.auth {
        WebhookAuth::StandardWebhooks { secret } => Some(secret),
        WebhookAuth::Ed25519Jwks { .. } => None,
    }
}

/// `host` or `host:port`, as a manifest lists it.
pub(super) fn host_of(url: &Url) -> Option<String> {
    let host = url.host_str()?;
    Some(match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    })
}
