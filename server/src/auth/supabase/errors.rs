//! What the account service's refusals mean here. Its codes decide, in both styles of its error bodies; its texts are
//! read only where old versions have no code, and go nowhere.

use serde_json::Value;

use crate::auth::{AuthError, Refusal};
use crate::upstream::ServiceAnswer;

/// How long to wait when the service says that there were too many requests, but not how long, in seconds.
const DEFAULT_RETRY_SECONDS: u64 = 30;

/// bcrypt reads no more of a password.
const MAX_PASSWORD_BYTES: usize = 72;

/// A refusal as it was told.
pub(super) struct Told {
    status: u16,
    /// Empty when there is none: then it may not have been the service that answered.
    code: String,
    /// For old versions only. Never shown.
    text: String,
    reasons: Vec<String>,
    retry_after_seconds: Option<u64>,
}

impl Told {
    pub(super) fn of(answer: &ServiceAnswer) -> Told {
        let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let text = |name: &str| body[name].as_str().filter(|t| !t.is_empty());
        let code = text("error_code")
            .or_else(|| text("code"))
            .or_else(|| answer.header("x-sb-error-code"))
            .or_else(|| text("error"))
            .unwrap_or_default();
        let words = ["msg", "message", "error_description", "error"]
            .into_iter()
            .find_map(text)
            .unwrap_or_default();
        let reasons = body["weak_password"]["reasons"].as_array().into_iter().flatten();
        Told {
            status: answer.status,
            code: code.to_owned(),
            text: words.to_lowercase(),
            reasons: reasons.filter_map(Value::as_str).map(str::to_owned).collect(),
            retry_after_seconds: answer.header("retry-after").and_then(|v| v.trim().parse().ok()),
        }
    }

    /// For the log: nothing of it is anybody's secret.
    pub(super) fn logged(&self) -> String {
        let code: String = self.code.chars().filter(|c| c.is_ascii_graphic()).take(64).collect();
        format!("{} {code}", self.status)
    }

    fn says(&self, words: &str) -> bool {
        self.text.contains(words)
    }

    /// What a refusal means whatever was asked for.
    fn in_any_case(&self) -> Option<AuthError> {
        Some(match (self.status, self.code.as_str()) {
            (429, _) => AuthError::Limited {
                retry_after_seconds: self.retry_after_seconds.unwrap_or(DEFAULT_RETRY_SECONDS),
            },
            (504 | 522 | 524, _) => AuthError::ServiceSlow,
            (500.., _) => AuthError::ServiceAway,
            (_, "user_banned") => AuthError::Refused(Refusal::Banned),
            (_, "captcha_failed") => AuthError::Refused(Refusal::Captcha),
            (_, "email_not_confirmed" | "provider_email_needs_verification") => {
                AuthError::Refused(Refusal::EmailNotConfirmed)
            }
            (_, "signup_disabled") => AuthError::Refused(Refusal::RegistrationClosed),
            (409, "conflict") => AuthError::ServiceAway,
            _ => return None,
        })
    }

    /// Of a password grant.
    pub(super) fn of_login(&self) -> AuthError {
        if let Some(error) = self.in_any_case() {
            return error;
        }
        match (self.status, self.code.as_str()) {
            (_, "same_password") => AuthError::WeakPassword(vec![SAME]),
            (_, "reauthentication_needed" | "insufficient_aal") => AuthError::Refused(Refusal::StrongerSignIn),
            (_, "email_provider_disabled") => AuthError::Refused(Refusal::LoginClosed),
            (400, "invalid_grant") if self.says("not confirmed") => AuthError::Refused(Refusal::EmailNotConfirmed),
            (400, "invalid_grant") if self.says("banned") => AuthError::Refused(Refusal::Banned),
            // An address or a password that it does not even read is nobody's.
            (400 | 422, "invalid_credentials" | "invalid_grant" | "validation_failed") => AuthError::InvalidCredentials,
            (404, "user_not_found") => AuthError::InvalidCredentials,
            _ => self.unexpected("signs nobody in"),
        }
    }

    /// Of a registration, by the public or the admin route.
    pub(super) fn of_registration(&self, password: &str) -> AuthError {
        if let Some(error) = self.in_any_case() {
            return error;
        }
        match (self.status, self.code.as_str()) {
            (_, "email_exists" | "user_already_exists" | "identity_already_exists") => AuthError::EmailTaken,
            (_, "weak_password") => AuthError::WeakPassword(self.reasons.iter().map(|r| rule(r)).collect()),
            (_, "email_provider_disabled") => AuthError::Refused(Refusal::RegistrationClosed),
            (_, "email_address_invalid" | "email_address_not_authorized") => AuthError::Refused(Refusal::EmailRefused),
            (400 | 422, _) if self.says("already been registered") || self.says("already registered") => {
                AuthError::EmailTaken
            }
            (400 | 422, _) if password.len() > MAX_PASSWORD_BYTES => AuthError::WeakPassword(vec![TOO_LONG]),
            (400 | 422, _) if self.says("password") => AuthError::WeakPassword(vec![]),
            (400 | 422, "validation_failed") => AuthError::Refused(Refusal::EmailRefused),
            _ => self.unexpected("registers nobody"),
        }
    }

    /// Of a refresh: everything it holds against the token is one thing to the client, and nothing else is.
    pub(super) fn of_refresh(&self) -> AuthError {
        if let Some(error) = self.in_any_case() {
            return error;
        }
        match (self.status, self.code.as_str()) {
            (400 | 422, _) => AuthError::InvalidToken,
            (403 | 404, "session_not_found" | "session_expired" | "user_not_found" | "bad_jwt") => {
                AuthError::InvalidToken
            }
            _ => self.unexpected("refreshes no session"),
        }
    }

    /// Of a call with a person's own token.
    pub(super) fn of_user(&self) -> AuthError {
        if let Some(error) = self.in_any_case() {
            return error;
        }
        match (self.status, self.code.as_str()) {
            (
                401 | 403 | 404,
                "bad_jwt" | "session_not_found" | "session_expired" | "user_not_found" | "no_authorization",
            ) => AuthError::InvalidToken,
            _ => self.unexpected("does not know its own user"),
        }
    }

    /// Of what needs no account.
    pub(super) fn of_read(&self) -> AuthError {
        self.in_any_case().unwrap_or_else(|| self.unexpected("answers nothing"))
    }

    /// Something is set up wrongly: nothing a client could do about it.
    fn unexpected(&self, what: &str) -> AuthError {
        tracing::error!(
            answered = self.logged(),
            "the account service {what}: check SUPABASE_URL and the project's keys"
        );
        AuthError::ServiceAway
    }
}

const SAME: &str = "must be another one than before";
const TOO_LONG: &str = "must have at most 72 bytes, which is what the account service reads";

/// What a reason asks for.
fn rule(reason: &str) -> &'static str {
    match reason {
        "length" => "must be longer",
        "characters" => "must have more kinds of characters: lower-case and upper-case letters, digits, symbols",
        "pwned" => "is in a list of leaked passwords; choose one that is used nowhere else",
        _ => "is too easy to guess; choose a longer one",
    }
}
