//! What is sold, and who takes the money.

use serde_json::Value;
use url::Url;

use super::layers::Layers;
use super::resolve::{secret, url};
use super::{Config, Secret};
use crate::purchase::{Package, check_packages};

/// Purchases of credits.
#[derive(Debug, Clone, Default)]
pub struct PaymentsConfig {
    /// Stripe, when there is a key.
    pub stripe: Option<StripeConfig>,
    /// Where a buyer goes after the payment; a page of our own when it is not set.
    pub success_url: Option<String>,
    /// Where a buyer goes who turns back; a page of our own when it is not set.
    pub cancel_url: Option<String>,
    /// What can be bought.
    pub packages: Vec<Package>,
}

/// An account at Stripe.
#[derive(Debug, Clone)]
pub struct StripeConfig {
    /// `STRIPE_SECRET_KEY`.
    pub secret_key: Secret,
    /// Real money: says the key.
    pub livemode: bool,
    /// `STRIPE_WEBHOOK_SECRET`, then `STRIPE_WEBHOOK_SECRET_PREVIOUS`: any of them may have signed.
    pub webhook_secrets: Vec<Secret>,
    /// `STRIPE_API_URL`, no trailing slash.
    pub api_url: String,
}

/// What a key tells about itself.
fn mode_of(key: &str) -> Option<bool> {
    let live = ["sk_live_", "rk_live_"];
    let test = ["sk_test_", "rk_test_"];
    let begins = |with: &[&str]| {
        with.iter()
            .any(|prefix| key.starts_with(prefix) && key.len() > prefix.len())
    };
    match (begins(&live), begins(&test)) {
        (true, _) => Some(true),
        (_, true) => Some(false),
        _ => None,
    }
}

pub(super) fn payments(layers: &Layers, development: bool) -> PaymentsConfig {
    let packages = packages(layers);
    let stripe = stripe(layers, development);
    let success_url = page(layers, "payments.success_url");
    let cancel_url = page(layers, "payments.cancel_url");
    if stripe.is_some() && success_url.is_none() && layers.text("server.public_url").is_empty() && !development {
        layers.notice(
            layers.place("payments.success_url"),
            "is not set, and neither is PUBLIC_URL: buyers come back to an address that only this machine knows",
        );
    }
    PaymentsConfig {
        stripe,
        success_url,
        cancel_url,
        packages,
    }
}

fn packages(layers: &Layers) -> Vec<Package> {
    let key = "payments.packages";
    let list = match layers.json(key) {
        Some(Ok(list)) => list,
        Some(Err(error)) => {
            let what = format!("is no JSON: {error}");
            layers.fault_of(key, what, "write a JSON array of packages");
            return Vec::new();
        }
        None => Value::Array(Vec::new()),
    };
    check_packages(&list).unwrap_or_else(|faults| {
        for fault in faults {
            layers.fault_of(key, fault.what, fault.remedy);
        }
        Vec::new()
    })
}

fn stripe(layers: &Layers, development: bool) -> Option<StripeConfig> {
    let (key, hook) = ("payments.stripe_secret_key", "payments.stripe_webhook_secret");
    let api_url = url(layers, "payments.stripe_api_url").unwrap_or_default();
    let mut webhook_secrets = webhook_secrets(layers, hook);
    webhook_secrets.extend(self::webhook_secrets(layers, "payments.stripe_webhook_secret_previous"));
    if api_url.is_empty() && layers.text("payments.stripe_api_url").is_empty() {
        layers.fault_of(
            "payments.stripe_api_url",
            "is empty",
            "remove it to use Stripe's own address",
        );
    }
    let Some(secret_key) = secret(layers, key) else {
        if !webhook_secrets.is_empty() {
            layers.notice(layers.place(hook), "has no effect without STRIPE_SECRET_KEY");
        }
        return None;
    };
    let livemode = mode_of(secret_key.expose());
    if livemode.is_none() {
        // Not repeated in the message: it may be a secret all the same.
        let what = match secret_key.expose().starts_with("pk_") {
            true => "is a publishable key",
            false => "is no secret key of Stripe",
        };
        layers.fault_of(
            key,
            what,
            "write the secret or a restricted key: sk_test_..., sk_live_..., rk_...",
        );
    }
    if api_url.starts_with("http://") && !is_local(&api_url) {
        layers.notice(
            layers.place("payments.stripe_api_url"),
            "is not https: STRIPE_SECRET_KEY travels unencrypted",
        );
    }
    let advice = "set it to the signing secret (whsec_...) of the endpoint PUBLIC_URL/api/v1/webhooks/stripe";
    match (webhook_secrets.is_empty(), development) {
        (true, false) => layers.fault_of(hook, "is not set, so no payment would ever be booked", advice),
        (true, true) => layers.notice(
            layers.place(hook),
            "STRIPE_WEBHOOK_SECRET is not set: payments are booked by `velro orders reconcile` only",
        ),
        _ => {}
    }
    if livemode == Some(true) && development {
        layers.notice(layers.place(key), "is a live key in development: buyers pay real money");
    }
    Some(StripeConfig {
        secret_key,
        livemode: livemode.unwrap_or_default(),
        webhook_secrets,
        api_url,
    })
}

fn webhook_secrets(layers: &Layers, key: &str) -> Vec<Secret> {
    let secrets = layers.list(key);
    if secrets.iter().any(|s| !s.starts_with("whsec_")) {
        layers.fault_of(
            key,
            "is no signing secret of Stripe",
            "write whsec_..., or several with commas between them",
        );
    }
    secrets.into_iter().map(Secret::new).collect()
}

fn is_local(url: &str) -> bool {
    let url = Url::parse(url).ok();
    let host = url.as_ref().and_then(Url::host_str).unwrap_or_default();
    host == "localhost" || host.starts_with("127.")
}

/// A page for people; it may have a query, in which `{CHECKOUT_SESSION_ID}` is replaced.
fn page(layers: &Layers, key: &str) -> Option<String> {
    let text = layers.text(key);
    if text.is_empty() {
        return None;
    }
    let parsed = Url::parse(&text).ok();
    let fits = parsed.is_some_and(|url| matches!(url.scheme(), "http" | "https") && url.username().is_empty());
    if !fits {
        layers.fault_of(
            key,
            format!("is \"{text}\""),
            "write a URL such as \"https://app.example.com/paid?session={CHECKOUT_SESSION_ID}\"",
        );
    }
    Some(text)
}

/// Lines for `velro check`, in the order of the settings.
pub(super) fn shown(config: &Config) -> Vec<(&'static str, String)> {
    let payments = &config.payments;
    let hidden = |secrets: &[Secret]| match secrets {
        [] => "not set".to_owned(),
        secrets => secrets.iter().map(Secret::redacted).collect::<Vec<_>>().join(", "),
    };
    let stripe = payments.stripe.as_ref();
    let key = match (stripe, config.environment) {
        (Some(stripe), _) => format!(
            "{}, {} mode",
            stripe.secret_key.redacted(),
            if stripe.livemode { "live" } else { "test" }
        ),
        (None, super::Environment::Development) => "not set (orders are paid on the sandbox's page)".to_owned(),
        (None, super::Environment::Production) => "not set (nothing can be bought)".to_owned(),
    };
    let page = |url: &Option<String>| url.clone().unwrap_or_else(|| "not set (a page of our own)".to_owned());
    let packages = payments.packages.iter();
    let packages = packages.map(|p| format!("{}: {} credits for {}", p.id, p.credits, p.price));
    let packages = packages.collect::<Vec<_>>().join(", ");
    vec![
        ("payments.stripe_secret_key", key),
        (
            "payments.stripe_webhook_secret",
            hidden(stripe.map_or(&[], |s| &s.webhook_secrets)),
        ),
        (
            "payments.stripe_webhook_secret_previous",
            "shown with the one above".to_owned(),
        ),
        (
            "payments.stripe_api_url",
            stripe.map_or_else(|| "not used".to_owned(), |s| s.api_url.clone()),
        ),
        ("payments.success_url", page(&payments.success_url)),
        ("payments.cancel_url", page(&payments.cancel_url)),
        (
            "payments.packages",
            if packages.is_empty() {
                "none".to_owned()
            } else {
                packages
            },
        ),
    ]
}
