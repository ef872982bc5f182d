//! A generation API with a queue, as plain as they come: what the crate of `velro plugin new` and the examples speak.
//!
//! `POST /v1/jobs` answers 201 with an `id`; `GET /v1/jobs/ID` with a `status` of `queued`, `running`, `done` (then with `url`
//! and `result.url`), `failed` (with `error`) or `cancelled`; `DELETE /v1/jobs/ID` cancels. `GET /files/ID.png` is the picture.
//! A prompt of `refuse` is answered with 422, one of `fail` ends as `failed`.

use bytes::Bytes;
use salvo::conn::tcp::TcpAcceptor;
use salvo::prelude::*;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The simulator; it ends with the process.
pub struct QueueSim {
    /// `http://127.0.0.1:PORT`.
    pub base_url: String,
    /// What happened.
    pub book: Arc<Book>,
}

/// What the simulator was asked.
#[derive(Default)]
pub struct Book(Mutex<Vec<Job>>);

/// One bought job.
#[derive(Debug, Clone)]
pub struct Job {
    /// The `authorization` header of its submit.
    pub key: String,
    /// The body of its submit.
    pub input: Value,
    /// How often it was asked about.
    pub polls: u32,
    /// Cancelled.
    pub cancelled: bool,
}

impl Book {
    fn lock(&self) -> MutexGuard<'_, Vec<Job>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every job that was bought, in order.
    pub fn jobs(&self) -> Vec<Job> {
        self.lock().clone()
    }
}

/// Polls before a job is done.
const POLLS: u32 = 2;

impl QueueSim {
    /// Starts it on a free port.
    ///
    /// # Errors
    /// When there is none.
    pub async fn start() -> anyhow::Result<QueueSim> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let base_url = format!("http://{}", listener.local_addr()?);
        let book = Arc::new(Book::default());
        let router = Router::new()
            .hoop(affix_state::inject(Arc::clone(&book)).inject(Address(base_url.clone())))
            .push(Router::with_path("v1/jobs").post(submit))
            .push(Router::with_path("v1/jobs/{id}").get(look).delete(cancel))
            .push(Router::with_path("files/{name}").get(file));
        let acceptor = TcpAcceptor::try_from(listener)?;
        tokio::spawn(Server::new(acceptor).serve(router));
        Ok(QueueSim { base_url, book })
    }
}

#[derive(Clone)]
struct Address(String);

fn book(depot: &Depot) -> Arc<Book> {
    depot.get_typed::<Arc<Book>>().map(Arc::clone).unwrap_or_default()
}

#[handler]
async fn submit(req: &mut Request, depot: &mut Depot, res: &mut Response) {
    let key = req.header::<String>("authorization").unwrap_or_default();
    let input: Value = req.parse_json().await.unwrap_or_default();
    if input["prompt"] == "refuse" {
        res.status_code(StatusCode::UNPROCESSABLE_ENTITY);
        return res.render(Json(json!({ "error": "the prompt is refused" })));
    }
    let book = book(depot);
    let mut jobs = book.lock();
    jobs.push(Job {
        key,
        input,
        polls: 0,
        cancelled: false,
    });
    res.status_code(StatusCode::CREATED);
    res.render(Json(json!({ "id": format!("job-{}", jobs.len()) })));
}

fn index(req: &Request) -> Option<usize> {
    let id = req.param::<String>("id")?;
    id.strip_prefix("job-")?.parse::<usize>().ok()?.checked_sub(1)
}

#[handler]
async fn look(req: &mut Request, depot: &mut Depot, res: &mut Response) {
    let address = depot.get_typed::<Address>().map(|a| a.0.clone()).unwrap_or_default();
    let book = book(depot);
    let mut jobs = book.lock();
    let Some(index) = index(req).filter(|index| *index < jobs.len()) else {
        res.status_code(StatusCode::NOT_FOUND);
        return res.render(Json(json!({ "error": "no such job" })));
    };
    let job = &mut jobs[index];
    job.polls += 1;
    let url = format!("{address}/files/{index}.png");
    res.render(Json(match job {
        Job { cancelled: true, .. } => json!({ "status": "cancelled" }),
        Job { polls, .. } if *polls < POLLS => json!({ "status": "running" }),
        Job { input, .. } if input["prompt"] == "fail" => json!({ "status": "failed", "error": "it did not work out" }),
        _ => json!({ "status": "done", "url": url, "result": { "url": url } }),
    }));
}

#[handler]
async fn cancel(req: &mut Request, depot: &mut Depot, res: &mut Response) {
    let book = book(depot);
    let mut jobs = book.lock();
    match index(req).and_then(|index| jobs.get_mut(index)) {
        Some(job) => job.cancelled = true,
        None => drop(res.status_code(StatusCode::NOT_FOUND)),
    }
    res.render(Json(json!({ "status": "cancelled" })));
}

#[handler]
async fn file(res: &mut Response) {
    let mut png = std::io::Cursor::new(Vec::new());
    let drawn = image::RgbImage::from_pixel(64, 48, image::Rgb([40, 120, 200]));
    match drawn.write_to(&mut png, image::ImageFormat::Png) {
        Ok(()) => {
            drop(res.add_header("content-type", "image/png", true));
            res.body(salvo::http::ResBody::Once(Bytes::from(png.into_inner())));
        }
        Err(_) => drop(res.status_code(StatusCode::INTERNAL_SERVER_ERROR)),
    }
}
