//! The routes.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use salvo::http::{Method, ResBody};
use salvo::prelude::*;
use serde_json::{Value, json};
use time::OffsetDateTime;
use uuid::Uuid;

use super::people::{LIFE_S, Refresh};
use super::{ANON_KEY, Fault, Inner, SERVICE_KEY, lock};

const API_VERSION: &str = "2024-01-01";

/// Everything is answered by it.
pub(super) struct Api(pub(super) Arc<Inner>);

/// An answer that is no error.
struct Reply {
    status: u16,
    body: Option<Value>,
    cache: Option<String>,
}

impl Reply {
    fn json(body: Value) -> Self {
        Reply {
            status: 200,
            body: Some(body),
            cache: None,
        }
    }
}

/// An error.
enum Refused {
    /// GoTrue's own: status, code, message, more members.
    Own(u16, &'static str, String, Value),
    /// Of a gateway in front: status and body.
    Gateway(u16, String),
    /// 429 with `Retry-After`.
    Throttled(u64),
}

fn refuse(status: u16, code: &'static str, message: &str) -> Refused {
    Refused::Own(status, code, message.to_owned(), json!({}))
}

#[async_trait]
impl Handler for Api {
    async fn handle(&self, req: &mut Request, _: &mut Depot, res: &mut Response, _: &mut FlowCtrl) {
        let version = req.header::<String>("x-supabase-api-version");
        let answer = self.answer(req).await;
        let modern = version.as_deref() == Some(API_VERSION) && !lock(&self.0.settings).legacy_errors;
        let mut header = |name: &'static str, value: &str| drop(res.add_header(name, value, true));
        header("content-type", "application/json");
        if modern {
            header("x-supabase-api-version", API_VERSION);
        }
        let (status, body) = match answer {
            Ok(reply) => {
                if let Some(cache) = &reply.cache {
                    header("cache-control", cache);
                }
                (reply.status, reply.body.map(|body| body.to_string()))
            }
            Err(Refused::Gateway(status, body)) => (status, Some(body)),
            Err(Refused::Throttled(seconds)) => {
                header("retry-after", &seconds.to_string());
                let body = error(modern, 429, "over_request_rate_limit", "Request rate limit reached");
                (429, Some(body.to_string()))
            }
            Err(Refused::Own(status, code, message, more)) => {
                header("x-sb-error-code", code);
                let mut body = error(modern, status, code, &message);
                if let (Some(body), Some(more)) = (body.as_object_mut(), more.as_object()) {
                    body.extend(more.clone());
                }
                (status, Some(body.to_string()))
            }
        };
        res.status_code(StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR));
        if let Some(body) = body {
            res.body(ResBody::Once(body.into()));
        }
    }
}

fn error(modern: bool, status: u16, code: &str, message: &str) -> Value {
    match modern {
        true => json!({ "code": code, "message": message }),
        false => json!({ "code": status, "error_code": code, "msg": message }),
    }
}

impl Api {
    async fn answer(&self, req: &mut Request) -> Result<Reply, Refused> {
        let path = req.uri().path().to_owned();
        let Some(path) = path.strip_prefix("/auth/v1") else {
            return Err(Refused::Gateway(
                404,
                r#"{"message":"no Route matched with those values"}"#.into(),
            ));
        };
        let grant = req.query::<String>("grant_type");
        let route = match &grant {
            Some(grant) => format!("{path}?grant_type={grant}"),
            None => path.to_owned(),
        };
        lock(&self.0.requests).push(route.clone());
        let fault = lock(&self.0.faults).get(&route).cloned();
        match fault {
            Some(Fault::Error(status, code, message)) => return Err(refuse(status, code, message)),
            Some(Fault::Gateway(status, body)) => return Err(Refused::Gateway(status, body.into())),
            Some(Fault::Throttled(seconds)) => return Err(Refused::Throttled(seconds)),
            Some(Fault::Late(pause)) => tokio::time::sleep(pause).await,
            None => {}
        }
        let key = req.header::<String>("apikey");
        match key.as_deref() {
            _ if path == "/.well-known/jwks.json" => {}
            None => {
                let text = r#"{"message":"No API key found in request","hint":"No `apikey` request header or url param was found."}"#;
                return Err(Refused::Gateway(401, text.into()));
            }
            Some(ANON_KEY | SERVICE_KEY) => {}
            Some(_) => return Err(Refused::Gateway(401, r#"{"message":"Invalid API key"}"#.into())),
        }
        let body = match *req.method() {
            Method::GET => Value::Null,
            _ => {
                let payload = req.payload().await.map(|bytes| bytes.to_vec()).unwrap_or_default();
                serde_json::from_slice(&payload).unwrap_or_default()
            }
        };
        let bearer = req.header::<String>("authorization");
        let bearer = bearer
            .as_deref()
            .and_then(|value| value.strip_prefix("Bearer "))
            .unwrap_or_default();
        match (req.method().as_str(), path, grant.as_deref()) {
            ("POST", "/signup", _) => self.sign_up(&body),
            ("POST", "/admin/users", _) => self.create(bearer, &body),
            ("DELETE", _, _) if path.starts_with("/admin/users/") => self.delete(bearer, path),
            ("POST", "/token", Some("password")) => self.password(&body),
            ("POST", "/token", Some("refresh_token")) => self.refresh(&body),
            ("GET", "/user", _) => self.user(bearer),
            ("PUT", "/user", _) => self.update(bearer, &body),
            ("POST", "/logout", _) => {
                let scope = req.query::<String>("scope");
                self.logout(bearer, scope.as_deref().unwrap_or("global"))
            }
            ("GET", "/settings", _) => Ok(Reply::json(self.settings())),
            ("GET", "/health", _) => Ok(Reply::json(
                json!({ "version": "v2.190.0", "name": "GoTrue", "description": "GoTrue is a user registration and authentication API" }),
            )),
            ("GET", "/.well-known/jwks.json", _) => {
                let age = lock(&self.0.settings).jwks_max_age.as_secs();
                Ok(Reply {
                    cache: Some(format!("public, max-age={age}")),
                    ..Reply::json(lock(&self.0.keys).published())
                })
            }
            _ => Err(Refused::Gateway(404, "404 page not found".into())),
        }
    }

    fn settings(&self) -> Value {
        let settings = lock(&self.0.settings);
        json!({
            "external": { "anonymous_users": false, "email": true, "phone": false, "google": false },
            "disable_signup": settings.disable_signup, "mailer_autoconfirm": settings.autoconfirm,
            "phone_autoconfirm": false, "sms_provider": "twilio", "saml_enabled": false,
        })
    }

    /// The rules of passwords.
    fn measure(&self, password: &str) -> Result<(), Refused> {
        let settings = lock(&self.0.settings);
        if password.len() > 72 {
            return Err(refuse(
                400,
                "validation_failed",
                "Password cannot be longer than 72 characters",
            ));
        }
        let mut reasons = Vec::new();
        if password.chars().count() < settings.min_password_chars {
            reasons.push("length");
        }
        let has = |is: fn(char) -> bool| password.chars().any(is);
        let mixed = has(|c| c.is_ascii_digit()) && has(|c| c.is_ascii_lowercase()) && has(|c| c.is_ascii_uppercase());
        if settings.strict_characters && !mixed {
            reasons.push("characters");
        }
        if password.contains("leaked") {
            reasons.push("pwned");
        }
        match reasons.is_empty() {
            true => Ok(()),
            false => Err(Refused::Own(
                422,
                "weak_password",
                "Password should be stronger, says GoTrue.".into(),
                json!({ "weak_password": { "reasons": reasons } }),
            )),
        }
    }

    fn sign_up(&self, body: &Value) -> Result<Reply, Refused> {
        let (email, password) = credentials(body)?;
        let settings = lock(&self.0.settings).clone();
        if settings.disable_signup {
            return Err(refuse(422, "signup_disabled", "Signups not allowed for this instance"));
        }
        self.measure(password)?;
        let mut book = lock(&self.0.book);
        if let Some(person) = book.by_email(email) {
            if settings.autoconfirm {
                return Err(refuse(422, "user_already_exists", "User already registered"));
            }
            // Nobody shall learn from it who has an account.
            let mut made_up = person.shown();
            made_up["id"] = json!(Uuid::new_v4());
            made_up["identities"] = json!([]);
            return Ok(Reply::json(made_up));
        }
        let id = book.add(email, password, settings.autoconfirm, body["data"].clone(), json!({}));
        if settings.autoconfirm {
            return Ok(Reply::json(self.session(&mut book, id)));
        }
        Ok(Reply::json(book.person(id).map(|p| p.shown()).unwrap_or_default()))
    }

    fn create(&self, bearer: &str, body: &Value) -> Result<Reply, Refused> {
        if bearer != SERVICE_KEY {
            return Err(refuse(403, "not_admin", "User not allowed"));
        }
        let (email, password) = credentials(body)?;
        self.measure(password)?;
        let mut book = lock(&self.0.book);
        if book.by_email(email).is_some() {
            let text = "A user with this email address has already been registered";
            return Err(refuse(422, "email_exists", text));
        }
        let confirmed = body["email_confirm"] == true;
        let id = book.add(
            email,
            password,
            confirmed,
            body["user_metadata"].clone(),
            body["app_metadata"].clone(),
        );
        Ok(Reply::json(book.person(id).map(|p| p.shown()).unwrap_or_default()))
    }

    fn delete(&self, bearer: &str, path: &str) -> Result<Reply, Refused> {
        if bearer != SERVICE_KEY {
            return Err(refuse(403, "not_admin", "User not allowed"));
        }
        let id = path.rsplit('/').next().and_then(|id| id.parse().ok());
        let mut book = lock(&self.0.book);
        match id.filter(|id| book.person(*id).is_some()) {
            Some(id) => {
                book.remove(id);
                Ok(Reply::json(json!({})))
            }
            None => Err(refuse(404, "user_not_found", "User not found")),
        }
    }

    fn password(&self, body: &Value) -> Result<Reply, Refused> {
        let (email, password) = credentials(body)?;
        let mut book = lock(&self.0.book);
        let wrong = || refuse(400, "invalid_credentials", "Invalid login credentials");
        let person = book
            .by_email(email)
            .filter(|p| p.password == password)
            .ok_or_else(wrong)?;
        if person.banned {
            return Err(refuse(400, "user_banned", "User is banned"));
        }
        if !person.confirmed {
            return Err(refuse(400, "email_not_confirmed", "Email not confirmed"));
        }
        let id = person.id;
        Ok(Reply::json(self.session(&mut book, id)))
    }

    fn refresh(&self, body: &Value) -> Result<Reply, Refused> {
        let token = body["refresh_token"].as_str().unwrap_or_default();
        if token.len() < 12 {
            return Err(refuse(400, "validation_failed", "Refresh token is not valid"));
        }
        let mut book = lock(&self.0.book);
        match book.refresh(token) {
            Refresh::Unknown => Err(refuse(
                400,
                "refresh_token_not_found",
                "Invalid Refresh Token: Refresh Token Not Found",
            )),
            Refresh::Used => Err(refuse(
                400,
                "refresh_token_already_used",
                "Invalid Refresh Token: Already Used",
            )),
            Refresh::Good { session, person } => {
                if book.person(person).is_some_and(|p| p.banned) {
                    return Err(refuse(403, "user_banned", "Invalid Refresh Token: User Banned"));
                }
                Ok(Reply::json(self.tokens(&mut book, session, person)))
            }
        }
    }

    fn session(&self, book: &mut super::people::Book, person: Uuid) -> Value {
        let session = book.open_session(person);
        self.tokens(book, session, person)
    }

    fn tokens(&self, book: &mut super::people::Book, session: Uuid, person: Uuid) -> Value {
        let refresh_token = book.next_refresh_token(session);
        let claims = book.claims(&self.0.base_url, person, session);
        json!({
            "access_token": lock(&self.0.keys).sign(&claims), "token_type": "bearer", "expires_in": LIFE_S,
            "expires_at": claims["exp"], "refresh_token": refresh_token,
            "user": book.person(person).map(|p| p.shown()),
        })
    }

    /// The person and the session of a token.
    fn bearer(&self, token: &str) -> Result<(Uuid, Uuid), Refused> {
        if token.is_empty() {
            return Err(refuse(
                401,
                "no_authorization",
                "This endpoint requires a valid Bearer token",
            ));
        }
        let bad = || refuse(403, "bad_jwt", "invalid JWT: unable to parse or verify signature");
        if !lock(&self.0.keys).verifies(token) {
            return Err(bad());
        }
        let payload = token.split('.').nth(1).and_then(|part| BASE64.decode(part).ok());
        let claims: Value = payload.and_then(|p| serde_json::from_slice(&p).ok()).ok_or_else(bad)?;
        if claims["exp"].as_i64().unwrap_or_default() < OffsetDateTime::now_utc().unix_timestamp() {
            return Err(refuse(403, "bad_jwt", "invalid JWT: token is expired"));
        }
        let id = |name: &str| claims[name].as_str().and_then(|id| id.parse::<Uuid>().ok());
        let (person, session) = id("sub").zip(id("session_id")).ok_or_else(bad)?;
        let book = lock(&self.0.book);
        match book.person(person) {
            None => Err(refuse(
                403,
                "user_not_found",
                "User from sub claim in JWT does not exist",
            )),
            Some(found) if found.banned => Err(refuse(403, "user_banned", "User is banned")),
            Some(_) if !book.has_session(session) => Err(refuse(
                403,
                "session_not_found",
                "Session from session_id claim in JWT does not exist",
            )),
            Some(_) => Ok((person, session)),
        }
    }

    fn user(&self, bearer: &str) -> Result<Reply, Refused> {
        let (person, _) = self.bearer(bearer)?;
        let book = lock(&self.0.book);
        Ok(Reply::json(book.person(person).map(|p| p.shown()).unwrap_or_default()))
    }

    fn update(&self, bearer: &str, body: &Value) -> Result<Reply, Refused> {
        let (id, session) = self.bearer(bearer)?;
        let mut book = lock(&self.0.book);
        if let Some(password) = body["password"].as_str() {
            self.measure(password)?;
            // All sessions but the one that asks.
            book.end_other_sessions(id, session);
        }
        let Some(person) = book.person_mut(id) else {
            return Err(refuse(403, "user_not_found", "User not found"));
        };
        if let Some(password) = body["password"].as_str() {
            password.clone_into(&mut person.password);
        }
        if let Some(email) = body["email"].as_str() {
            person.email = email.to_lowercase();
        }
        if let (Some(own), Some(more)) = (person.user_metadata.as_object_mut(), body["data"].as_object()) {
            for (name, value) in more {
                match value {
                    Value::Null => drop(own.remove(name)),
                    value => drop(own.insert(name.clone(), value.clone())),
                }
            }
        }
        Ok(Reply::json(person.shown()))
    }

    fn logout(&self, bearer: &str, scope: &str) -> Result<Reply, Refused> {
        let (person, session) = self.bearer(bearer)?;
        let mut book = lock(&self.0.book);
        match scope {
            "local" => book.end_session(session),
            "others" => book.end_other_sessions(person, session),
            _ => book.end_sessions(person),
        }
        Ok(Reply {
            status: 204,
            body: None,
            cache: None,
        })
    }
}

/// E-mail and password of a body.
fn credentials(body: &Value) -> Result<(&str, &str), Refused> {
    let text = |name: &str| body[name].as_str().filter(|t| !t.is_empty());
    match (text("email"), text("password")) {
        (Some(email), Some(password)) if email.contains('@') => Ok((email, password)),
        (Some(_), Some(_)) => Err(refuse(
            400,
            "validation_failed",
            "Unable to validate email address: invalid format",
        )),
        _ => Err(refuse(400, "validation_failed", "missing email or password")),
    }
}
