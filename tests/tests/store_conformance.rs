//! The stores against the shared conformance suite: SQLite, PostgreSQL, and PostgreSQL through a pooler in transaction
//! mode. A new database adds a module with its stage.

#![allow(clippy::panic, reason = "test code")]

use velro::store::sql::OpenOptions;

const NEW: OpenOptions = OpenOptions {
    create: true,
    migrate: true,
};

mod sqlite {
    use async_trait::async_trait;
    use std::sync::Arc;
    use tests::store_suite::Stage;
    use velro::store::Store;
    use velro::store::sql::SqlStore;

    /// A database in a folder that goes with the test.
    struct Folder(tempfile::TempDir);

    impl Folder {
        fn new() -> Folder {
            Folder(tempfile::tempdir().expect("a folder for the database"))
        }
    }

    #[async_trait]
    impl Stage for Folder {
        async fn open(&self) -> Arc<dyn Store> {
            let file = self.0.path().join("velro.db");
            let store = SqlStore::open(&file.to_string_lossy(), super::NEW).await;
            Arc::new(store.expect("the database opens"))
        }
    }

    tests::store_suite!(Folder::new());

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn all_words_in_every_order_end_alike() {
        tests::store_suite::payments::all_words_in_every_order_end_alike(&Folder::new()).await;
    }
}

/// A database on the server of the test run, made when it is first opened.
struct OnServer {
    pooled: bool,
    database: tokio::sync::OnceCell<tests::services::Database>,
}

impl OnServer {
    fn new(pooled: bool) -> OnServer {
        OnServer {
            pooled,
            database: tokio::sync::OnceCell::new(),
        }
    }
}

#[async_trait::async_trait]
impl tests::store_suite::Stage for OnServer {
    async fn open(&self) -> std::sync::Arc<dyn velro::store::Store> {
        let make = || async { tests::services::shared()?.create_database().await };
        let database = self.database.get_or_try_init(make).await;
        let database = database.unwrap_or_else(|error| panic!("{error:#}"));
        let url = match self.pooled {
            true => &database.pooled_url,
            false => &database.url,
        };
        let store = velro::store::sql::SqlStore::open(url, NEW).await;
        std::sync::Arc::new(store.expect("the database opens"))
    }
}

mod postgres {
    tests::store_suite!(super::OnServer::new(false));
}

mod pgbouncer {
    tests::store_suite!(super::OnServer::new(true));
}
