//! Sessions from registration to their end, through the embedded store.
#![allow(clippy::unwrap_used, clippy::panic)]

use super::*;
use crate::config::Overrides;
use crate::store::sql::{OpenOptions, SqlStore};
use std::collections::BTreeMap;

struct House {
    _folder: tempfile::TempDir,
    config: Config,
    store: Arc<dyn Store>,
}

async fn house() -> House {
    let folder = tempfile::tempdir().unwrap();
    let env = [
        ("VELRO_DATA", folder.path().display().to_string()),
        ("DEFAULT_USER_CREDITS", "120".to_owned()),
        ("OPERATOR_EMAILS", "boss@example.com".to_owned()),
    ];
    let env = env
        .map(|(k, v)| (k.to_owned(), v))
        .into_iter()
        .collect::<BTreeMap<_, _>>();
    let (config, _) = Config::load(&Overrides::default(), &env).unwrap_or_else(|e| panic!("{e}"));
    let options = OpenOptions {
        create: true,
        migrate: true,
    };
    let path = folder.path().join("velro.db").display().to_string();
    let store = SqlStore::open(&path, options).await.unwrap();
    House {
        _folder: folder,
        config,
        store: Arc::new(store),
    }
}

impl House {
    /// A replica that starts now.
    async fn replica(&self) -> Auth {
        let auth = Auth::new(&self.config, Arc::clone(&self.store));
        auth.load_revoked().await.unwrap();
        auth
    }
}

const PASSWORD: &str = "correct horse";

fn invalid(result: Result<Session, AuthError>) -> bool {
    matches!(result, Err(AuthError::InvalidToken))
}

#[tokio::test]
async fn registering_opens_one_account_with_start_credits_and_a_session() {
    let house = house().await;
    let auth = house.replica().await;
    let session = auth
        .register(
            "ada@example.com",
            PASSWORD.into(),
            Some("Ada".into()),
            Origin::default(),
        )
        .await
        .unwrap();
    assert_eq!(session.available, Credits(120));
    assert_eq!(session.user.role, Role::User);
    assert_eq!(
        auth.verify(&session.access_token).await.unwrap().user_id,
        session.user.id
    );

    let again = auth
        .register("ada@example.com", "another one".into(), None, Origin::default())
        .await;
    assert!(matches!(again, Err(AuthError::EmailTaken)));
    let boss = auth
        .register("boss@example.com", PASSWORD.into(), None, Origin::default())
        .await
        .unwrap();
    assert_eq!(boss.user.role, Role::Operator);
}

#[tokio::test]
async fn only_the_password_signs_in() {
    let house = house().await;
    let auth = house.replica().await;
    auth.register("ada@example.com", PASSWORD.into(), None, Origin::default())
        .await
        .unwrap();
    assert!(
        auth.login("ada@example.com", PASSWORD.into(), Origin::default())
            .await
            .is_ok()
    );
    for (email, password) in [
        ("ada@example.com", "correct horsf"),
        ("ada@example.com", ""),
        ("bob@example.com", PASSWORD),
        ("bob@example.com", "no password is known to match it"),
    ] {
        let refused = auth.login(email, password.into(), Origin::default()).await;
        assert!(
            matches!(refused, Err(AuthError::InvalidCredentials)),
            "{email} {password}"
        );
    }
}

#[tokio::test]
async fn a_refresh_token_works_once_and_its_reuse_ends_the_session() {
    let house = house().await;
    let auth = house.replica().await;
    let first = auth
        .register("ada@example.com", PASSWORD.into(), None, Origin::default())
        .await
        .unwrap();
    let second = auth.refresh(&first.refresh_token, Origin::default()).await.unwrap();
    assert_ne!(second.refresh_token, first.refresh_token);
    assert!(auth.verify(&second.access_token).await.is_ok());

    let other = auth
        .login("ada@example.com", PASSWORD.into(), Origin::default())
        .await
        .unwrap();
    assert!(
        invalid(auth.refresh(&first.refresh_token, Origin::default()).await),
        "a second use"
    );
    assert!(
        invalid(auth.refresh(&second.refresh_token, Origin::default()).await),
        "the family is over"
    );
    assert!(auth.verify(&first.access_token).await.is_err());
    assert!(auth.verify(&second.access_token).await.is_err());
    assert!(
        auth.verify(&other.access_token).await.is_ok(),
        "another session of the same person goes on"
    );

    for token in ["", "x", &first.access_token] {
        assert!(invalid(auth.refresh(token, Origin::default()).await), "{token:?}");
    }
}

#[tokio::test]
async fn logging_out_ends_the_session_everywhere() {
    let house = house().await;
    let (here, there) = (house.replica().await, house.replica().await);
    let session = here
        .register("ada@example.com", PASSWORD.into(), None, Origin::default())
        .await
        .unwrap();
    let caller = here.verify(&session.access_token).await.unwrap();
    let stream = here.stream_token(&caller, None).unwrap();
    here.logout(&caller, None).await.unwrap();
    here.logout(&caller, None).await.unwrap();

    assert!(
        here.verify(&session.access_token).await.is_err(),
        "at once where it was asked"
    );
    assert!(
        here.verify_stream_token(&stream, GenerationId::new()).is_err(),
        "stream tokens too"
    );
    assert!(invalid(here.refresh(&session.refresh_token, Origin::default()).await));
    assert!(invalid(there.refresh(&session.refresh_token, Origin::default()).await));

    there.load_revoked().await.unwrap();
    assert!(
        there.verify(&session.access_token).await.is_err(),
        "elsewhere with the next reading"
    );
    assert!(
        house.replica().await.verify(&session.access_token).await.is_err(),
        "and after a restart"
    );
}

#[tokio::test]
async fn the_watch_learns_of_an_end_elsewhere_and_stops_when_told() {
    let house = house().await;
    let here = house.replica().await;
    let there = Arc::new(house.replica().await);
    let session = here
        .register("ada@example.com", PASSWORD.into(), None, Origin::default())
        .await
        .unwrap();
    let caller = here.verify(&session.access_token).await.unwrap();
    here.logout(&caller, None).await.unwrap();

    let stop = CancellationToken::new();
    let watch = tokio::spawn(Arc::clone(&there).watch_revoked(stop.clone()));
    let learned = async {
        while there.verify(&session.access_token).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(REVOKED_EVERY * 4, learned).await.unwrap();
    stop.cancel();
    watch.await.unwrap();
}

#[tokio::test]
async fn secrets_are_not_stored_as_they_are() {
    let house = house().await;
    let auth = house.replica().await;
    let session = auth
        .register("ada@example.com", PASSWORD.into(), None, Origin::default())
        .await
        .unwrap();
    let mut stored = Vec::new();
    for entry in std::fs::read_dir(house._folder.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            stored.extend(std::fs::read(path).unwrap());
        }
    }
    assert!(
        contains(&stored, b"$argon2id$"),
        "the account is in the files looked at"
    );
    for secret in [PASSWORD, session.refresh_token.as_str(), session.access_token.as_str()] {
        assert!(!contains(&stored, secret.as_bytes()), "a secret is on the disk");
    }
}

fn contains(hay: &[u8], needle: &[u8]) -> bool {
    hay.windows(needle.len()).any(|w| w == needle)
}
