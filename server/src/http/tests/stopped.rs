//! What an operator has stopped decides where a submit goes, and asking costs no call of the store.

use salvo::test::TestClient;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::{Arc, Mutex};

use super::{Answer, House, house_over, url};
use crate::catalog::Registry;
use crate::clock::{self, Micros};
use crate::pause::{Mode, Pause, Scope};
use crate::store::Result;
use crate::store::wrapped::{Manner, Wrapped};

const REGISTRY: &str = r#"
[providers.first]
kind = "sandbox"
[providers.second]
kind = "sandbox"

[[models]]
id = "a/b"
provider = "first"
provider_model = "image"
media_type = "image"
description = "d"
credits = 5
max_resolution = "8x8"
formats = ["png"]
typical_ms = 1
deadline_ms = 60000
poll_ceiling_ms = 1000
negative_prompt = { refused = "it has none" }
reference_image = { refused = "it has none" }

[[models.fallbacks]]
provider = "second"
provider_model = "image"
"#;

/// Notes which methods of the store are called.
#[derive(Default)]
struct Counted(Mutex<Vec<&'static str>>);

impl Manner for Counted {
    async fn make<T: Send>(&self, method: &'static str, call: impl Future<Output = Result<T>> + Send) -> Result<T> {
        self.0.lock().unwrap().push(method);
        call.await
    }
}

struct Shop {
    house: House,
    calls: Arc<Counted>,
    token: String,
}

impl Shop {
    async fn open() -> Shop {
        let calls = Arc::new(Counted::default());
        let counted = Arc::clone(&calls);
        let house = house_over(&[], |store| Arc::new(Wrapped::new(store, counted))).await;
        let registry = Registry::from_toml(REGISTRY, Path::new("providers.toml"), clock::now()).unwrap();
        house
            .services
            .providers
            .take_up(&house.services.config, &registry)
            .unwrap();
        house.services.shelf.set(registry);
        let token = house.token("a@example.com").await;
        Shop { house, calls, token }
    }

    fn stop(&self, stopped: &[(&str, Mode)]) {
        let pause = |(scope, mode): &(&str, Mode)| Pause {
            scope: Scope::parse(scope).unwrap(),
            mode: *mode,
            reason: "r".into(),
            actor: "a".into(),
            created_at: Micros(0),
        };
        self.house.services.pauses.set(stopped.iter().map(pause));
    }

    /// Submits; the answer, and what it asked of the store.
    async fn submit(&self) -> (Answer, Vec<&'static str>) {
        self.calls.0.lock().unwrap().clear();
        let body = json!({"model_id": "a/b", "prompt": "x"});
        let request = TestClient::post(url("/api/v1/generations/async/submit")).bearer_auth(&self.token);
        let answer = self.house.send(request.json(&body)).await;
        (answer, std::mem::take(&mut *self.calls.0.lock().unwrap()))
    }

    /// Where an accepted submit waits.
    async fn lane(&self) -> String {
        let (answer, calls) = self.submit().await;
        assert_eq!(calls, ["submit"], "one round trip, whatever is stopped");
        let id = answer.ok()["generation_id"].as_str().unwrap().parse().unwrap();
        let user: Value = self.house.get("/api/v1/auth/me", &self.token).await.ok();
        let user = user["id"].as_str().unwrap().parse().unwrap();
        let stored = self.house.services.store.generation(user, id).await.unwrap().unwrap();
        stored.provider
    }
}

#[tokio::test]
async fn a_stopped_provider_is_passed_over_and_what_is_draining_is_refused_without_the_store() {
    use Mode::{Draining, Paused};
    let shop = Shop::open().await;
    for (stopped, lane) in [
        (&[][..], "first"),
        (&[("provider:first", Draining)], "second"),
        (&[("provider:first", Paused)], "second"),
        (&[("provider:second", Draining)], "first"),
        // It waits rather than being refused.
        (&[("provider:first", Draining), ("provider:second", Paused)], "second"),
        (&[("provider:first", Paused), ("provider:second", Paused)], "first"),
        (&[("queue", Paused)], "first"),
    ] {
        shop.stop(stopped);
        assert_eq!(shop.lane().await, lane, "{stopped:?}");
    }
    for stopped in [
        &[("queue", Draining)][..],
        &[("provider:first", Draining), ("provider:second", Draining)],
    ] {
        shop.stop(stopped);
        let (answer, calls) = shop.submit().await;
        answer.problem(503, "draining");
        assert_eq!((answer.header("retry-after"), calls), ("30", vec![]));
    }
}
