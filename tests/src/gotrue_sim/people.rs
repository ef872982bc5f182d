//! People and their sessions.

use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

/// Life of an access token, in seconds.
pub(super) const LIFE_S: i64 = 3600;

/// An account.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct Person {
    pub id: Uuid,
    /// Empty for somebody who has only a phone.
    pub email: String,
    pub password: String,
    pub confirmed: bool,
    pub banned: bool,
    pub anonymous: bool,
    pub user_metadata: Value,
    pub app_metadata: Value,
    created_at: String,
    signed_in_at: Option<String>,
}

struct Session {
    id: Uuid,
    person: Uuid,
    /// Every refresh token there was; the last one is good.
    refresh_tokens: Vec<String>,
}

/// Everything that is stored.
#[derive(Default)]
pub(super) struct Book {
    people: Vec<Person>,
    sessions: Vec<Session>,
}

/// What a refresh token is.
pub(super) enum Refresh {
    Good { session: Uuid, person: Uuid },
    Used,
    Unknown,
}

fn now() -> String {
    OffsetDateTime::now_utc().format(&Rfc3339).expect("a time has a form")
}

impl Person {
    /// The person as GoTrue shows them.
    pub(super) fn shown(&self) -> Value {
        let confirmed_at = self.confirmed.then(|| self.created_at.clone());
        let identity = json!({
            "identity_id": self.id, "id": self.id, "user_id": self.id, "provider": "email", "email": self.email,
            "identity_data": { "email": self.email, "sub": self.id, "email_verified": self.confirmed },
            "created_at": self.created_at, "updated_at": self.created_at, "last_sign_in_at": self.created_at,
        });
        let mut shown = json!({
            "id": self.id, "aud": "authenticated", "role": "authenticated", "email": self.email, "phone": "",
            "app_metadata": self.app_metadata, "user_metadata": self.user_metadata, "identities": [identity],
            "created_at": self.created_at, "updated_at": self.created_at, "is_anonymous": self.anonymous,
        });
        if let Some(at) = confirmed_at {
            (shown["email_confirmed_at"], shown["confirmed_at"]) = (json!(at), json!(at));
        }
        if let Some(at) = &self.signed_in_at {
            shown["last_sign_in_at"] = json!(at);
        }
        shown
    }
}

impl Book {
    pub(super) fn add(&mut self, email: &str, password: &str, confirmed: bool, user: Value, app: Value) -> Uuid {
        let id = Uuid::new_v4();
        let mut app_metadata = json!({ "provider": "email", "providers": ["email"] });
        if let (Some(own), Some(more)) = (app_metadata.as_object_mut(), app.as_object()) {
            own.extend(more.clone());
        }
        self.people.push(Person {
            id,
            email: email.to_lowercase(),
            password: password.to_owned(),
            confirmed,
            banned: false,
            anonymous: false,
            user_metadata: if user.is_object() { user } else { json!({}) },
            app_metadata,
            created_at: now(),
            signed_in_at: None,
        });
        id
    }

    pub(super) fn by_email(&self, email: &str) -> Option<&Person> {
        let email = email.to_lowercase();
        self.people.iter().find(|person| person.email == email)
    }

    pub(super) fn person(&self, id: Uuid) -> Option<&Person> {
        self.people.iter().find(|person| person.id == id)
    }

    pub(super) fn person_mut(&mut self, id: Uuid) -> Option<&mut Person> {
        self.people.iter_mut().find(|person| person.id == id)
    }

    pub(super) fn remove(&mut self, id: Uuid) {
        self.people.retain(|person| person.id != id);
        self.end_sessions(id);
    }

    pub(super) fn end_sessions(&mut self, person: Uuid) {
        self.sessions.retain(|session| session.person != person);
    }

    pub(super) fn end_other_sessions(&mut self, person: Uuid, session: Uuid) {
        self.sessions.retain(|s| s.person != person || s.id == session);
    }

    pub(super) fn end_session(&mut self, id: Uuid) {
        self.sessions.retain(|session| session.id != id);
    }

    pub(super) fn has_session(&self, id: Uuid) -> bool {
        self.sessions.iter().any(|session| session.id == id)
    }

    pub(super) fn open_session(&mut self, person: Uuid) -> Uuid {
        let id = Uuid::new_v4();
        self.sessions.push(Session {
            id,
            person,
            refresh_tokens: Vec::new(),
        });
        if let Some(person) = self.person_mut(person) {
            person.signed_in_at = Some(now());
        }
        id
    }

    /// The next refresh token of a session.
    pub(super) fn next_refresh_token(&mut self, session: Uuid) -> String {
        let token = Uuid::new_v4().simple().to_string()[..12].to_owned();
        if let Some(session) = self.sessions.iter_mut().find(|s| s.id == session) {
            session.refresh_tokens.push(token.clone());
        }
        token
    }

    /// Finds a refresh token; one that was used ends its session.
    pub(super) fn refresh(&mut self, token: &str) -> Refresh {
        let holds = |s: &&Session| s.refresh_tokens.iter().any(|t| t == token);
        let Some(session) = self.sessions.iter().find(holds) else {
            return Refresh::Unknown;
        };
        let (id, person) = (session.id, session.person);
        if session.refresh_tokens.last().is_some_and(|last| last == token) {
            return Refresh::Good { session: id, person };
        }
        self.end_session(id);
        Refresh::Used
    }

    /// Claims of a token of a session.
    pub(super) fn claims(&self, issuer: &str, id: Uuid, session: Uuid) -> Value {
        let now_s = OffsetDateTime::now_utc().unix_timestamp();
        let person = self.person(id).expect("there is such a person");
        json!({
            "iss": issuer, "sub": id, "aud": "authenticated", "exp": now_s + LIFE_S, "iat": now_s,
            "email": person.email, "phone": "", "app_metadata": person.app_metadata,
            "user_metadata": person.user_metadata, "role": "authenticated", "aal": "aal1",
            "amr": [{ "method": "password", "timestamp": now_s }], "session_id": session,
            "is_anonymous": person.anonymous,
        })
    }
}
