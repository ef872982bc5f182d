//! `GET /media/{request_id}/{index}.{ext}`: public, as FAL's CDN is.

use salvo::{Request, Response};

use super::faults::{Action, Point};
use super::job::Outcome;
use super::reply::{self, Reply};
use super::state::Inner;
use super::{media::Format, outputs};

pub(super) async fn serve(inner: &Inner, request_id: &str, file: &str, req: &Request, res: &mut Response) {
    let conn = reply::connection(req);
    let with_key = req.headers().contains_key("authorization");
    let found = inner.with_job(request_id, |state, index, now| {
        let long_edge_px = state.settings.media_long_edge_px;
        let job = &mut state.jobs[index];
        job.counts.media += 1;
        job.counts.media_with_key += u32::from(with_key);
        let Some(Outcome::Deliver { outputs }) = job.ended(now) else {
            return None;
        };
        let outputs = *outputs;
        let format = outputs::spec_of(job, long_edge_px).format;
        let number = file
            .strip_suffix(format.extension())
            .and_then(|name| name.strip_suffix('.'))
            .and_then(|number| number.parse::<u32>().ok())
            .filter(|number| *number < outputs)?;
        let reply = media(outputs::bytes_of(job, number, long_edge_px), format);
        Some((reply, state.strike_job(index, Point::Media)))
    });
    inner.notify();
    let Some((answer, fault)) = found.flatten() else {
        return reply::write(Reply::detail(404, "File not found"), None, conn, res).await;
    };
    match fault {
        Some(Action::Slow(ms)) => reply::trickle(answer, ms, res),
        Some(Action::Oversized(bytes)) => reply::oversized(answer, bytes, res),
        fault => {
            let answer = reply::before(fault.as_ref(), conn.clone()).await.unwrap_or(answer);
            reply::write(answer, fault.as_ref(), conn, res).await;
        }
    }
}

fn media(bytes: anyhow::Result<bytes::Bytes>, format: Format) -> Reply {
    match bytes {
        Ok(body) => Reply {
            status: 200,
            content_type: format.content_type().to_owned(),
            headers: Vec::new(),
            body,
        },
        Err(error) => Reply::detail(500, &format!("fal-sim: {error:#}")),
    }
}
