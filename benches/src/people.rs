//! The users of every load: many, with more credits than they can spend, created through the store.

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use tests::harness::JWT_SECRET;
use uuid::Uuid;
use velro::clock;
use velro::id::UserId;
use velro::ledger::Credits;
use velro::store::{Created, NewUser, Role, Store};

/// How many there are. A single user would make every batch one row of `accounts`; that is not how people come.
pub const PEOPLE: u64 = 512;

/// What each of them has.
const CREDITS: i64 = 1_000_000_000_000;

/// Before the number of a person in their id. The number is decimal, so that pgbench can write it too.
pub const ID_PREFIX: &str = "00000000-0000-7000-8000-";

/// Numbers begin here, to have twelve digits.
pub const FIRST: u64 = 100_000_000_000;

/// The id of a person, by number from 0.
///
/// # Errors
/// Never for numbers below [`PEOPLE`].
pub fn id(number: u64) -> Result<UserId> {
    let text = format!("{ID_PREFIX}{}", FIRST + number);
    Ok(UserId::from(Uuid::parse_str(&text).context("not a UUID")?))
}

/// Creates all of them in an empty database.
///
/// # Errors
/// If the store fails.
pub async fn create(store: &dyn Store) -> Result<()> {
    for number in 0..PEOPLE {
        let created = store
            .create_user(NewUser {
                id: id(number)?,
                email: format!("person-{number}@example.com"),
                password_hash: None,
                full_name: None,
                role: Role::User,
                start_credits: Credits(CREDITS),
                now: clock::now(),
            })
            .await?;
        ensure!(matches!(created, Created::New(_)), "person {number} exists already");
    }
    Ok(())
}

/// An access token as the server would sign it.
///
/// # Errors
/// Never for numbers below [`PEOPLE`].
pub fn token(number: u64) -> Result<String> {
    let now_s = clock::now().seconds();
    let claims = json!({
        "sub": id(number)?, "aud": "authenticated", "iss": "velro", "iat": now_s, "exp": now_s + 86_400,
        "email": format!("person-{number}@example.com"), "role": "authenticated",
        "session_id": Uuid::new_v4(), "token_type": "access",
    });
    Ok(tests::harness::token::sign(&claims, JWT_SECRET))
}
