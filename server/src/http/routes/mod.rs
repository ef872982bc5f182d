//! One file per resource; each offers routers for the assembler to mount.
//!
//! | router | mount point | authentication |
//! |---|---|---|
//! | [`models::supported_router`] | `/api/v1/generations/models`, `/generations/models`; before the routers below | public |
//! | [`models::router`] | `/api/v1/models` | public |
//! | [`stream::router`] | `/api/v1/generations/async`; before [`submissions::router`] | its own: [`Caller`] if the hoop put one into the depot, else `?token=`, so the authentication hoop must let a request without a header pass |
//! | [`submissions::router`] | `/api/v1/generations/async`; before [`generations::router`] | bearer |
//! | [`generations::router`] | `/api/v1/generations` and `/generations` | bearer |
//! | [`outputs::router`] | `/outputs` | public; the URL is signed. Sets its own `Access-Control-Allow-Origin: *` |
//! | [`webhooks::router`] | `/webhooks` | public; the body is signed by the provider |
//! | [`docs::router`] | `/` | public |
//!
//! [`Caller`]: super::Caller

mod call;
mod generation_view;
mod watching;

pub mod stream;
pub mod submissions;
