//! How many requests are worked on at once. More are refused before anything is done for them, so that those which are let in
//! are answered; who is only sending has no place, so that slow clients keep nobody out.

use salvo::{Depot, FlowCtrl, Handler, Request, Response, async_trait};
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::Services;
use super::hoops::is_probe;
use super::problem::{Code, Problem, Result};

/// How long a client may take to send what it sends.
const BODY_TIME: Duration = Duration::from_secs(120);

/// The hoop.
pub(super) struct Room {
    services: Arc<Services>,
    places: Arc<Semaphore>,
}

impl Room {
    pub(super) fn new(services: Arc<Services>) -> Self {
        let places = Arc::new(Semaphore::new(services.config.max_requests));
        Room { services, places }
    }
}

/// The place of a request, in its extensions.
struct Place {
    places: Arc<Semaphore>,
    held: Mutex<Option<OwnedSemaphorePermit>>,
}

impl Place {
    fn hold(&self, permit: Option<OwnedSemaphorePermit>) {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = permit;
    }
}

#[async_trait]
impl Handler for Room {
    async fn handle(&self, req: &mut Request, depot: &mut Depot, res: &mut Response, ctrl: &mut FlowCtrl) {
        // Whoever asks how the server is gets an answer all the more.
        if is_probe(req) {
            ctrl.call_next(req, depot, res).await;
            return;
        }
        let Ok(permit) = Arc::clone(&self.places).try_acquire_owned() else {
            self.services.metrics.shed();
            let busy = "The server works on as many requests as it can; try again in a second";
            res.render(Problem::new(Code::Unavailable, busy).retry_after(1));
            ctrl.skip_rest();
            return;
        };
        let place = Arc::new(Place {
            places: Arc::clone(&self.places),
            held: Mutex::new(Some(permit)),
        });
        req.extensions_mut().insert(Arc::clone(&place));
        ctrl.call_next(req, depot, res).await;
        // The request may live on with its answer's body.
        place.hold(None);
    }
}

/// Stands aside from the requests at work, to be asked before the request is borrowed for reading.
pub(super) struct Aside(Option<Arc<Place>>);

impl Aside {
    pub(super) fn of(req: &Request) -> Self {
        Aside(req.extensions().get().cloned())
    }

    /// Reads what a client sends, however it dawdles: without a place meanwhile, and not for ever.
    pub(super) async fn read<T>(self, reading: impl Future<Output = T>) -> Result<T> {
        if let Some(place) = &self.0 {
            place.hold(None);
        }
        let read = timeout(BODY_TIME, reading).await;
        if let Some(place) = &self.0 {
            // What has come this far waits for its turn.
            place.hold(Arc::clone(&place.places).acquire_owned().await.ok());
        }
        read.map_err(|_| {
            let seconds = BODY_TIME.as_secs();
            Problem::new(
                Code::BadRequest,
                format!("The body did not arrive within {seconds} seconds"),
            )
        })
    }
}
