//! Which operations an API key may call, and with which scopes. What is not in the table is for people only: a route that
//! somebody forgets is closed to keys, not open.
//!
//! The OpenAPI document says the same, from the same table.

use salvo::http::Method;

use super::problem::{Code, Problem, Result};
use crate::auth::{Caller, KeyRights};
use crate::store::Scope;

/// Any of them is enough.
type Scopes = &'static [Scope];

const SEE: Scopes = &[Scope::Generate, Scope::Read];
const READ: Scopes = &[Scope::Read];
const GENERATE: Scopes = &[Scope::Generate];
const BILLING: Scopes = &[Scope::Billing];

/// Method, path as the router matches it, scopes.
const TABLE: &[(Method, &str, Scopes)] = &[
    (Method::GET, "api/v1/auth/me", READ),
    (Method::GET, "api/v1/auth/whoami", READ),
    (Method::POST, "api/v1/auth/stream-token", SEE),
    (Method::GET, "api/v1/user/profile", READ),
    (Method::GET, "api/v1/user/info", READ),
    (Method::GET, "api/v1/user/credits", BILLING),
    (Method::GET, "api/v1/credits/balance", BILLING),
    (Method::GET, "api/v1/credits/transactions", BILLING),
    (Method::GET, "api/v1/credits/stats", BILLING),
    (Method::POST, "api/v1/credits/purchase", BILLING),
    (Method::POST, "api/v1/credits/redeem", BILLING),
    (Method::GET, "api/v1/credits/orders", BILLING),
    (Method::GET, "api/v1/credits/orders/{order_id}", BILLING),
    (Method::GET, "api/v1/projects", SEE),
    (Method::POST, "api/v1/projects", GENERATE),
    (Method::GET, "api/v1/projects/{project_id}", SEE),
    (Method::PUT, "api/v1/projects/{project_id}", GENERATE),
    (Method::DELETE, "api/v1/projects/{project_id}", GENERATE),
    (Method::GET, "api/v1/projects/{project_id}/stats", SEE),
    (Method::POST, "api/v1/generations/async/submit", GENERATE),
    (Method::GET, "api/v1/generations/async/{generation_id}/status", SEE),
    (Method::GET, "api/v1/generations/async/{generation_id}/stream", SEE),
    (
        Method::DELETE,
        "api/v1/generations/async/{generation_id}/cancel",
        GENERATE,
    ),
    (Method::GET, "api/v1/generations/async/user/history", SEE),
    (Method::GET, "api/v1/generations/async/models/available", SEE),
    (Method::GET, "generations", SEE),
    (Method::POST, "generations", GENERATE),
    (Method::GET, "generations/stats", SEE),
    (Method::POST, "generations/quote", SEE),
    (Method::GET, "generations/{generation_id}", SEE),
    (Method::DELETE, "generations/{generation_id}", GENERATE),
    (Method::POST, "generations/{generation_id}/favorite", GENERATE),
    (Method::GET, "generations/{generation_id}/media-urls", SEE),
];

/// The scopes of an operation; empty where keys are not taken. The collection of generations is mounted twice.
pub(super) fn of(method: &Method, path: &str) -> Scopes {
    let path = path.trim_matches('/');
    let path = match path.strip_prefix("api/v1/") {
        Some(rest)
            if rest == "generations" || rest.starts_with("generations/") && !rest.starts_with("generations/async") =>
        {
            rest
        }
        _ => path,
    };
    // An answer to HEAD is that to GET without its body.
    let method = if *method == Method::HEAD { &Method::GET } else { method };
    TABLE
        .iter()
        .find(|(m, p, _)| m == method && *p == path)
        .map_or(&[], |(_, _, scopes)| scopes)
}

/// Lets people pass, and keys with one of the operation's scopes.
pub(super) fn check(caller: &Caller, method: &Method, path: &str) -> Result<()> {
    let Some(key) = caller.key.as_deref() else {
        return Ok(());
    };
    let scopes = of(method, path);
    match scopes.iter().any(|&scope| key.has(scope)) {
        true => Ok(()),
        false => Err(refused(scopes)),
    }
}

/// Lets people pass, and keys that may use the model.
pub(super) fn check_model(key: Option<&KeyRights>, model_id: &str) -> Result<()> {
    match key.is_none_or(|key| key.may_use(model_id)) {
        true => Ok(()),
        false => Err(Problem::new(
            Code::InsufficientScope,
            "This API key may not use this model; add it to the key's models or use another key",
        )),
    }
}

fn refused(scopes: Scopes) -> Problem {
    let names: Vec<String> = scopes.iter().map(|scope| format!("`{}`", scope.as_str())).collect();
    let text = match names.as_slice() {
        [] => "API keys cannot do this; log in and send the access token".to_owned(),
        names => format!("This API key lacks the scope {}", names.join(" or ")),
    };
    Problem::new(Code::InsufficientScope, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_mounts_and_head_are_the_same_operation() {
        assert_eq!(of(&Method::GET, "api/v1/generations"), SEE);
        assert_eq!(of(&Method::HEAD, "/generations/{generation_id}/"), SEE);
        assert_eq!(of(&Method::POST, "api/v1/generations/async/submit"), GENERATE);
        assert_eq!(of(&Method::POST, "generations/async/submit"), [] as [Scope; 0]);
    }

    #[test]
    fn what_nobody_has_listed_is_for_people() {
        for (method, path) in [
            (Method::POST, "api/v1/auth/logout"),
            (Method::GET, "api/v1/generations/async/metrics/system"),
            (Method::POST, "api/v1/keys"),
            (Method::GET, "api/v1/something/new"),
        ] {
            assert!(of(&method, path).is_empty(), "{path}");
        }
    }
}
