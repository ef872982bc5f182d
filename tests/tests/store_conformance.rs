//! The stores against the shared conformance suite. A new store adds a module with its stage.

mod sqlite {
    use async_trait::async_trait;
    use std::sync::Arc;
    use tests::store_suite::Stage;
    use velro::store::Store;
    use velro::store::sql::{OpenOptions, SqlStore};

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
            let options = OpenOptions {
                create: true,
                migrate: true,
            };
            let store = SqlStore::open(&file.to_string_lossy(), options).await;
            Arc::new(store.expect("the database opens"))
        }
    }

    tests::store_suite!(Folder::new());
}
